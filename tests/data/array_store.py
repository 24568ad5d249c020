"""A segment store straight from arrays, for tests of what reads stores: shards, the table's scales, a manifest."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from array_record.python.array_record_module import ArrayRecordWriter

from jaxbio.data.pairs import Index
from jaxbio.data.store import Store, open_store
from jaxbio.data.store_files import MANIFEST, SCHEMA, TABLE, sha256_of


def random_segments(rows: int, channels: int = 2, length: int = 50, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-(2**15), 2**15, (rows, channels, length), dtype=np.int16)


def write_store(folder: Path, segment_RCT: np.ndarray, shards: int = 3, rate_hz: float = 10.0) -> Store:
    """Write `segment_RCT` as a store of one or two channels, offset = row and gain = 1 + channel, and open it."""
    folder.mkdir(parents=True)
    rows, channels, length = segment_RCT.shape
    roles, entries = ["ppg", "ecg"][:channels], []
    for shard, place in enumerate(np.array_split(np.arange(rows), shards)):
        path = folder / f"segments-{shard:05d}-of-{shards:05d}.array_record"
        writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        for row in place:
            writer.write(segment_RCT[row].astype("<i2").tobytes())
        writer.close()
        entries.append({**_entry(path), "records": len(place)})
    columns = {}
    for channel, role in enumerate(roles):
        columns[f"{role}_offset"] = np.arange(rows, dtype=np.float32)
        columns[f"{role}_gain"] = np.full(rows, 1 + channel, np.float32)
    pq.write_table(pa.table(columns), folder / TABLE)
    content = {
        "schema": SCHEMA,
        "rate_hz": rate_hz,
        "length": length,
        "channels": roles,
        "shards": entries,
        "tables": [_entry(folder / TABLE)],
    }
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
    (folder / MANIFEST).write_text(json.dumps({**content, "hash": digest}))
    return open_store(folder)


def neighbours(rows: int, reach: int = 3) -> Index:
    """Return an index of the pairs (row, row + 1 .. row + reach), in shard order, of rising difficulty by gap."""
    first_N, gap_N = (part.reshape(-1) for part in np.mgrid[0 : rows - reach, 1 : reach + 1])
    rows_NM = np.stack([first_N, first_N + gap_N], axis=1).astype(np.uint32)
    return Index(rows_NM, (gap_N / reach).astype(np.float32), "neighbours")


def _entry(path: Path) -> dict:
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
