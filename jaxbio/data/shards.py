"""Writing shard k: the unit of work of a preparation, from recordings to a finished file and its part of the table.

A shard depends on its blocks and the settings alone, so it has the same bytes whoever writes it, and whenever. It
knows nothing of other shards, of splits and of pairs.

    part = write_shard(folder, "segments-00000-of-00012.array_record", 0, blocks, settings)
"""

import json
from collections import defaultdict
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from array_record.python.array_record_module import ArrayRecordWriter

from jaxbio.data.freed_memory import keep_freed_memory
from jaxbio.data.quantise import fingerprint, quantise
from jaxbio.data.recordings import Recording, RecordingError
from jaxbio.data.recordings.missing import MASKED
from jaxbio.data.shard_plan import KEPT, Block, Outcome, Settings
from jaxbio.data.store_files import PARTS, sha256_of
from jaxbio.data.whole_files import whole_file
from jaxbio.signals.features import append_features
from jaxbio.signals.segments import REASONS, Measured, measure

WRITER_OPTIONS = "group_size:1,uncompressed"
# Enough windows to amortise a call of `measure`, few enough to stay in the cache and, at 30 s, within 40 MB.
WINDOWS_AT_ONCE = 128
_METADATA = b"jaxbio"

Seconds = MutableMapping[tuple[int, str, str], float]  # by block, outcome and detail


class WriteError(OSError):
    """A shard that could not be written, as on a full disk; finished shards are whole."""


class Part(NamedTuple):
    """What is known of a finished shard: its file, and the outcome of every second that was read for it."""

    name: str
    records: int
    bytes: int
    sha256: str
    outcomes: list[Outcome]


class Windows(NamedTuple):
    """Windows of equal shape: signals by role `x_BN` float32, NaN where missing, and each one's block and number."""

    raw: dict[str, np.ndarray]
    block_B: np.ndarray
    window_B: np.ndarray


def write_shard(folder: Path, name: str, shard: int, blocks: Sequence[Block], settings: Settings) -> Part:
    """Read, measure, quantise and write every window of `blocks`; return the finished part.

    The shard and its part of the table appear in `folder` under their names only when they are whole.

    Raises WriteError where they cannot be written. A span that cannot be read is an outcome with its reason.
    """
    keep_freed_memory()
    try:
        with whole_file(folder / name) as unfinished:
            part, table = _write_records(unfinished, name, shard, blocks, settings)
            _write_part(folder, part, table)
    except OSError as error:
        raise WriteError(f"{folder / name}: {error}") from error
    return part


def part_path(folder: Path, name: str) -> Path:
    """Return where the part of the table of shard `name` lies until the store is assembled."""
    return folder / PARTS / f"{name.removesuffix('.array_record')}.parquet"


def read_part(folder: Path, name: str) -> Part | None:
    """Return the part of a shard that an earlier preparation finished, or None where it has to be written."""
    path, shard = part_path(folder, name), folder / name
    if not path.is_file() or not shard.is_file():
        return None
    known = json.loads(pq.read_schema(path).metadata[_METADATA])
    if shard.stat().st_size != known["bytes"]:
        return None
    return Part(**{**known, "outcomes": [Outcome(*outcome) for outcome in known["outcomes"]]})


def _write_part(folder: Path, part: Part, table: pa.Table) -> None:
    known = json.dumps(part._asdict()).encode()
    with whole_file(part_path(folder, part.name)) as unfinished:
        pq.write_table(table.replace_schema_metadata({_METADATA: known}), unfinished, compression="zstd")


