"""Export the encoder of a run: weights, card, a program for any platform, and an example that checks them.

python tools/export_params.py --workdir runs/quickstart --out runs/quickstart/export
python tools/export_params.py --workdir runs/quickstart --which student --out student
python tools/export_params.py --workdir runs/alarm --sensitivity 0.95 --out detector    # a run that learnt labels
python tools/export_params.py --export runs/quickstart/export --layout reference --out reference
"""

import argparse
import dataclasses
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
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.config.next_lines import python_code, say_next


def main(arguments: Sequence[str]) -> dict:
    """Write an export folder, or the reference's layout of one; return what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", metavar="DIR", help="folder of the run whose checkpoint is exported")
    parser.add_argument("--export", metavar="DIR", help="an export folder instead of a run, to change its layout")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to write")
    parser.add_argument("--which", metavar="NAME", help="an encoder of the objective other than its default")
    parser.add_argument(
        "--step",
        type=int,
        metavar="N",
        help="another checkpoint than the one with the least checkpoint.best_metric, or without that the newest",
    )
    parser.add_argument("--layout", choices=("jaxbio", "reference"), default="jaxbio", help="names and axes of weights")
    parser.add_argument("--licence", type=free_text, default="not stated", help="licence of the weights, for the card")
    parser.add_argument(
        "--sensitivity",
        type=float,
        metavar="S",
        help="of a detector of two classes: the share of the validation split's positives to find, default 0.95",
    )
    parser.add_argument("--store", metavar="DIR", help="of a detector: where the run's store lies now")
    flags, _ = parse_command(arguments, parser, needs_config=False)
    if flags.sensitivity is not None and not 0 < flags.sensitivity <= 1:
        raise UserError(Fault("--sensitivity", flags.sensitivity, "a share above 0 and at most 1, such as 0.95"))
    if (flags.workdir is None) == (flags.export is None):
        raise UserError(Fault("--workdir", flags.workdir, "name one of --workdir and --export"))
    if flags.export is not None and flags.layout == "jaxbio":
        raise UserError(Fault("--layout", flags.layout, "an export is in this layout already; try --layout reference"))
    # JAX only after the flags are read: a wrong flag answers at once.
    from jaxbio.evaluation.calibration import calibrate_run
    from jaxbio.export import folder, from_run, reference
    from jaxbio.training.devices import check_devices

    check_devices()
    if flags.layout == "reference":
        if flags.export is not None:
            card, module, variables = folder.read_export(flags.export)
            inputs = card.inputs
        else:
            module, variables, inputs, *_ = from_run.load_encoder(flags.workdir, which=flags.which, step=flags.step)
        return reference.write_reference(flags.out, module, variables, inputs)
    loaded = from_run.load_encoder(flags.workdir, which=flags.which, step=flags.step, licence=flags.licence)
    calibrated = calibrate_run(flags.workdir, loaded, sensitivity=flags.sensitivity, store=flags.store)
    if calibrated is None and (flags.sensitivity or flags.store):
        raise UserError(Fault("--which", loaded.origin.which, "detects nothing: leave out --sensitivity and --store"))
    card = from_run.export_loaded(flags.workdir, flags.out, loaded, *calibrated or ())
    say_next(python_code(f"import jaxbio; print(jaxbio.load_pretrained({json.dumps(flags.out)}).card)"))
    return {
        "export": flags.out,
        "encoder": card.encoder,
        "which": card.which,
        "step": card.steps,
        "parameters": card.parameters,
        "width": card.width,
        "rate_hz": card.rate_hz,
        "channels": list(card.channels),
        "seen": card.seen,
    } | ({} if calibrated is None else {"detector": dataclasses.asdict(calibrated[0])})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
