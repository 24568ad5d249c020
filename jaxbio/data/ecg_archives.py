"""What archives say of their recordings, for a label file: PTB-XL's tables, comments of WFDB headers, alarms.

rows = read_ptbxl(Path("ptbxl_database.csv"), Path("scp_statements.csv"), "filename_hr")
rows = read_headers(Path("cinc2021"))
rows = read_alarms(Path("challenge-2015/training"))

Which codes are one class is a study's decision: diagnoses of headers come as a column of 0 and 1 for each code.
"""

import ast
import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.labels import name_label
from jaxbio.data.recordings.regular_files import is_regular

_CENSORED_AGE = 300  # PTB-XL's age of whoever is over 89
_SEX = {"0": "male", "1": "female"}  # as PTB-XL's table has it
_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}  # as headers have it
_COMMENT = re.compile(r"#\s*(Age|Sex|Dx|Labels)\s*:\s*(.*?)\s*", re.IGNORECASE)


_ALARM_S = 300.0  # from the start of a recording of the challenge of 2015
# The kinds of alarm of the challenge of 2015, by the column that they become.
_ALARMS = {
    "Asystole": "asystole_alarm",
    "Bradycardia": "bradycardia_alarm",
    "Tachycardia": "tachycardia_alarm",
    "Ventricular_Flutter_Fib": "vf_alarm",
    "Ventricular_Tachycardia": "vt_alarm",
}


@dataclass(frozen=True)
class Row:
    """What is known of one recording, named as its source names it: the subject, if any, and cells by label."""

    recording: str
    subject: str
    cells: Mapping[str, str]


def read_ptbxl(database: Path, statements: Path, column: str) -> list[Row]:
    """Return PTB-XL's recordings of `column` ("filename_hr" or "filename_lr"): superclass, fold, age, sex.

    `superclass` is empty unless the record's diagnostic statements are of exactly one of CD, HYP, MI, NORM and STTC.
    Raises UserError for a table that is none of PTB-XL's.
    """
    classes = {
        line[""]: line["diagnostic_class"]
        for line in _read(statements, ("", "diagnostic", "diagnostic_class"))
        if line["diagnostic"] and float(line["diagnostic"]) == 1
    }
    rows = []
    for number, line in enumerate(
        _read(database, ("patient_id", "age", "sex", "scp_codes", "strat_fold", column)), start=2
    ):
        try:
            codes = ast.literal_eval(line["scp_codes"])
            found = {classes[code] for code in codes if code in classes}
            age = float(line["age"]) if line["age"] else float(_CENSORED_AGE)
            patient = f"{float(line['patient_id']):.0f}"
        except (ValueError, SyntaxError, TypeError) as error:
            raise UserError(Fault(str(database), f"line {number}", f"no line of ptbxl_database.csv: {error}")) from None
        cells = {
            "superclass": found.pop() if len(found) == 1 else "",
            "fold": line["strat_fold"],
            "age": f"{age:g}" if age < _CENSORED_AGE else "",
            "sex": _SEX.get(line["sex"].removesuffix(".0"), ""),
        }
        rows.append(Row(line[column], patient, cells))
    return rows


