"""Which segments are learnt from together: rules over the store's table, and the index they leave on disk.

A pair is two row numbers, the better segment first, of one recording in one shard. Rules look at the table only; a
waveform is never read, so another rule, variant or cap costs seconds.

    make_pairs(store, config)
    index = open_index(store, config, "train")      # index.rows_NM, index.difficulty_N
"""

import errno
import hashlib
import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ml_collections import ConfigDict

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.refusals import advise
from jaxbio.data.regular_files import check_regular, read_text
from jaxbio.data.splits import SPLITS
from jaxbio.data.store import Store, StoreView
from jaxbio.data.store_files import INDEX
from jaxbio.data.whole_files import whole_folder

CLASSES = ("Bad", "Poor", "Acceptable", "Good", "Excellent")
RULE = "rule.json"


@dataclass(frozen=True)
class Index:
    """Pairs of one split: `rows_NM` uint32 (memory map; member 0 the better, M = 1: single segments), and how hard."""

    rows_NM: np.ndarray
    difficulty_N: np.ndarray
    hash: str
    by_element: ClassVar[Mapping[str, np.ndarray]] = {}

    @property
    def rows_NSM(self) -> np.ndarray:
        """The rows of what an order draws, here of one pair each (S = 1)."""
        return self.rows_NM[:, None]


@dataclass(frozen=True)
class Rows:
    """Used rows of a table in their order (recordings contiguous, time ascending), as the rules see them."""

    row_R: np.ndarray  # row numbers, int64
    recording_R: np.ndarray  # equal within a shard and recording
    slot_R: np.ndarray  # start in segment durations
    quality_R: np.ndarray
    class_R: np.ndarray
    artefact_frac_R: np.ndarray


