"""Reading a table of labels that people made, and finding everything that is wrong with it before anything is written.

A CSV with the columns source and recording, start_s and end_s where values hold for a span, and one column a label. It
knows how a store names its recordings, and no file of a store but its account.

    labels, account = read_label_file(Path("labels.csv"), store)
"""

import csv
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.label_spans import Segments, Spans, spread
from jaxbio.data.labels import NAME, Label, count_values
from jaxbio.data.pairs import split_codes
from jaxbio.data.regular_files import open_text
from jaxbio.data.store import Store
from jaxbio.data.store_files import RECORDINGS

UNKNOWN_RECORDINGS, UNSEEN_CLASSES = "unknown_recordings", "unseen_classes"
ALLOWED = (UNKNOWN_RECORDINGS, UNSEEN_CLASSES)
_SPAN = ("start_s", "end_s")
_UNKNOWN = ("", "nan", "na")  # an empty cell, and what NumPy, pandas and R write for a missing value
_LARGEST = 2**24  # above it float32 skips whole numbers: such numbers are codes, not quantities
_SHOWN = 8  # lines named by one fault
_FORM = "the form of a CSV in UTF-8 with the columns source,recording[,start_s,end_s] and one column a label"
_LEAVE_OUT = f"leave it out, or keep its code for the sake of other stores with --allow {UNSEEN_CLASSES}"

Recording = tuple[str, str]  # source and name, as recordings.parquet has them


@dataclass(frozen=True)
class Account:
    """What became of a file: its `lines`; those of recordings of which the store has no segment, and of which it knows
    nothing; and by label the segments on which values lie, none of them for more than half.
    """

    lines: int
    lines_without_segment: int
    lines_unknown: int
    undecided: dict[str, int]


@dataclass(frozen=True)
class Line:
    """One line: its number in the file, its recording, its span in s (0 to infinity: all of it), a cell a label."""

    number: int
    recording: Recording
    start_s: float
    end_s: float
    cells: Mapping[str, str]


class _Faults:
    """Faults of lines by what is wrong, so that a file with a thousand such lines gets one message."""

    def __init__(self, path: Path):
        self._path = path
        self._others: list[Fault] = []
        self._lines: dict[str, list[tuple[str, str]]] = defaultdict(list)

    def add(self, field: str, value: object, remedy: str) -> None:
        self._others.append(Fault(field, value, remedy))

    def at(self, line: object, value: object, remedy: str) -> None:
        """Note that `line` (a number, or two) holds `value` and wants `remedy`."""
        self._lines[remedy].append((str(line), str(value)))

    def all(self) -> list[Fault]:
        """Return every fault so far, those of lines with the numbers of the first of them."""
        found = list(self._others)
        for remedy, lines in self._lines.items():
            where = ", ".join(line for line, _ in lines[:_SHOWN])
            more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
            values = "; ".join(dict.fromkeys(value for _, value in lines[:_SHOWN]))
            found.append(Fault(f"{self._path}, line {where}{more}", values, remedy))
        return found


def read_label_file(
    path: Path,
    store: Store,
    *,
    classes: Mapping[str, Sequence[str]] | None = None,
    allow: Collection[str] = (),
    taken: Collection[str] = (),
) -> tuple[list[Label], Account]:
    """Return a label of the segments of `store` for each column of values in the CSV `path`, and what became of it.

    `classes` states the classes of a label in the order of their codes; without it a column of numbers is numbers, one
    of names is classes in sorted order. `allow` may hold "unknown_recordings" (their lines are left out) and
    "unseen_classes" (a class without a segment keeps its code); `taken` are names that no column may have. Raises
    UserError with every fault.
    """
    classes, faults = classes or {}, _Faults(path)
    names, lines = _read_lines(path, faults)
    _check_names(names, store, taken, faults)
    for name in sorted(classes.keys() - set(names)):
        faults.add("--classes", name, f"the file has no such column; it has {', '.join(names)}")
    duration_s, id_of, segments = _durations(store), *_segments(store)
    known = _known(lines, duration_s, faults, UNKNOWN_RECORDINGS in allow)
    labels, undecided = [], {}
    for name in names:
        filled = [line for line in known if line.cells[name].lower() not in _UNKNOWN]
        values, stated = _values(name, filled, classes.get(name), faults, UNSEEN_CLASSES in allow)
        _check_overlaps(name, filled, faults)
        if not faults.all():
            value_R, undecided_R = spread(_spans(filled, values, id_of), segments)
            labels.append(Label(name, value_R, stated))
            undecided[name] = int(undecided_R.sum())
    if not faults.all():  # of a file whose lines are wrong, what they give no segment says nothing
        _check_seen(labels, store, faults, UNSEEN_CLASSES in allow)
    if found := faults.all():
        raise UserError(*found)
    without = sum(line.recording not in id_of for line in known)
    return labels, Account(len(lines), without, len(lines) - len(known), undecided)


