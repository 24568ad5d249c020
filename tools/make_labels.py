"""Write what an archive, or the task of an evaluation, says of recordings as a table for tools/add_labels.py.

python tools/make_labels.py --ptbxl ptb-xl --source wfdb:ptb-xl --out labels.csv --subjects subjects.csv
python tools/make_labels.py --headers cinc2021 --source wfdb:cinc2021 --out labels.csv
python tools/make_labels.py --alarms challenge-2015/training --source wfdb:training --out alarms.csv
python tools/make_labels.py --task af --data cinc2017 --window_s 10 --out af.csv

--ptbxl names the folder of ptbxl_database.csv and scp_statements.csv: superclass (where a record has exactly one),
fold, age, sex of the records of one rate (--records), and of both rates the patients for --subjects of
tools/prepare_store.py. --headers names a folder of WFDB records
whose comments hold Age:, Sex:, Dx: or Labels:, as the challenges of 2020 to 2024 write them. --alarms names a folder of
the challenge of 2015: vt_alarm and its like, true or false, of the half minute before the alarm. --task reads the
labels of any task of tools/evaluate.py from its --data, window by window, so that what is evaluated can be learnt; and
the patients that files beside the signals tell, for --subjects.
"""

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

from jaxbio.config import fields
from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.config.next_lines import python, say_next
from jaxbio.data.ecg_archives import Row, read_alarms, read_headers, read_ptbxl, write_labels_csv, write_subjects_csv
from jaxbio.data.recordings import parse_source
from jaxbio.evaluation import tasks
from jaxbio.signals.segments import MIN_S

_BEFORE_S = 30.0


def main(arguments: Sequence[str]) -> dict:
    """Write the tables; return how many recordings and which columns they have."""
    flags = parse_flags(arguments)
    if flags.task is not None:
        return label_task(flags)
    source, subjects = name_in_store(flags.source), {}
    if flags.ptbxl is not None:
        of_rate = {rate: _read_ptbxl(Path(flags.ptbxl), rate) for rate in ("hr", "lr")}
        rows = of_rate[flags.records]
        # Whichever rate has labels: else an ECG's other copy would be a subject of its own, perhaps in another split.
        subjects = {(source, row.recording): row.subject for row in (*of_rate["hr"], *of_rate["lr"])}
    elif flags.headers is not None:
        rows = read_headers(Path(flags.headers))
    else:
        rows = read_alarms(Path(flags.alarms), _BEFORE_S if flags.before_s is None else flags.before_s)
    write_labels_csv(Path(flags.out), {source: rows})
    if flags.subjects is not None:
        write_subjects_csv(Path(flags.subjects), subjects)
    return {"labels": flags.out, "recordings": len(rows), "subjects": flags.subjects, "columns": list(rows[0].cells)}


def label_task(flags: argparse.Namespace) -> dict:
    """Write the labels of a task; return how many recordings and windows have any, and the columns."""
    task = tasks.get_task(flags.task)
    tasks.check_tabled(flags.task, task)
    sources = tasks.find_sources(task, flags.data)
    if flags.source is not None and len(sources) > 1:
        raise UserError(Fault("--source", flags.source, f"the name of one source, --data has {len(sources)}"))
    name_of = {source.name: name_in_store(flags.source) if flags.source else source.name for source in sources}
    window_s = flags.window_s or min(fields.defaults().data.segment_s, tasks.longest_window_s(task, sources))
    read = tasks.read_label_rows(flags.task, sources, window_s)
    rows_of = {name_of[name]: rows for name, rows in read.items()}
    if flags.subjects is not None:
        known = tasks.known_subjects(task, sources)
        write_subjects_csv(Path(flags.subjects), {(name_of[name], of): who for (name, of), who in known.items()})
    write_labels_csv(Path(flags.out), rows_of)
    columns = tasks.label_columns(flags.task, task)
    add = ["--store", "STORE", "--labels", flags.out]
    if task.classes:
        add += ["--classes", f"{columns[0]}={','.join(task.classes)}"]
        told = {row.cells[columns[0]] for rows in rows_of.values() for row in rows}
        add += ["--allow", "unseen_classes"] if told < set(task.classes) else []
    say_next(python("tools/add_labels.py", *add))
    recordings = sum(len({row.recording for row in rows}) for rows in rows_of.values())
    windows = sum(map(len, rows_of.values()))
    return {"labels": flags.out, "recordings": recordings, "windows": windows, "window_s": window_s,
            "subjects": flags.subjects, "columns": columns, "classes": list(task.classes)}  # fmt: skip