def make_pairs(store: Store, config: ConfigDict) -> str:
    """Write the index of `store` that `config` asks for and return its hash; one that is there is left as it is.

    Raises UserError where the index cannot be written.
    """
    name = index_hash(config)
    folder = store.path / INDEX / name
    if has_index(store, config):
        return name
    quality_R, split_R = store.column(f"quality_{config.quality.variant}"), split_codes(store)
    edges = class_edges(quality_R[split_R >= 0], config)
    counts = {}
    try:
        with whole_folder(folder) as unfinished:  # in the place of that of another store, copied here
            for code, split in enumerate(SPLITS):
                rows = read_rows(store, np.flatnonzero(split_R == code), quality_R, edges)
                rows_NM, difficulty_N = select(rows, config, store.segment_s)
                np.save(unfinished / f"{split}.npy", rows_NM)
                np.save(unfinished / f"{split}.difficulty.npy", difficulty_N)
                counts[split] = len(rows_NM)
            rule = {"rule": rule_of(config), "edges": list(edges), "counts": counts, "store": store.hash}
            (unfinished / RULE).write_text(json.dumps(rule, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        remedy = f"an index lies in the folder of its store: {advise(error)}"
        raise UserError(Fault(str(folder), str(error), remedy)) from None
    logging.info("index %s: %s", name, ", ".join(f"{count} {split}" for split, count in counts.items()))
    if not counts[SPLITS[0]]:
        logging.warning(
            "this index holds nothing to train on; where nearly all segments are of one class, "
            "--config.pairs.class_edges_as=quantiles forms the classes from the store's own scores"
        )
    return name


def has_index(store: Store, config: ConfigDict) -> bool:
    """Return whether the index of this store that `config` asks for is there, as `make_pairs` leaves it."""
    folder = store.path / INDEX / index_hash(config)
    return folder.is_dir() and _read_rule(folder).get("store") == store.hash


def open_index(store: Store, config: ConfigDict, split: str) -> Index:
    """Return the index of `split` that `config` asks for; `rows_NM` may be empty.

    Raises UserError where it was not made for this store, and where its rows lie outside the store.
    """
    name = index_hash(config)
    folder = store.path / INDEX / name
    command = f"python tools/make_pairs.py --store {shlex.quote(str(store.path))}"
    remedy = f"make this index: {command} with the --config arguments of this run"
    rule = _read_rule(folder) if folder.is_dir() else None
    if rule is None or rule.get("store") != store.hash:
        what = "missing" if rule is None else "made for another store"
        raise UserError(Fault(str(folder), what, remedy))
    try:
        rows_NM = _load(folder / f"{split}.npy")
        difficulty_N = _load(folder / f"{split}.difficulty.npy")
    except (OSError, ValueError) as error:
        raise UserError(Fault(str(folder / split), str(error), f"remove {folder} and {remedy}")) from None
    fault = _index_fault(rows_NM, difficulty_N, store.rows)
    if fault:
        raise UserError(Fault(str(folder / f"{split}.npy"), fault, f"remove {folder} and {remedy}"))
    return Index(rows_NM, difficulty_N, name)


def index_hash(config: ConfigDict) -> str:
    """Return the name of the index that `config` asks for: a hash of the pairs fields and quality.variant."""
    return hashlib.sha256(json.dumps(rule_of(config), sort_keys=True).encode()).hexdigest()[:16]


def rule_of(config: ConfigDict) -> dict[str, Any]:
    """Return the fields that an index depends on, by dotted name."""
    rule = {f"pairs.{name}": value for name, value in config.pairs.items()}
    return {**rule, "quality.variant": config.quality.variant}


def split_codes(store: StoreView) -> np.ndarray:
    """Return each row's place in SPLITS (rows,), -1 for rows that are not used."""
    code_R, names = store.codes("split")
    places = np.array([SPLITS.index(name) if name in SPLITS else -1 for name in names], np.int64)
    return places[code_R] if names else np.zeros(0, np.int64)


def class_edges(quality_R: np.ndarray, config: ConfigDict) -> tuple[float, ...]:
    """Return the lower edges of all classes but the first, as scores; `quality_R` is of the used rows."""
    edges = tuple(config.pairs.class_edges)
    if config.pairs.class_edges_as == "values" or not quality_R.size:
        return edges
    return tuple(np.quantile(quality_R, edges).tolist())


def class_of(quality_R: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Return the class of each score, 0 the worst; a score on an edge belongs to the class above."""
    return np.searchsorted(np.asarray(edges, quality_R.dtype), quality_R, side="right").astype(np.int8)


def read_rows(store: Store, row_R: np.ndarray, quality_R: np.ndarray, edges: Sequence[float]) -> Rows:
    """Return what the rules need of rows `row_R` (ascending); `quality_R` is of all rows."""
    shard_R, source_R, recording_R = (
        store.column("shard")[row_R],
        store.codes("source")[0][row_R],
        store.codes("recording")[0][row_R],
    )
    new_R = np.zeros(row_R.size, bool)
    for column_R in (shard_R, source_R, recording_R):
        new_R[1:] |= column_R[1:] != column_R[:-1]
    return Rows(
        row_R=row_R,
        recording_R=np.cumsum(new_R),
        slot_R=np.rint(store.column("start_s")[row_R] / store.segment_s).astype(np.int64),
        quality_R=quality_R[row_R],
        class_R=class_of(quality_R[row_R], edges),
        artefact_frac_R=store.column("artefact_frac")[row_R],
    )


def select(rows: Rows, config: ConfigDict, segment_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (`rows_NM` uint32, `difficulty_N` float32) of the rule in `config.pairs`, in the order of the rows."""
    rule = config.pairs
    if rule.rule == "all_segments":
        return rows.row_R[:, None].astype(np.uint32), (1 - rows.quality_R).astype(np.float32)
    if rule.rule == "same_segment":
        return np.repeat(rows.row_R[:, None], 2, axis=1).astype(np.uint32), (1 - rows.quality_R).astype(np.float32)
    slots = int(rule.max_gap_s / segment_s + 1e-6)
    if rule.rule == "quality_classes":
        return quality_class_pairs(rows, slots, rule.max_per_segment)
    return good_bad_pairs(rows, slots, rule.max_per_segment, rule.good_artefact_frac)


def quality_class_pairs(rows: Rows, slots: int, cap: int | None) -> tuple[np.ndarray, np.ndarray]:
    """QualityFM's pairs: two segments of different class, at most `slots` apart; difficulty: how far quality falls.

    The published rule counts nine kept windows on; ours goes by time stamps, and a segment is in at most `cap` pairs,
    nearest first, where the published one has no cap (`pairs.max_per_segment = None`).
    """
    first_N, second_N = neighbours(rows, slots, rows.class_R, cap)
    swap_N = rows.class_R[second_N] > rows.class_R[first_N]
    better_N, worse_N = np.where(swap_N, second_N, first_N), np.where(swap_N, first_N, second_N)
    return _as_index(rows, better_N, worse_N, rows.quality_R[better_N] - rows.quality_R[worse_N])


def good_bad_pairs(rows: Rows, slots: int, cap: int | None, good_frac: float) -> tuple[np.ndarray, np.ndarray]:
    """SiamQuality's pairs: a segment with at most `good_frac` of artefacts, and one with more, at most `slots` apart.

    A good segment has at most `cap` bad neighbours, nearest first; difficulty: the bad one's artefact fraction.
    """
    good_R = rows.artefact_frac_R <= good_frac
    first_N, second_N = neighbours(rows, slots, good_R, cap, capped_R=good_R)
    good_N, bad_N = np.where(good_R[first_N], first_N, second_N), np.where(good_R[first_N], second_N, first_N)
    return _as_index(rows, good_N, bad_N, rows.artefact_frac_R[bad_N])


def neighbours(
    rows: Rows, slots: int, kind_R: np.ndarray, cap: int | None, capped_R: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (first_N, second_N), places in `rows` of all pairs of one recording whose kind differs, first earlier.

    Starts differ by 1 to `slots` slots. Pairs are taken by growing gap; under a cap, one is left out where a member
    (of those that `capped_R` marks, None: all) is in `cap` pairs already. Ordered by first, then second.
    """
    rows_R = np.arange(rows.row_R.size)
    key_R = rows.recording_R * (int(rows.slot_R.max(initial=0)) + slots + 1) + rows.slot_R  # strictly ascending
    padded_key_R = np.append(key_R, np.iinfo(np.int64).max)
    room_R = np.full(rows_R.size, rows_R.size if cap is None else cap)
    if capped_R is not None:
        room_R[~capped_R] = rows_R.size
    ahead_R = rows_R.copy()  # first row that starts at least `gap` slots later
    firsts, seconds = [rows_R[:0]], [rows_R[:0]]
    for gap in range(1, slots + 1):
        ahead_R += padded_key_R[ahead_R] < key_R + gap
        first_N = np.flatnonzero(padded_key_R[ahead_R] == key_R + gap)
        first_N = first_N[kind_R[first_N] != kind_R[ahead_R[first_N]]]
        # Pairs of one gap chain up (a-b, b-c): every other link shares no segment, so each half is taken at once.
        even_N = rows.slot_R[first_N] // gap % 2 == 0
        for half_N in (first_N[even_N], first_N[~even_N]):
            half_N = half_N[(room_R[half_N] > 0) & (room_R[ahead_R[half_N]] > 0)]
            room_R[half_N] -= 1
            room_R[ahead_R[half_N]] -= 1
            firsts.append(half_N)
            seconds.append(ahead_R[half_N])
    first_N, second_N = np.concatenate(firsts), np.concatenate(seconds)
    order_N = np.argsort(first_N * (slots + 1) + (second_N - first_N), kind="stable")
    return first_N[order_N], second_N[order_N]


def _as_index(
    rows: Rows, better_N: np.ndarray, worse_N: np.ndarray, difficulty_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    rows_NM = np.stack([rows.row_R[better_N], rows.row_R[worse_N]], axis=-1).astype(np.uint32)
    return rows_NM, difficulty_N.astype(np.float32)


def _load(path: Path) -> np.ndarray:
    """Return the array in `path`, as a memory map where the file system has such."""
    check_regular(path)
    try:
        return np.load(path, mmap_mode="r")
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return np.load(path)


def _read_rule(folder: Path) -> dict[str, Any]:
    try:
        return json.loads(read_text(folder / RULE))
    except (OSError, ValueError):
        return {}  # an unfinished or foreign folder names no store: it is made again, or refused by open_index


def _index_fault(rows_NM: np.ndarray, difficulty_N: np.ndarray, rows: int) -> str | None:
    if rows_NM.dtype != np.uint32 or rows_NM.ndim != 2:
        return f"{rows_NM.dtype} {rows_NM.shape} is no index of pairs"
    if difficulty_N.shape != rows_NM.shape[:1]:
        return f"{len(rows_NM)} pairs, but {difficulty_N.size} difficulties"
    if rows_NM.size and rows_NM.max() >= rows:
        return f"row {rows_NM.max()} lies outside the store, which has {rows}"
    return None