def _read_lines(path: Path, faults: _Faults) -> tuple[list[str], list[Line]]:
    """Return the names of the labels and the lines that can be read; raises UserError where the header cannot."""
    try:
        with open_text(path) as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            names = _label_names(path, header)
            lines = list(_parse(reader, header, names, faults))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(Fault("--labels", str(path), f"{error}; give it {_FORM}")) from None
    if not lines and not faults.all():
        faults.add("--labels", str(path), f"holds no line but its header; give it {_FORM}")
    return names, lines


def _label_names(path: Path, header: Sequence[str]) -> list[str]:
    """Return the columns of values; raises UserError for a header that does not say where they belong."""
    names = [name for name in header if name not in ("source", "recording", *_SPAN)]
    found = [f"no column {name}" for name in ("source", "recording") if name not in header]
    found += [f"two columns {name}" for name in sorted(set(header)) if header.count(name) > 1]
    found += [] if names else ["no column of values"]
    if found:
        remedy = f"its first line is {','.join(header)[:200]!r}: give it {_FORM}"
        raise UserError(*(Fault(str(path), what, remedy) for what in found))
    return names


def _check_names(names: Sequence[str], store: Store, taken: Collection[str], faults: _Faults) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            faults.add("--labels", name, "the name of a label is of letters, digits and _ . + -: rename the column")
        elif store.has_column(name):
            faults.add("--labels", name, "the store's table has a column of this name: rename yours")
        elif name in taken:
            faults.add("--labels", name, "the store has a label of this name: rename yours, or add --replace")


def _parse(reader: Iterator[list[str]], header: Sequence[str], names: Sequence[str], faults: _Faults) -> Iterator[Line]:
    for row in filter(None, reader):
        number = reader.line_num  # type: ignore[attr-defined]  # csv's reader is no typed class
        if len(row) != len(header):
            faults.at(number, f"{len(row)} cells", f"the header has {len(header)} columns: give each line as many")
            continue
        cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
        start_s, end_s = (
            _number(cells.get(name) or default) for name, default in zip(_SPAN, ("0", "inf"), strict=True)
        )
        if not (cells["source"] and cells["recording"]):
            faults.at(number, "no name", "name source and recording as recordings.parquet of the store has them")
        elif not 0 <= start_s < end_s:  # also what is no number: comparisons with NaN are false
            span = f"{cells.get('start_s', '')} to {cells.get('end_s', '')}"
            faults.at(number, span, "start_s and end_s are seconds in the recording, 0 <= start_s < end_s")
        else:
            recording = (cells["source"], cells["recording"])
            yield Line(number, recording, start_s, end_s, {name: cells[name] for name in names})


def _number(text: str) -> float:
    """Return `text` as a number, NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _durations(store: Store) -> dict[Recording, float]:
    """Return the duration in s of every recording that the preparation met, those it kept nothing of included."""
    table = pq.read_table(store.path / RECORDINGS, columns=["source", "recording", "seconds"])
    summed = table.group_by(["source", "recording"]).aggregate([("seconds", "sum")]).to_pydict()
    return dict(zip(zip(summed["source"], summed["recording"], strict=True), summed["seconds_sum"], strict=True))


def _segments(store: Store) -> tuple[dict[Recording, int], Segments]:
    """Return a number for each recording that has segments, and where they lie in it."""
    (source_R, sources), (recording_R, recordings) = store.codes("source"), store.codes("recording")
    id_R = source_R.astype(np.int64) * len(recordings) + recording_R
    id_of = {
        (sources[number // len(recordings)], recordings[number % len(recordings)]): number
        for number in np.unique(id_R).tolist()
    }
    return id_of, Segments.of(id_R, store.column("start_s"), store.segment_s)


def _known(
    lines: Sequence[Line], duration_s: Mapping[Recording, float], faults: _Faults, allow_unknown: bool
) -> list[Line]:
    """Return the lines whose recordings the store's preparation has met; the others are faults unless allowed."""
    known = [line for line in lines if line.recording in duration_s]
    if lines and not known:
        example = ",".join(min(duration_s))
        remedy = f"the file names none of the store's recordings; one of them is source,recording = {example}"
        faults.add("--labels", ",".join(lines[0].recording), remedy)
    elif not allow_unknown:
        remedy = f"no recording of the store: correct it, or leave such lines out with --allow {UNKNOWN_RECORDINGS}"
        for line in lines:
            if line.recording not in duration_s:
                faults.at(line.number, ",".join(line.recording), remedy)
    for line in known:
        if line.start_s >= duration_s[line.recording] > 0:
            span = f"start_s {line.start_s:g} of {duration_s[line.recording]:g} s"
            faults.at(line.number, span, "begins after the end of its recording: start_s and end_s are in seconds")
    return known