def _write_records(
    unfinished: Path, name: str, shard: int, blocks: Sequence[Block], settings: Settings
) -> tuple[Part, pa.Table]:
    seconds: Seconds = defaultdict(float)
    columns: list[dict[str, np.ndarray]] = []
    writer = _Writer(unfinished)
    for windows in read_windows(blocks, settings, seconds):
        measured = measure_windows(windows, settings)
        for block, reason in zip(windows.block_B.tolist(), measured.reason_B.tolist(), strict=True):
            seconds[block, REASONS[reason] if reason else KEPT, ""] += settings.segment_s
        kept_B = np.flatnonzero(measured.reason_B == 0)
        segment_BCT, scale_BC2 = quantise(
            append_features(measured.x_BCT[kept_B], settings.channels, settings.rate_hz, settings.features)
        )
        writer.write(segment_BCT)
        columns.append(
            {
                "block": windows.block_B[kept_B],
                "window": windows.window_B[kept_B],
                "fingerprint": fingerprint(*(part[:, : len(settings.channels)] for part in (segment_BCT, scale_BC2))),
                **_scale_columns(scale_BC2, (*settings.channels, *settings.features)),
                **{f"{role}_present": measured.present_BC[kept_B, c] for c, role in enumerate(settings.channels)},
                **{name: column[kept_B] for name, column in measured.columns.items()},
            }
        )
    writer.close()
    outcomes = [
        Outcome(blocks[block].recording.source, blocks[block].recording.recording, outcome, spent_s, detail)
        for (block, outcome, detail), spent_s in sorted(seconds.items())
    ]
    part = Part(name, writer.records, unfinished.stat().st_size, sha256_of(unfinished), outcomes)
    return part, _make_table(shard, blocks, columns, settings)


class _Writer:
    """Records into an ArrayRecord file; array_record's RuntimeErrors (a full disk) become OSErrors."""

    def __init__(self, path: Path):
        self._writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
        self.records = 0

    def write(self, segment_BCT: np.ndarray) -> None:
        """Write one record a segment, little-endian."""
        for segment_CT in segment_BCT.astype("<i2", copy=False):
            try:
                self._writer.write(segment_CT.tobytes())
            except RuntimeError as error:
                raise OSError(str(error)) from error
        self.records += len(segment_BCT)

    def close(self) -> None:
        try:
            self._writer.close()
        except RuntimeError as error:
            raise OSError(str(error)) from error


def read_windows(blocks: Sequence[Block], settings: Settings, seconds: Seconds) -> Iterator[Windows]:
    """Yield the blocks' windows in order, gathered over recordings of equal rates.

    What cannot be read is added to `seconds`, under its reason.
    """
    gathered: list[Windows] = []
    for number, block in enumerate(blocks):
        for first in range(block.first, block.first + block.windows, WINDOWS_AT_ONCE):
            last = min(first + WINDOWS_AT_ONCE, block.first + block.windows)
            for windows in _read_span(block.recording, number, first, last, settings, seconds):
                if gathered and (_shape(gathered[0]) != _shape(windows) or _count(gathered) >= WINDOWS_AT_ONCE):
                    yield _join(gathered)
                    gathered = []
                gathered.append(windows)
    if gathered:
        yield _join(gathered)


def measure_windows(windows: Windows, settings: Settings) -> Measured:
    """Return the windows as segments of the settings' rate, with every score and the reason to reject each."""
    return measure(
        windows.raw,
        rate_hz=settings.rate_hz,
        length=settings.length,
        channels=settings.channels,
        author_rate_bpm=settings.author_rate_bpm,
        max_missing_frac=settings.max_missing_frac,
        missing_channel=settings.missing_channel,
        cross_channel=settings.cross_channel,
    )


def _read_span(
    recording: Recording, number: int, first: int, last: int, settings: Settings, seconds: Seconds
) -> Iterator[Windows]:
    """Yield windows first..last of a recording; where they cannot be read together, halves down to single ones.

    A window of which a file lacks no more than a segment may lack is kept, NaN there.
    """
    span_s = settings.segment_s * first, min(settings.segment_s * last, recording.duration_s)
    try:
        signals = recording.read(*span_s, settings.channels)
    except RecordingError as error:
        if last - first > 1:
            middle = (first + last) // 2
            yield from _read_span(recording, number, first, middle, settings, seconds)
            yield from _read_span(recording, number, middle, last, settings, seconds)
            return
        rest = error.rest or {}
        lost = [np.isnan(x_N).mean() for role, x_N in rest.items() if recording.channels[role].name != MASKED]
        if not lost or max(lost) > settings.max_missing_frac:
            detail = "" if recording.hidden else str(error)
            seconds[number, error.reason, detail] += settings.segment_s
            return
        signals = rest
    raw = {
        role: _cut(signals[role], recording.channels[role].rate_hz, first, last, settings.segment_s)
        for role in settings.channels
    }
    window_B = np.arange(first, last, dtype=np.int32)
    yield Windows(raw, np.full(last - first, number, np.int32), window_B)


