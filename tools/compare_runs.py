"""Draw the curves of several runs over each other: every key of metrics.jsonl that two of them have.

python tools/compare_runs.py runs/a runs/b --out runs.html
python tools/compare_runs.py runs/a runs/b --keys 'eval/.*explained' --out runs.html
"""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.report.runs import write_runs_report


def main(arguments: Sequence[str]) -> dict:
    """Draw; write the page and return what it shows, with the last value of each key and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="DIR", help="workdirs of runs")
    parser.add_argument("--keys", default="(train|eval)/.*", metavar="REGEX", help="which keys are drawn: whole names")
    parser.add_argument("--out", required=True, metavar="FILE.html", help="the page to write")
    flags, _ = parse_command(arguments, parser, needs_config=False)
    if len(flags.runs) < 2:
        raise UserError(Fault("DIR", flags.runs, "name two runs at least"))
    try:
        pattern = re.compile(flags.keys)
    except re.error as error:
        raise UserError(Fault("--keys", flags.keys, f"no regular expression: {error}")) from None
    last = write_runs_report(Path(flags.out), flags.runs, pattern)
    return {"report": flags.out, "runs": flags.runs, "last": last}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
