"""Turn the reference implementation's weights into an export folder; PyTorch is not needed.

python tools/import_torch.py --family qualityfm --config configs/qualityfm_base.py --weights pwsa_teacher.pth --out base
python tools/import_torch.py --family qualityfm --config configs/qualityfm_base.py --config.model.layers=1 \
    --weights weights.npz --prefix student/ --out student
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

from jaxbio.config.command_line import free_text, parse_command
from jaxbio.config.faults import run_command
from jaxbio.config.next_lines import python_code, say_next


def main(arguments: Sequence[str]) -> dict:
    """Read the weights and write the export folder; return what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", required=True, metavar="NAME", help="registry name of the model, as qualityfm")
    parser.add_argument("--weights", required=True, metavar="FILE", help=".pth, .npz or .safetensors")
    parser.add_argument("--prefix", default="", metavar="TEXT", help="take only names that begin so, without it")
    parser.add_argument("--out", required=True, metavar="DIR", help="export folder to write")
    parser.add_argument("--licence", type=free_text, default="not stated", help="licence of the weights, for the card")
    flags, config = parse_command(arguments, parser, needs_networks=False)
    # JAX only after the flags are read: a wrong flag answers at once.
    from jaxbio.export.reference import import_reference
    from jaxbio.training.devices import check_devices

    check_devices()
    card = import_reference(flags.family, config, flags.weights, flags.out, prefix=flags.prefix, licence=flags.licence)
    say_next(python_code(f"import jaxbio; print(jaxbio.load_pretrained({json.dumps(flags.out)}).card)"))
    return {"export": flags.out, "encoder": card.encoder, "parameters": card.parameters, "width": card.width}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