def _cut(x_N: np.ndarray, rate_hz: float, first: int, last: int, segment_s: float) -> np.ndarray:
    """Return windows first..last as x_BN from the samples of their span; what the span lacks at its end is NaN."""
    windows, samples = last - first, round(segment_s * rate_hz)
    if segment_s * rate_hz == samples and x_N.size == windows * samples:
        return x_N.reshape(windows, samples)
    # Rates that give no whole number of samples: every window starts at the sample nearest to its time.
    start_B = np.array([round(window * segment_s * rate_hz) for window in range(first, last)])
    place_BN = (start_B - start_B[0])[:, None] + np.arange(samples)
    padded_N = np.append(x_N, np.full(max(0, place_BN.max() + 1 - x_N.size), np.nan, np.float32))
    return padded_N[place_BN]


def _shape(windows: Windows) -> tuple[int, ...]:
    return tuple(x_BN.shape[1] for x_BN in windows.raw.values())


def _count(gathered: Sequence[Windows]) -> int:
    return sum(windows.block_B.size for windows in gathered)


def _join(gathered: Sequence[Windows]) -> Windows:
    if len(gathered) == 1:
        return gathered[0]
    raw = {role: np.concatenate([windows.raw[role] for windows in gathered]) for role in gathered[0].raw}
    block_B, window_B = (np.concatenate(parts) for parts in zip(*(windows[1:] for windows in gathered), strict=True))
    return Windows(raw, block_B, window_B)


def _scale_columns(scale_BC2: np.ndarray, channels: Sequence[str]) -> dict[str, np.ndarray]:
    parts = enumerate(("offset", "gain"))
    return {f"{role}_{part}": scale_BC2[:, c, p] for p, part in parts for c, role in enumerate(channels)}


def _make_table(
    shard: int, blocks: Sequence[Block], columns: Sequence[dict[str, np.ndarray]], settings: Settings
) -> pa.Table:
    """Return the shard's rows of the table; texts come from the blocks, once each."""
    joined = {name: np.concatenate([part[name] for part in columns]) for name in (columns[0] if columns else ())}
    block_R = joined.pop("block", np.zeros(0, np.int32))
    start_s_R = joined.pop("window", np.zeros(0, np.int32)) * settings.segment_s

    def text(values: Sequence[str]) -> pa.DictionaryArray:
        codes = {value: code for code, value in enumerate(sorted(set(values)))}
        code_R = np.array([codes[value] for value in values], np.int32)[block_R]
        return pa.DictionaryArray.from_arrays(code_R, pa.array(list(codes), pa.string()))

    recordings = [block.recording for block in blocks]
    began_s = np.array([np.nan if r.start_time is None else r.start_time for r in recordings])[block_R]
    table: dict[str, Any] = {
        "shard": np.full(block_R.size, shard, np.int32),
        "source": text([recording.source for recording in recordings]),
        "subject": text([recording.subject for recording in recordings]),
        "subject_known": np.array([recording.subject_known for recording in recordings], bool)[block_R],
        "recording": text([recording.recording for recording in recordings]),
        "start_s": start_s_R.astype(np.float64),
        "time_s": pa.array(began_s + start_s_R, pa.float64(), from_pandas=True),
    }
    for role in settings.channels:
        table[f"{role}_name"] = text([recording.channels[role].name for recording in recordings])
        table[f"{role}_unit"] = text([recording.channels[role].unit for recording in recordings])
    return pa.table({**table, **joined})