def read_headers(folder: Path) -> list[Row]:
    """Return the recordings of a folder of WFDB records: age, sex, and a column of 0 and 1 for each code of their
    comments `Dx:` or `Labels:`, as the challenges of 2020, 2021 and 2024 write them.

    A column is named by its code, with an underscore for each character that no label's name may have. Raises UserError
    for a folder that is not there, where no header has such a comment, and for two codes of one name.
    """
    if not folder.is_dir():
        raise UserError(Fault(str(folder), "no such folder", "name a folder of WFDB records"))
    found: list[tuple[str, dict[str, str], set[str]]] = []
    for path in sorted(path for path in folder.rglob("*.hea") if is_regular(str(path))):
        comments = [_COMMENT.fullmatch(line) for line in path.read_text(errors="replace").splitlines()]
        said = {match[1].casefold(): match[2] for match in comments if match}
        codes = {code.strip() for name in ("dx", "labels") for code in said.get(name, "").split(",")}
        age, sex = said.get("age", ""), _SEXES.get(said.get("sex", "").casefold(), "")
        known = {"age": age if re.fullmatch(r"\d+", age) and int(age) < _CENSORED_AGE else "", "sex": sex}
        if said:
            found.append((path.relative_to(folder).with_suffix("").as_posix(), known, codes - {"", "Unknown"}))
    if not found:
        raise UserError(Fault(str(folder), "no such comment", "WFDB headers with comments Age:, Sex:, Dx: or Labels:"))
    columns = _name_columns(set().union(*(codes for _, _, codes in found)))
    return [
        Row(name, "", {**known, **{column: str(int(code in codes)) for column, code in columns.items()}})
        for name, known, codes in found
    ]


def _name_columns(codes: Iterable[str]) -> dict[str, str]:
    """Return the code of each column: the code's own text, as far as the name of a label may have it."""
    code_of: dict[str, str] = {}
    for code in sorted(codes):
        column = name_label(code)
        if column in code_of:
            raise UserError(Fault("Dx:", f"{code_of[column]!r} and {code!r}", f"both would be the column {column}"))
        code_of[column] = code
    return code_of


def read_alarms(folder: Path, before_s: float = 30.0) -> list[Row]:
    """Return the recordings of a folder of the PhysioNet/CinC Challenge 2015, whose file ALARMS says which alarms are
    true: for the `before_s` seconds before the alarm, a column of true and false for each kind of alarm.

    The alarm sounds five minutes from the start, and sets on within the ten seconds before (the challenge's page).
    Raises UserError for a file that is none of the challenge's.
    """
    path = folder / "ALARMS"
    span = {"start_s": f"{_ALARM_S - before_s:g}", "end_s": f"{_ALARM_S:g}"}
    rows, columns = [], {**span, **dict.fromkeys(_ALARMS.values(), "")}
    try:
        for line in path.read_text(encoding="utf-8").split():
            recording, kind, truth = line.split(",")
            rows.append(Row(recording, "", {**columns, _ALARMS[kind]: {"0": "false", "1": "true"}[truth]}))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(Fault(str(path), str(error), "name a folder of the challenge of 2015")) from None
    except (ValueError, KeyError) as error:
        remedy = f"RECORD,KIND,0 or 1, as the challenge of 2015 has it ({error})"
        raise UserError(Fault(str(path), f"line {len(rows) + 1}", remedy)) from None
    if not rows:
        raise UserError(Fault(str(path), "no alarm", "name a folder of the challenge of 2015"))
    return rows


def write_labels_csv(path: Path, rows_of: Mapping[str, Sequence[Row]]) -> None:
    """Write the cells of rows, by the name of their source, as tools/add_labels.py reads them; columns without any
    value are left out.
    """
    every = [row for rows in rows_of.values() for row in rows]
    columns = [name for name in every[0].cells if any(row.cells[name] for row in every)]
    lines = ((source, r.recording, *(r.cells[c] for c in columns)) for source, rows in rows_of.items() for r in rows)
    _write(path, ("source", "recording", *columns), lines)


def write_subjects_csv(path: Path, subjects: Mapping[tuple[str, str], str]) -> None:
    """Write subjects by (source, recording) as `--subjects` reads them."""
    _write(path, ("source", "recording", "subject"), ((*whose, subject) for whose, subject in subjects.items()))


def _write(path: Path, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *lines])


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(Fault(str(path), str(error), "name a table of PTB-XL, a CSV in UTF-8")) from None
    missing = [column or "(no name)" for column in columns if column not in (reader.fieldnames or ())]
    if missing or not lines:
        raise UserError(
            Fault(str(path), f"lacks {', '.join(missing) or 'lines'}", "name a table of PTB-XL as published")
        )
    return lines