def parse_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the flags; raises UserError for values that mean nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    archive = parser.add_mutually_exclusive_group(required=True)
    archive.add_argument("--ptbxl", metavar="DIR", help="PTB-XL's folder")
    archive.add_argument("--headers", metavar="DIR", help="a folder of WFDB records")
    archive.add_argument("--alarms", metavar="DIR", help="a folder of the challenge of 2015, with its file ALARMS")
    archive.add_argument("--task", metavar="TASK", help=f"one of {', '.join(tasks.TASKS)}")
    parser.add_argument("--data", action="append", default=[], metavar="FOLDER", help="of --task, as tools/evaluate.py "
                        "has it: a data set, or FORMAT:PATH; may be repeated")  # fmt: skip
    parser.add_argument("--window_s", type=float, metavar="S", help="of --task: the store's data.segment_s; 30, or the "
                        "data set's longest window where that is shorter, if not given")  # fmt: skip
    parser.add_argument("--before_s", type=float, metavar="S", help="of alarms: the seconds before them; 30 if not "
                        "given")  # fmt: skip
    parser.add_argument("--records", choices=("hr", "lr"), default="hr", help="of PTB-XL: 500 Hz or 100 Hz")
    parser.add_argument("--source", metavar="FORMAT:FOLDER", help="the source as it was prepared, or its name in the "
                        "store; of --task that of its --data if not given")  # fmt: skip
    parser.add_argument("--out", required=True, metavar="FILE.csv", help="the labels")
    parser.add_argument("--subjects", metavar="FILE.csv", help="the patients, of PTB-XL or of --task")
    flags, _ = parse_command(arguments, parser, needs_config=False)
    if faults := [*_check_task_flags(flags), *_check_archive_flags(flags)]:
        raise UserError(*faults)
    return flags


def _check_task_flags(flags: argparse.Namespace) -> list[Fault]:
    """Return the faults of flags of a task."""
    if flags.task is None:
        given = {"--data": flags.data or None, "--window_s": flags.window_s}
        return [Fault(name, value, "of --task alone: leave it out") for name, value in given.items() if value]
    faults = [] if flags.data else [Fault("--data", None, "the data set that the task reads, or FORMAT:PATH")]
    if flags.window_s is not None and not MIN_S <= flags.window_s < math.inf:
        faults.append(Fault("--window_s", flags.window_s, f"seconds, at least {MIN_S:g}, a store's data.segment_s"))
    return faults


def _check_archive_flags(flags: argparse.Namespace) -> list[Fault]:
    """Return the faults of flags of archives."""
    faults = []
    if flags.source is None and flags.task is None:
        faults.append(Fault("--source", None, "the source as it was prepared, or its name in the store"))
    if flags.before_s is not None and flags.alarms is None:
        faults.append(Fault("--before_s", flags.before_s, "of --alarms alone; a task's window is --window_s"))
    elif flags.before_s is not None and not 0 < flags.before_s <= 300:
        remedy = "above 0 and at most 300: recordings begin 300 s before"
        faults.append(Fault("--before_s", flags.before_s, remedy))
    if flags.subjects is not None and flags.ptbxl is None and flags.task is None:
        faults.append(Fault("--subjects", flags.subjects, "only PTB-XL and tasks name their patients: leave it out"))
    return faults


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
