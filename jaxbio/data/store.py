"""The segment store: opening it, its table by column, its segments by batch, its integrity.

It knows the files of a store, not how they are made nor what is learnt from them.

    store = open_store("store")
    segment_NCT = store.read(np.array([5, 17], np.uint32))
    score_R = store.column("quality_waveform")
"""

import json
import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from array_record.python.array_record_module import ArrayRecordReader
from ml_collections import ConfigDict

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.local_paths import check_local, is_address, without_file
from jaxbio.data.regular_files import NOT_REGULAR, is_regular, read_text
from jaxbio.data.shard_readers import ReaderPool
from jaxbio.data.store_files import ADDITION, MANIFEST, SCHEMA, TABLE, sha256_of
from jaxbio.data.stored_elsewhere import fetch_store


class StoreView(Protocol):
    """What is read of a store, of one or of several as one (`several.Stores`); `Store` says what each is."""

    @property
    def rows(self) -> int: ...
    @property
    def scale_NC2(self) -> np.ndarray: ...
    def has_column(self, name: str) -> bool: ...
    def column(self, name: str) -> np.ndarray: ...
    def codes(self, name: str) -> tuple[np.ndarray, list[str]]: ...
    def read(self, rows: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray: ...


class StoreError(RuntimeError):
    """A store whose bytes are not those that were written; the message names the shard and the first row at fault."""


def open_store(path: str | Path) -> "Store":
    """Return the store in folder `path`, once its manifest and the size of every file agree.

    A store in object storage is copied to this host, and `path` of the store is the copy's.

    Raises UserError for a folder without manifest (nothing there, or a preparation that has not finished), for a
    manifest of another schema, and for every missing file and every file of another size.
    """
    check_local("data.store", path, opened=True)
    if is_address(path):
        path = fetch_store(str(path))
    path = Path(without_file(os.fspath(path)))
    manifest = _read_manifest(path)
    faults = [fault for entry in _files(manifest) for fault in _size_faults(path, entry)]
    if faults:
        raise UserError(*faults)
    return Store(path, manifest)


@dataclass(frozen=True, repr=False)
class Store:
    """A finished segment store: `path` and `manifest`; row k of the table is record k, counted through the shards."""

    path: Path
    manifest: dict[str, Any]
    _columns: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _readers: ReaderPool = field(default_factory=ReaderPool, repr=False, compare=False)

    @property
    def hash(self) -> str:
        """Hash of everything in the store: settings, shards, table."""
        return self.manifest["hash"]

    @property
    def rate_hz(self) -> float:
        """Sampling rate of the segments, Hz."""
        return self.manifest["rate_hz"]

    @property
    def length(self) -> int:
        """Samples in a segment."""
        return self.manifest["length"]

    @property
    def segment_s(self) -> float:
        """Duration of a segment, s."""
        return self.length / self.rate_hz

    @property
    def channels(self) -> tuple[str, ...]:
        """Roles of the recorded channels, in the order of a record."""
        return tuple(self.manifest["channels"])

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the feature channels that lie behind the recorded ones in a record."""
        return tuple(self.manifest.get("features", ()))

    @property
    def record_CT(self) -> tuple[int, int]:
        """Shape of a record: recorded and feature channels, samples."""
        return len(self.channels) + len(self.features), self.length

    @property
    def rows(self) -> int:
        """Number of segments."""
        return int(self.first_rows[-1])

    @cached_property
    def shards(self) -> tuple[dict[str, Any], ...]:
        """The manifest's shards, in order: name, records, bytes, sha256."""
        return tuple(self.manifest["shards"])

    @cached_property
    def first_rows(self) -> np.ndarray:
        """First row of each shard and, last, the number of rows: (shards + 1,) int64."""
        return np.cumsum([0, *(entry["records"] for entry in self.shards)])

    @cached_property
    def _column_names(self) -> frozenset[str]:
        return frozenset(pq.read_schema(self.path / TABLE).names)

    @cached_property
    def table(self) -> pa.Table:
        """The whole table; `column` reads less where one column is wanted."""
        return pq.read_table(self.path / TABLE)

    def column(self, name: str) -> np.ndarray:
        """Return column `name` as an array (rows,): numbers in their own type, texts as objects.

        Raises KeyError for a column that the table has not.
        """
        column = self._column(name)
        return column.to_numpy(zero_copy_only=False)

    def has_column(self, name: str) -> bool:
        """Whether the table has column `name`."""
        return name in self._column_names

    def take(self, row: int) -> dict[str, Any]:
        """Return row `row` of the table: column -> value."""
        group = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        populated = [number for number, shard in enumerate(self.shards) if shard["records"]]
        table = pq.ParquetFile(self.path / TABLE).read_row_group(populated.index(group))
        return table.slice(row - int(self.first_rows[group]), 1).to_pylist()[0]

    def codes(self, name: str) -> tuple[np.ndarray, list[str]]:
        """Return a column of texts as (rows,) int32 codes and the list of texts they stand for."""
        column = self._column(name)
        return column.indices.to_numpy(), column.dictionary.to_pylist()

    @cached_property
    def scale_NC2(self) -> np.ndarray:
        """Offset and gain of every segment and channel, features too, float32: physical = offset + gain * q."""
        names = (*self.channels, *self.features)
        columns = [self.column(f"{name}_{part}") for name in names for part in ("offset", "gain")]
        return np.stack(columns, axis=-1).reshape(self.rows, len(names), 2)

    @cached_property
    def present_NC(self) -> np.ndarray:
        """Whether every segment has its channels, bool; a channel that is masked (zeros) is not present.

        All are in a store without these columns: it was prepared when a segment that lacked a channel was rejected.
        """
        columns = [
            self.column(f"{role}_present") if self.has_column(f"{role}_present") else np.ones(self.rows, bool)
            for role in self.channels
        ]
        return np.stack(columns, axis=-1)

    def read(self, rows: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return segments (n, C, T) int16 of `rows` (n,), in that order; safe to call from several threads.

        C counts feature channels too. They are written into `out` (n, C, T) where it is given: a loader uses its memory
        again, because fresh pages cost as much as the reading.

        Raises IndexError for a row outside the store and StoreError, with shard and rows, where its bytes are not
        those that were written.
        """
        row_N = np.asarray(rows, np.int64)
        if row_N.size and (row_N.min() < 0 or row_N.max() >= self.rows):
            raise IndexError(f"rows {row_N.min()}..{row_N.max()} of {self.path}, which has {self.rows}")
        shape = (row_N.size, *self.record_CT)
        segment_NCT = np.empty(shape, "<i2") if out is None else out
        shard_N = np.searchsorted(self.first_rows, row_N, side="right") - 1
        order_N = np.argsort(shard_N, kind="stable")
        cuts = np.flatnonzero(np.diff(shard_N[order_N])) + 1
        for place in np.split(order_N, cuts) if row_N.size else ():
            shard = int(shard_N[place[0]])
            found = self._read_shard(shard, (row_N[place] - self.first_rows[shard]).tolist())
            for position, record in zip(place.tolist(), found, strict=True):
                segment_NCT[position] = np.frombuffer(record, "<i2").reshape(shape[1:])
        return segment_NCT

    def __repr__(self) -> str:
        segments = f"{self.rows:,} segments of {self.segment_s:g} s at {self.rate_hz:g} Hz"
        return f"Store({str(self.path)!r}: {segments}, {', '.join(self.channels)})"

    def check(self, config: ConfigDict) -> None:
        """Refuse a store that was prepared for another model: rate, length and channels must be the recipe's.

        Segments that lack a channel are refused unless the recipe masks: their zeros would pass for a signal. Raises
        UserError with a fault for each that differs.
        """
        wanted = {
            "data.rate_hz": (config.data.rate_hz, self.rate_hz),
            "data.segment_s": (config.data.segment_s, self.segment_s),
            "data.channels": (tuple(config.data.channels), self.channels),
            "data.features": (tuple(config.data.features), self.features),
        }
        remedy = "the store {path} was prepared with {found}; name another store, or prepare one with this recipe"
        faults = [
            Fault(name, value, remedy.format(path=self.path, found=found))
            for name, (value, found) in wanted.items()
            if value != found
        ]
        policy = config.prepare.missing_channel
        if policy != "mask" and (lacking := int((~self.present_NC).any(axis=1).sum())):
            remedy = f"{lacking} segments of {self.path} lack a channel: mask tells the model which"
            faults.append(Fault("prepare.missing_channel", policy, remedy))
        if faults:
            raise UserError(*faults)

    def verify(self) -> None:
        """Read every byte and compare it with the manifest's SHA-256.

        Raises UserError with a fault for each file that differs.
        """
        remedy = "its bytes are not those that were written: copy it again, or prepare the store anew"
        faults = [
            Fault(str(self.path / entry["name"]), "SHA-256 differs", remedy)
            for entry in _files(self.manifest)
            if sha256_of(self.path / entry["name"]) != entry["sha256"]
        ]
        if faults:
            raise UserError(*faults)

    def _column(self, name: str) -> Any:
        if name not in self._columns:
            if not self.has_column(name):
                raise KeyError(f"{self.path / TABLE} has no column {name}")
            column = pq.read_table(self.path / TABLE, columns=[name]).column(0)
            self._columns[name] = column.unify_dictionaries().combine_chunks()
        return self._columns[name]

    def _read_shard(self, shard: int, places: list[int]) -> list[bytes]:
        try:
            with self._reader(shard) as reader:
                records = reader.read(places)
        except RuntimeError as error:
            raise self._damage(shard, self._first_unreadable(shard, places), str(error)) from error
        size = 2 * math.prod(self.record_CT)
        for place, record in zip(places, records, strict=True):
            if len(record) != size:  # array_record gives none of a record that was cut off after it opened the shard
                raise self._damage(shard, place, f"{len(record)} bytes instead of {size}")
        return records

    def _first_unreadable(self, shard: int, places: list[int]) -> int:
        """Return the first of `places` in a shard that cannot be read alone."""
        for place in places:
            try:
                with self._reader(shard) as reader:
                    reader.read([place])
            except RuntimeError:
                return place
        return places[0]

    def _damage(self, shard: int, place: int, reason: str) -> StoreError:
        where = f"row {self.first_rows[shard] + place}, number {place} of its records"
        remedy = f"tools/inspect_store.py {self.path} names every damaged shard: copy them again"
        return StoreError(f"{self.path / self.shards[shard]['name']}, {where}: {reason}; {remedy}")

    def _reader(self, shard: int) -> AbstractContextManager[ArrayRecordReader]:
        return self._readers.reader(str(self.path / self.shards[shard]["name"]))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "manifest": self.manifest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # readers do not travel between processes


def subject_codes(store: StoreView) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Return whose each row is, (rows,) int32 codes, and the (source, subject) that each stands for.

    Sources may call different subjects by one name.
    """
    (source_R, sources), (subject_R, subjects) = store.codes("source"), store.codes("subject")
    pair_R = source_R.astype(np.int64) * len(subjects) + subject_R
    present = np.zeros(len(sources) * len(subjects), bool)  # far fewer than rows to sort
    present[pair_R] = True
    names = [(sources[pair // len(subjects)], subjects[pair % len(subjects)]) for pair in np.flatnonzero(present)]
    return (np.cumsum(present, dtype=np.int32) - 1)[pair_R], names


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    try:
        manifest = json.loads(read_text(file))
    except (FileNotFoundError, NotADirectoryError):
        remedy = "no segment store, or its preparation has not finished: run tools/prepare_store.py (again)"
        raise UserError(Fault("data.store", str(path), remedy)) from None
    except (OSError, ValueError) as error:
        raise UserError(Fault(str(file), str(error), "not a readable manifest: prepare the store anew")) from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        remedy = f"this version of jaxbio reads schema {SCHEMA}: prepare the store with it"
        raise UserError(Fault(str(file), f"schema {schema}", remedy))
    return manifest


def _files(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [*manifest["shards"], *manifest["tables"]]


def _size_faults(path: Path, entry: dict[str, Any]) -> list[Fault]:
    file = path / entry["name"]
    if not is_regular(file):
        return [Fault(str(file), NOT_REGULAR, "copy it again, or prepare the store anew")]
    if not file.is_file():
        return [Fault(str(file), "missing", "the manifest names it: copy it again, or prepare the store anew")]
    size = file.stat().st_size
    if size != entry["bytes"]:
        remedy = f"the manifest says {entry['bytes']}: copy it again, or prepare the store anew"
        if (path / ADDITION / MANIFEST).exists():
            remedy = "prepare_store.py --add was ended while it took effect: start the same line again"
        return [Fault(str(file), f"{size} bytes", remedy)]
    return []