def _values(
    name: str, filled: Sequence[Line], stated: Sequence[str] | None, faults: _Faults, allow_unseen: bool
) -> tuple[list[float], tuple[str, ...]]:
    """Return the value of each line (a class as its code) and the names of the classes, () for numbers."""
    cells = [line.cells[name] for line in filled]
    numbers = [_number(cell) for cell in cells]
    if stated is None and not any(math.isnan(number) for number in numbers):
        _check_numbers(name, filled, numbers, faults)
        return numbers, ()
    if stated is None:
        _check_alike(name, filled, numbers, faults)
        stated = sorted(set(cells))
    code_of = {text: code for code, text in enumerate(stated)}
    for line in filled:
        if line.cells[name] not in code_of:
            faults.at(line.number, line.cells[name], f"{name} is one of {', '.join(stated)}, by --classes")
    for unseen in [] if allow_unseen else sorted(code_of.keys() - set(cells)):
        faults.add("--classes", f"{name}={unseen}", f"no line has this class: {_LEAVE_OUT}")
    return [float(code_of.get(cell, -1)) for cell in cells], tuple(stated)


def _check_alike(name: str, filled: Sequence[Line], numbers: Sequence[float], faults: _Faults) -> None:
    """Refuse numbers among names, and where there are more of them, the names."""
    named = [math.isnan(number) for number in numbers]
    odd = 2 * sum(named) < len(named)
    remedy = f"{name} has names and numbers: leave what is unknown empty, or state --classes {name}=A,B,..."
    for line, is_name in zip(filled, named, strict=True):
        if is_name == odd:
            faults.at(line.number, line.cells[name], remedy)


def _check_numbers(name: str, filled: Sequence[Line], numbers: Sequence[float], faults: _Faults) -> None:
    for line, number in zip(filled, numbers, strict=True):
        if not abs(number) <= np.finfo(np.float32).max:
            faults.at(line.number, line.cells[name], f"{name}: a number that float32 holds, or nothing")
        elif abs(number) > _LARGEST and number == round(number):
            remedy = f"{name}: float32 cannot tell such numbers apart; are they codes? --classes {name}=A,B,... says so"
            faults.at(line.number, line.cells[name], remedy)


def _check_overlaps(name: str, filled: Sequence[Line], faults: _Faults) -> None:
    """Refuse two lines that hold for the same time of one recording, whatever their values."""
    last: Line | None = None  # of those before, the one that ends last
    for line in sorted(filled, key=lambda line: (line.recording, line.start_s, line.end_s)):
        if last is not None and last.recording == line.recording and line.start_s < last.end_s:
            pair = sorted((last, line), key=lambda line: line.number)
            where, (one, other) = " and ".join(str(each.number) for each in pair), (each.cells[name] for each in pair)
            if one == other:
                faults.at(where, one, f"{name}: their spans overlap: let one end where the next begins")
            else:
                remedy = f"{name}: two values for one segment, as their spans overlap: keep one, or mend the spans"
                faults.at(where, f"{one} and {other}", remedy)
        if last is None or last.recording != line.recording or line.end_s > last.end_s:
            last = line


def _spans(filled: Sequence[Line], values: Sequence[float], id_of: Mapping[Recording, int]) -> Spans:
    here = [(id_of[line.recording], line, value) for line, value in zip(filled, values) if line.recording in id_of]
    return Spans(
        id_N=np.array([number for number, _, _ in here], np.int64),
        start_s_N=np.array([line.start_s for _, line, _ in here], np.float64),
        end_s_N=np.array([line.end_s for _, line, _ in here], np.float64),
        value_N=np.array([value for _, _, value in here], np.float32),
    )


def _check_seen(labels: Sequence[Label], store: Store, faults: _Faults, allow_unseen: bool) -> None:
    """Refuse labels that no segment in use has, and classes, unless they are allowed."""
    split_R = split_codes(store)
    for label in labels:
        counts = count_values(label, split_R)
        if not any(map(sum, counts.values())):
            faults.add(label.name, "no value", "no segment in use gets one: leave the column out, or look at its spans")
        elif not allow_unseen:
            for unseen in [value for value, by_split in counts.items() if not sum(by_split)]:
                faults.add(label.name, unseen, f"no segment in use is of this class: {_LEAVE_OUT}")
