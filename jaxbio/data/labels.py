"""Labels of a store: one value a segment, in files beside the shards, which stay as they are.

`labels/<name>.parquet` has a row for each row of the store's table: float32, NaN where nobody knows; of classes the
code, with their names in the file's metadata. A column of numbers of the table itself serves as a label too.

    age, rhythm = open_labels(store, ("age", "rhythm"))
    age.value_R, rhythm.classes
"""

import contextlib
import difflib
import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.refusals import advise
from jaxbio.data.regular_files import check_regular
from jaxbio.data.splits import SPLITS
from jaxbio.data.store import Store
from jaxbio.data.whole_files import whole_file

FOLDER = "labels"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")  # what may be a file and stand in a recipe
_METADATA = b"jaxbio.label"
_COUNTED = 8  # a label of at most as many numbers is counted number by number: 0 and 1 are classes in all but name


@dataclass(frozen=True)
class Label:
    """One label of every segment: `value_R` float32, NaN where unknown; of `classes`, where there are, the code."""

    name: str
    value_R: np.ndarray
    classes: tuple[str, ...] = ()

    @cached_property
    def hash(self) -> str:
        """Hash of the values and of what they are called."""
        values = np.ascontiguousarray(self.value_R, "<f4").tobytes()
        return hashlib.sha256(json.dumps(self.classes).encode() + values).hexdigest()[:32]


def name_label(text: str) -> str:
    """Return `text` as the name of a label: with an underscore for each character that no such name may have."""
    return re.sub(r"^[^A-Za-z0-9_]|[^A-Za-z0-9_.+-]", "_", text)[:100]


def list_labels(store: Store) -> list[str]:
    """Return the names of the labels that were added to `store`, sorted."""
    return sorted(path.stem for path in (store.path / FOLDER).glob("[!.]*.parquet"))


def open_label(store: Store, name: str) -> Label:
    """Return label `name` of `store`: one that was added, else the table's column of numbers of that name.

    Raises UserError where there is neither, and for a file that is another store's or was changed since.
    """
    path = store.path / FOLDER / f"{name}.parquet"
    if NAME.fullmatch(name) and path.exists():
        return _read(path, store)
    if store.has_column(name) and store.column(name).dtype.kind in "fiub":
        return Label(name, store.column(name).astype(np.float32))
    known = list_labels(store)
    has = f"it has {', '.join(known)}" if known else "none was added to it"
    near = "".join(f"; did you mean {match}?" for match in difflib.get_close_matches(name, known, 1))
    remedy = f"the store {store.path} has no such label: {has}, and columns of numbers of its table serve too{near}"
    command = f"python tools/add_labels.py --store {shlex.quote(str(store.path))} --labels FILE.csv"
    raise UserError(Fault("data.labels", name, f"{remedy}; add it with\n    {command}"))


def open_labels(store: Store, names: Sequence[str]) -> list[Label]:
    """Return the labels of these names; raises UserError with the faults of all of them."""
    labels: list[Label] = []
    faults: list[Fault] = []
    for name in names:
        try:
            labels.append(open_label(store, name))
        except UserError as error:
            faults += error.faults
    if faults:
        raise UserError(*faults)
    return labels


def write_labels(store: Store, labels: Sequence[Label]) -> None:
    """Write the labels beside the store's shards; those of the same names are replaced.

    No label appears before all are written. Raises UserError where the store's folder takes no file.
    """
    folder = store.path / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        with contextlib.ExitStack() as stack:
            for label in labels:
                known = {"store": store.hash, "classes": label.classes, "hash": label.hash}
                table = pa.table({"value": pa.array(label.value_R, pa.float32())})
                table = table.replace_schema_metadata({_METADATA: json.dumps(known).encode()})
                unfinished = stack.enter_context(whole_file(folder / f"{label.name}.parquet"))
                pq.write_table(table, unfinished, compression="zstd")
    except OSError as error:
        remedy = f"the store's folder has to be writable: {advise(error)}"
        raise UserError(Fault(str(folder), str(error), remedy)) from None


def count_values(label: Label, split_R: np.ndarray) -> dict[str, list[int]]:
    """Return how many segments of each of SPLITS have each value; `split_R` is as `split_codes` gives it.

    Numbers of more than a few values are counted together, as "numbers".
    """
    known_R = np.isfinite(label.value_R) & (split_R >= 0)
    value_N, split_N = label.value_R[known_R], split_R[known_R]
    names = label.classes
    if not names:
        numbers, value_N = np.unique(value_N, return_inverse=True)
        names = tuple(np.format_float_positional(number, trim="-") for number in numbers)
        if len(numbers) > _COUNTED:
            names, value_N = ("numbers",), np.zeros_like(value_N)
    count = np.zeros((len(names), len(SPLITS)), np.int64)
    np.add.at(count, (value_N.astype(np.int64), split_N), 1)
    return dict(zip(names, count.tolist(), strict=True))


def count_unknown(label: Label, split_R: np.ndarray) -> list[int]:
    """Return how many segments of each of SPLITS have no value."""
    return [int((np.isnan(label.value_R) & (split_R == code)).sum()) for code in range(len(SPLITS))]


def _read(path: Path, store: Store) -> Label:
    remedy = "add it anew: python tools/add_labels.py with --replace"
    try:
        check_regular(path)
        table = pq.read_table(path)
        known = json.loads((table.schema.metadata or {})[_METADATA])
        label = Label(path.stem, table["value"].to_numpy().astype(np.float32), tuple(known["classes"]))
        intact = label.hash == known["hash"]
    except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's own are of these
        raise UserError(Fault(str(path), f"{type(error).__name__}: {error}", f"no readable label; {remedy}")) from None
    if not intact:
        raise UserError(Fault(str(path), "changed since it was written", remedy))
    if known["store"] != store.hash or label.value_R.size != store.rows:
        what = f"{label.value_R.size} values for store {known['store'][:12]}"
        here = f"this is {store.hash[:12]} with {store.rows} segments"
        raise UserError(Fault(str(path), what, f"{here}; {remedy}"))
    return label
