"""Write what an archive says of its recordings as a table for tools/add_labels.py.

python tools/make_labels.py --ptbxl ptb-xl --source wfdb:ptb-xl --out labels.csv --subjects subjects.csv
python tools/make_labels.py --headers cinc2021 --source wfdb:cinc2021 --out labels.csv
python tools/make_labels.py --alarms challenge-2015/training --source wfdb:training --out alarms.csv

--ptbxl names the folder of ptbxl_database.csv and scp_statements.csv: superclass (where a record has exactly one),
fold, age, sex of the records of one rate (--records), and of both rates the patients for --subjects of
tools/prepare_store.py. --headers names a folder of WFDB records
whose comments hold Age:, Sex:, Dx: or Labels:, as the challenges of 2020 to 2024 write them. --alarms names a folder of
the challenge of 2015: vt_alarm and its like, true or false, of the half minute before the alarm.
"""

import argparse
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
from jaxbio.data.ecg_archives import Row, read_alarms, read_headers, read_ptbxl, write_labels_csv, write_subjects_csv
from jaxbio.data.recordings import parse_source


def main(arguments: Sequence[str]) -> dict:
    """Write the tables; return how many recordings and which columns they have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    archive = parser.add_mutually_exclusive_group(required=True)
    archive.add_argument("--ptbxl", metavar="DIR", help="PTB-XL's folder")
    archive.add_argument("--headers", metavar="DIR", help="a folder of WFDB records")
    archive.add_argument("--alarms", metavar="DIR", help="a folder of the challenge of 2015, with its file ALARMS")
    parser.add_argument("--before_s", type=float, default=30.0, metavar="S", help="of alarms: the seconds before them")
    parser.add_argument("--records", choices=("hr", "lr"), default="hr", help="of PTB-XL: 500 Hz or 100 Hz")
    parser.add_argument(
        "--source",
        required=True,
        metavar="FORMAT:FOLDER",
        help="the source as it was prepared, or its name in the store",
    )
    parser.add_argument("--out", required=True, metavar="FILE.csv", help="the labels")
    parser.add_argument("--subjects", metavar="FILE.csv", help="the patients, of PTB-XL")
    flags, _ = parse_command(arguments, parser, needs_config=False)
    if not 0 < flags.before_s <= 300:
        raise UserError(Fault("--before_s", flags.before_s, "above 0 and at most 300: recordings begin 300 s before"))
    if flags.subjects is not None and flags.ptbxl is None:
        raise UserError(Fault("--subjects", flags.subjects, "only PTB-XL names its patients: leave it out"))
    both_rates: list[Row] = []
    if flags.ptbxl is not None:
        of_rate = {rate: _read_ptbxl(Path(flags.ptbxl), rate) for rate in ("hr", "lr")}
        rows, both_rates = of_rate[flags.records], [*of_rate["hr"], *of_rate["lr"]]
    elif flags.headers is not None:
        rows = read_headers(Path(flags.headers))
    else:
        rows = read_alarms(Path(flags.alarms), flags.before_s)
    source = name_in_store(flags.source)
    write_labels_csv(Path(flags.out), source, rows)
    if flags.subjects is not None:
        # Whichever rate has labels: else an ECG's other copy would be a subject of its own, perhaps in another split.
        write_subjects_csv(Path(flags.subjects), source, both_rates)
    return {"labels": flags.out, "recordings": len(rows), "subjects": flags.subjects, "columns": list(rows[0].cells)}


def _read_ptbxl(folder: Path, rate: str) -> list[Row]:
    return read_ptbxl(folder / "ptbxl_database.csv", folder / "scp_statements.csv", f"filename_{rate}")


def name_in_store(text: str) -> str:
    """Return what a store calls the source of this line (a link by the folder it leads to), or a name as it is."""
    try:
        return parse_source(text).name
    except UserError:  # no folder from here: the store was prepared elsewhere, and this is its name of the source
        return text


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
