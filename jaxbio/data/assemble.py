"""From finished shards to a store: duplicates, splits, the table, the account, the manifest.

It reads tables only, one part at a time, so that a store of any size is assembled in little memory.

    store = assemble_store(folder, plan, parts, config)
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ml_collections import ConfigDict

from jaxbio import __version__
from jaxbio.data.account import account_of, read_outcomes, write_recordings
from jaxbio.data.copies import join_subjects
from jaxbio.data.pairs import CLASSES, class_edges, class_of
from jaxbio.data.shard_plan import Plan
from jaxbio.data.shards import Part, part_path
from jaxbio.data.splits import SPLITS, UNUSED, assign_splits
from jaxbio.data.store import Store, subject_codes
from jaxbio.data.store_files import RECORDINGS, SCHEMA, TABLE, sha256_of
from jaxbio.data.whole_files import to_disk, whole_file

# Columns that decide duplicates and splits: all that is held for the whole store at once.
_DECISIVE = ("source", "subject", "recording", "start_s", "fingerprint")


def assemble_store(
    folder: Path,
    plan: Plan,
    parts: Sequence[Part],
    config: ConfigDict,
    extra: dict[str, Any] | None = None,
    base: Store | None = None,
    place: Path | None = None,
) -> Store:
    """Write the table and the account of finished shards and return the store, its manifest still to be written.

    Rows with the same samples and scale as an earlier one (by source, recording, start) get split "none", and subjects
    with such rows go into one split. `extra` goes into the manifest. Rows and shards of `base` come first and stay as
    they are; then the files are written to `place`.
    """
    place = place or folder
    kept = [part for part in parts if part.records]
    rows, known = _read_decisive(folder, kept, base), _known_splits(base) if base else None
    duplicate_of_R = find_duplicates(rows, base.rows if base else 0)
    split_R, moves = _split_rows(rows, duplicate_of_R < 0, config, known)
    _write_table(place / TABLE, folder, kept, duplicate_of_R, split_R, base)
    outcomes = [*plan.outcomes, *(outcome for part in parts for outcome in part.outcomes)]
    outcomes += read_outcomes(base.path / RECORDINGS) if base else []
    _write_whole(place / RECORDINGS, lambda path: write_recordings(path, outcomes))
    manifest = _manifest(place, plan, parts, account_of(outcomes), moves, base)
    store = Store(place, manifest)
    manifest["counts"] = _counts(store, config)
    manifest.update(extra or {})
    return store


def find_duplicates(rows: pa.Table, first_new: int = 0) -> np.ndarray:
    """Return, for each row, the row whose signal it repeats, the first by (source, recording, start); else -1.

    Rows before `first_new` come before all others.
    """
    fingerprint_R = rows["fingerprint"].to_numpy()
    keys = [rows[name].combine_chunks().dictionary_encode() for name in ("recording", "source")]
    ranks = [_ranks(key) for key in keys]
    new_R = np.arange(fingerprint_R.size) >= first_new
    order_R = np.lexsort((rows["start_s"].to_numpy(), *ranks, new_R, fingerprint_R))
    ordered_R = fingerprint_R[order_R]
    begins_R = np.append(True, ordered_R[1:] != ordered_R[:-1])
    first_R = order_R[np.flatnonzero(begins_R)][np.cumsum(begins_R) - 1]
    duplicate_of_R = np.empty(order_R.size, np.int64)
    duplicate_of_R[order_R] = np.where(begins_R, -1, first_R)
    return duplicate_of_R


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path` in one move, on the disk when this returns."""

    def write(unfinished: Path) -> None:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1) + "\n")
            to_disk(file)

    _write_whole(path, write)


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    with whole_file(path) as unfinished:
        write(unfinished)


def _read_decisive(folder: Path, parts: Iterable[Part], base: Store | None) -> pa.Table:
    paths = [*([base.path / TABLE] if base else []), *(part_path(folder, part.name) for part in parts)]
    tables = [pq.read_table(path, columns=list(_DECISIVE)) for path in paths]
    return pa.concat_tables([table.replace_schema_metadata() for table in tables]).unify_dictionaries()


def _known_splits(base: Store) -> dict[tuple[str, str], str]:
    """Return the splits of the subjects of whom `base` uses a segment."""
    code_R, names = subject_codes(base)
    split_R, splits = base.codes("split")
    used = np.flatnonzero(split_R != (splits.index(UNUSED) if UNUSED in splits else -1))
    codes, at = np.unique(code_R[used], return_index=True)
    return {names[code]: splits[split_R[used[row]]] for code, row in zip(codes.tolist(), at.tolist(), strict=True)}


def _ranks(texts: pa.DictionaryArray) -> np.ndarray:
    """Return numbers that sort as the texts do."""
    rank_of_code = np.argsort(np.argsort(np.array(texts.dictionary.to_pylist(), object)))
    return rank_of_code[texts.indices.to_numpy()]


