"""Put finished evaluations side by side: encoders, runs or detectors, on the segments that all of them answered.

python tools/compare.py runs/a/vt_alarm runs/b/vt_alarm --out compared
python tools/compare.py runs/a/vt_alarm runs/b/vt_alarm --entrant pretrained --entrant hand_made --out compared
python tools/compare.py detectors/a/vt_alarm detectors/b/vt_alarm --entrant detector --out compared

Folders are those that `tools/evaluate.py` wrote. Differences are from the first, on the same draws of subjects.
Segments of different lengths are refused; another protocol, seed or store to fit on is said.
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

from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.data.whole_files import whole_file


def main(arguments: Sequence[str]) -> dict:
    """Compare; write compared.json and compared.html into --out and return the former."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", metavar="DIR", help="folders that tools/evaluate.py wrote")
    whose = "whose answers: pretrained (the default), detector, hand_made, ...; may be repeated"
    parser.add_argument("--entrant", action="append", help=whose)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for compared.json and compared.html")
    parser.add_argument("--seed", type=int, default=0, help="of the draws of subjects")
    flags, _ = parse_command(arguments, parser, needs_config=False)
    if len(flags.evaluations) < 2 and len(flags.entrant or ()) < 2:
        raise UserError(Fault("DIR", flags.evaluations, "name two evaluations, or two --entrant of one"))
    from jaxbio.evaluation import side_by_side
    from jaxbio.evaluation.results import read_evaluation

    evaluations = {folder: read_evaluation(folder) for folder in flags.evaluations}
    compared = side_by_side.compare_evaluations(evaluations, flags.entrant or ["pretrained"], seed=flags.seed)
    out = Path(flags.out)
    out.mkdir(parents=True, exist_ok=True)
    result = compared.summary() | {"report": str(side_by_side.write_comparison(out / "compared.html", compared))}
    with whole_file(out / "compared.json") as unfinished:
        unfinished.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
