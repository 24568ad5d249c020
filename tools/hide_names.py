"""Rewrite the names in a table as a preparation with --subject_key calls them: labels, subjects, those to leave out.

python tools/hide_names.py --subject_key ward.key --table labels.csv --out hidden.csv

The table is a CSV with a column `source` (empty or missing: `--source` is meant), and `subject`, `recording` or both.
"""

import argparse
import csv
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
from jaxbio.data.pseudonyms import read_key
from jaxbio.data.regular_files import open_text


def main(arguments: Sequence[str]) -> dict:
    """Write the table under its hidden names to --out; return how many lines it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject_key", required=True, metavar="FILE", help="the secret of the preparation")
    parser.add_argument("--table", required=True, metavar="FILE.csv", help="with subject, recording, or both")
    parser.add_argument("--source", type=free_text, default="", metavar="FORMAT:NAME", help="where a line names none")
    parser.add_argument("--out", required=True, metavar="FILE.csv", help="the same table under other names")
    flags, _ = parse_command(arguments, parser, needs_config=False)
    key, hidden = read_key(flags.subject_key), 0
    hide = {"subject": key.subject, "recording": key.recording}
    try:
        with open_text(flags.table) as read, open(flags.out, "x", newline="", encoding="utf-8") as written:
            table = csv.DictReader(read)
            columns = table.fieldnames or []
            if not set(columns) & set(hide):
                raise UserError(Fault("--table", flags.table, "has neither a column subject nor recording"))
            out = csv.DictWriter(written, columns)
            out.writeheader()
            for number, line in enumerate(table, 2):
                source = line.get("source") or flags.source
                if not source:
                    remedy = "names no source: add a column source, or --source FORMAT:NAME"
                    raise UserError(Fault("--table", f"{flags.table}, line {number}", remedy))
                for column, name in hide.items():
                    if line.get(column):
                        line[column] = name(source, line[column])
                out.writerow(line)
                hidden += 1
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(Fault("--table", flags.table, str(error))) from None
    return {"table": flags.out, "lines": hidden}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