def _split_rows(
    rows: pa.Table, used_R: np.ndarray, config: ConfigDict, known: dict[tuple[str, str], str] | None
) -> tuple[pa.DictionaryArray, list[dict[str, str]]]:
    source, subject = (rows[name].combine_chunks() for name in ("source", "subject"))
    sources, subjects = source.dictionary.to_pylist(), subject.dictionary.to_pylist()
    pair_R = source.indices.to_numpy().astype(np.int64) * len(subjects) + subject.indices.to_numpy()
    pairs, code_R = np.unique(pair_R, return_inverse=True)
    names = [(sources[pair // len(subjects)], subjects[pair % len(subjects)]) for pair in pairs.tolist()]
    in_use = np.bincount(code_R[used_R], minlength=len(names)) > 0
    used = [name for name, wanted in zip(names, in_use, strict=True) if wanted]
    joined = _joined_subjects(names, join_subjects(code_R, rows["fingerprint"].to_numpy()))
    assigned, moves = assign_splits(used, config.prepare.split, known, joined)
    kinds = (*SPLITS, UNUSED)
    split_of_pair = np.array([kinds.index(assigned.get(name, UNUSED)) for name in names], np.int32)
    split_R = np.where(used_R, split_of_pair[code_R], np.int32(kinds.index(UNUSED)))
    return pa.DictionaryArray.from_arrays(pa.array(split_R, pa.int32()), pa.array(kinds)), moves


def _joined_subjects(names: Sequence[tuple[str, str]], group_S: np.ndarray) -> list[list[tuple[str, str]]]:
    """Return the groups of more than one subject, and say how many there are."""
    groups: dict[int, list[tuple[str, str]]] = {}
    for group, name in zip(group_S.tolist(), names, strict=True):
        groups.setdefault(group, []).append(name)
    joined = [group for group in groups.values() if len(group) > 1]
    if joined:
        largest = max(joined, key=len)
        remark = "%d subjects hold copies of others' segments: those who do lie in one split, "
        remark += "at most %d together (%s of %s among them)"
        logging.warning(remark, sum(map(len, joined)), len(largest), *reversed(min(largest)))
    return joined


def _write_table(
    path: Path,
    folder: Path,
    parts: Sequence[Part],
    duplicate_of_R: np.ndarray,
    split_R: pa.DictionaryArray,
    base: Store | None,
) -> None:
    """Join the parts with the two columns that need them all, behind the rows of `base`: a row group a shard."""

    def write(unfinished: Path) -> None:
        first, writer = base.rows if base else 0, None
        for table in _row_groups(base) if base else ():
            writer = writer or pq.ParquetWriter(unfinished, table.schema, compression="zstd")
            writer.write_table(table)
        for part in parts:
            table = pq.read_table(part_path(folder, part.name)).replace_schema_metadata()
            mine = slice(first, first + part.records)
            duplicate_of = pa.array(duplicate_of_R[mine], pa.int64(), mask=duplicate_of_R[mine] < 0)
            table = table.append_column("duplicate_of", duplicate_of).append_column("split", split_R[mine])
            writer = writer or pq.ParquetWriter(unfinished, table.schema, compression="zstd")
            writer.write_table(table)
            first += part.records
        if writer is not None:
            writer.close()

    _write_whole(path, write)


def _row_groups(base: Store) -> Iterator[pa.Table]:
    with pq.ParquetFile(base.path / TABLE) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group).replace_schema_metadata()


def _manifest(
    place: Path,
    plan: Plan,
    parts: Sequence[Part],
    account: dict[str, Any],
    moves: Sequence[dict[str, str]],
    base: Store | None,
) -> dict[str, Any]:
    settings, before = plan.settings, base.manifest if base else {}
    shards = [{"name": p.name, "records": p.records, "bytes": p.bytes, "sha256": p.sha256} for p in parts]
    tables = [
        {"name": name, "bytes": (place / name).stat().st_size, "sha256": sha256_of(place / name)}
        for name in (TABLE, RECORDINGS)
    ]
    content = {
        "schema": SCHEMA,
        "rate_hz": settings.rate_hz,
        "length": settings.length,
        "channels": list(settings.channels),
        **({"features": list(settings.features)} if settings.features else {}),
        "units": _unite(before["units"], plan.units) if base else plan.units,
        "config": before["config"] if base else plan.config,
        "shards": [*before["shards"], *shards] if base else shards,
        "tables": tables[:1],  # what is learnt from; the account names files by their path
    }
    packages = ("numpy", "scipy", "pyarrow", "array_record", "soundfile")
    manifest = {
        **before,
        **content,
        "tables": tables,
        "hash": hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32],
        "plan": plan.hash,
        "versions": {"jaxbio": __version__, **{name: version(name) for name in packages}},
        "split_moves": before["split_moves"] if base else list(moves),
        "account": account,
    }
    if base:
        added = {"plan": plan.hash, "shards": len(parts), "segments": sum(part.records for part in parts)}
        manifest["additions"] = [*before.get("additions", []), added]
    return manifest


def _unite(before: dict[str, list[str]], units: dict[str, list[str]]) -> dict[str, list[str]]:
    return {role: sorted({*before[role], *units.get(role, ())}) for role in before}


def _counts(store: Store, config: ConfigDict) -> dict[str, Any]:
    """Return segments by split, and those in use by class under both variants."""
    code_R, names = store.codes("split")
    used_R = code_R != names.index(UNUSED)
    counts: dict[str, Any] = {"segments": store.rows, "duplicates": int((~used_R).sum())}
    counts["split"] = dict(zip(names, np.bincount(code_R, minlength=len(names)).tolist(), strict=True))
    for variant in ("waveform", "author"):
        quality_R = store.column(f"quality_{variant}")[used_R]
        class_R = class_of(quality_R, class_edges(quality_R, config))
        counts[f"class_{variant}"] = dict(zip(CLASSES, np.bincount(class_R, minlength=5).tolist(), strict=True))
    subjects = {pair for pair in zip(store.column("source")[used_R], store.column("subject")[used_R], strict=True)}
    counts["subjects"] = len(subjects)
    return counts
