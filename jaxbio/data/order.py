"""The order in which pairs are drawn: a function of (seed, index, batch, step), with no state and no buffer.

The n pairs of an index are cut into V streams of neighbours; a step takes its rows from all of them (or, where the
batch is smaller than V, from every V / batch-th, in turn). Inside a stream of m pairs draw q is pair perm(q % m), a
permutation computed from (seed, stream, q // m): each pair comes once before any comes twice. Where the pairs are of
several stores, numbered store after store, a store's weight is its share of the streams. Knows nothing of what a store
is, of hosts or devices. The arithmetic is uint32, the same over NumPy and jax.numpy.

    order = make_order(pairs=1_000_000, batch=512, streams=256, seed=0)
    order = make_order(pairs=(700_000, 2_000), weights=(0.7, 0.3), batch=512, streams=256, seed=0)
    pair_B = order.draw(step)
"""

import itertools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from jaxbio.config.faults import Fault, UserError

log = logging.getLogger(__name__)

MIN_PAIRS_PER_STREAM = 16  # of one store; of several a stream may hold a single pair: fewer streams round the shares
ROUNDS = 6  # four suffice for large domains (Luby and Rackoff 1988); domains of 16 pairs need more to look uniform
LARGEST_ROUNDING = 0.01  # of a share, beyond which the log says so
_WORD = 2**32


def while_loop(condition: Callable[[Any], Any], body: Callable[[Any], Any], value: Any) -> Any:
    """Return `value` after `body` was applied as long as `condition` held; `jax.lax.while_loop` for concrete arrays."""
    while condition(value):
        value = body(value)
    return value


@dataclass(frozen=True, eq=False)
class Order:
    """An order over `pairs` pairs for a global `batch`, in `streams` streams (V); made by `make_order`.

    `streams_of` says how many of the streams are each store's, one after another.
    Axes: V streams, E stages of the curriculum (one without). `first_step_E` is where a stage starts, `first_V` the
    first pair of a stream, `size_EV` how many of its pairs a stage draws from, `outer_EV` x `inner_EV` >= `size_EV` the
    rectangle on which they are permuted, `key_V` the hash of (seed, stream); all uint32. `ranked_N` uint32 lists the
    pairs of each stream by rising difficulty; None without a curriculum.
    """

    pairs: int
    batch: int
    streams: int
    streams_of: tuple[int, ...]
    first_step_E: np.ndarray
    first_V: np.ndarray
    size_EV: np.ndarray
    outer_EV: np.ndarray
    inner_EV: np.ndarray
    key_V: np.ndarray
    ranked_N: np.ndarray | None

    def draw(self, step: Any, xp: ModuleType = np, loop: Callable[..., Any] = while_loop) -> Any:
        """Return the pair numbers (batch,) uint32 of `step` (0 <= step < 2**32).

        `xp` is numpy or jax.numpy; inside a jitted function `step` may be traced, and `loop` is jax.lax.while_loop.
        """
        step = xp.asarray(step, dtype=xp.uint32)
        stage = (step >= xp.asarray(self.first_step_E)).sum() - 1
        step = step - xp.asarray(self.first_step_E)[stage]

        per_stream, turns = max(self.batch // self.streams, 1), max(self.streams // self.batch, 1)
        place_B = xp.arange(self.batch, dtype=xp.uint32)
        stream_B = place_B // per_stream * turns + step % turns
        lane_B = place_B % per_stream

        size_B = xp.asarray(self.size_EV)[stage][stream_B]
        outer_B = xp.asarray(self.outer_EV)[stage][stream_B]
        inner_B = xp.asarray(self.inner_EV)[stage][stream_B]
        # Draw q = (step // turns) * per_stream + lane, as (q // size, q % size) without leaving 32 bits.
        visit = step // turns
        offset_B = visit % size_B * per_stream + lane_B
        epoch_B = visit // size_B * per_stream + offset_B // size_B
        key_B = scramble(xp.asarray(self.key_V)[stream_B] ^ scramble(epoch_B, xp), xp)

        def permute(draw_B: Any) -> Any:
            return _feistel(draw_B, outer_B, inner_B, key_B, xp)

        # Walk along the cycles of the rectangle's permutation until every draw is one of the stream's pairs.
        draw_B = loop(
            lambda draw_B: (draw_B >= size_B).any(),
            lambda draw_B: xp.where(draw_B >= size_B, permute(draw_B), draw_B),
            permute(offset_B % size_B),
        )
        pair_B = xp.asarray(self.first_V)[stream_B] + draw_B
        return pair_B if self.ranked_N is None else xp.asarray(self.ranked_N)[pair_B]


def make_order(
    pairs: int | Sequence[int],
    batch: int,
    *,
    streams: int,
    seed: int,
    weights: Sequence[float] = (1.0,),
    difficulty: np.ndarray | None = None,
    stages: Sequence[tuple[int, float]] = (),
) -> Order:
    """Return the order over `pairs` pairs, of one store or of each of several, in at most `streams` streams.

    V is the largest power of two <= min(streams, pairs / 16). Of several stores each gets the share of the streams
    that its weight says (`weights` sum to 1; whole streams, then by largest remainder) and cuts its own pairs into
    them; V is then the largest power of two <= `streams` at which no stream is empty.

    A curriculum is `stages`, each (its end step, exclusive; the largest difficulty drawn), over `difficulty` (pairs,)
    float32; a stage without a step is passed over, the last holds for all later steps. V is halved where a stage would
    leave a stream with fewer pairs than a step takes.

    Raises UserError for an empty index, a batch that is neither a multiple nor a divisor of V (with the two nearest
    that are), a weight that rounds to no stream, stages that fall or hold no pair, and a curriculum over pairs without
    a difficulty.
    """
    pairs_S = (pairs,) if isinstance(pairs, int) else tuple(pairs)
    total = sum(pairs_S)
    if not 0 < total < _WORD or 0 in pairs_S:
        remedy = "the index must hold between 1 and 2**32 - 1 pairs: mend the pairs.* fields"
        raise UserError(Fault("pairs", pairs, remedy))
    if batch < 1:
        raise UserError(Fault("train.batch", batch, "at least 1"))
    count = _count_streams(pairs_S, weights, streams)
    _check_batch(batch, count)

    first_step_E = np.array([0, *(end for end, _ in stages[:-1])], np.uint32)
    streams_of = _share_out(weights, count)
    first_V = _first_of_streams(pairs_S, streams_of)
    size_EV, ranked_N = np.diff(first_V)[None, :], None
    if stages:
        level_N = _check_curriculum(stages, difficulty, total)
        levels = [level for _, level in stages]
        count = _streams_of_curriculum(level_N, levels, pairs_S, weights, batch, count)
        streams_of = _share_out(weights, count)
        first_V = _first_of_streams(pairs_S, streams_of)
        ranked_N, size_EV = _rank(level_N, first_V, levels)
    _warn_of_rounding(weights, streams_of)
    per_stream = max(batch // count, 1)
    if int(size_EV.max()) * per_stream >= _WORD:
        remedy = f"{total} pairs at train.batch = {batch} need more streams: 256"
        raise UserError(Fault("data.streams", streams, remedy))

    outer_EV, inner_EV = _rectangles(size_EV)
    low, high = np.array([[seed % _WORD], [seed // _WORD % _WORD]], np.uint32)
    key_V = scramble(scramble(scramble(low, np) ^ high, np) ^ np.arange(count, dtype=np.uint32), np)
    return Order(
        pairs=total,
        batch=batch,
        streams=count,
        streams_of=streams_of,
        first_step_E=first_step_E,
        first_V=first_V[:-1].astype(np.uint32),
        size_EV=size_EV.astype(np.uint32),
        outer_EV=outer_EV.astype(np.uint32),
        inner_EV=inner_EV.astype(np.uint32),
        key_V=key_V,
        ranked_N=ranked_N,
    )


def _count_streams(pairs_S: Sequence[int], weights: Sequence[float], streams: int) -> int:
    """Return V, the largest power of two <= `streams` at which every stream holds the fewest pairs that it may."""
    fewest = MIN_PAIRS_PER_STREAM if len(pairs_S) == 1 else 1
    count = 2 ** int(math.log2(max(streams, 1)))
    while count > 1 and any(
        pairs < fewest * streams for pairs, streams in zip(pairs_S, _share_out(weights, count), strict=True)
    ):
        count //= 2
    return count


def _share_out(weights: Sequence[float], count: int) -> tuple[int, ...]:
    """Return how many of `count` streams each store gets: the whole ones of its share, the rest by largest remainder.

    Raises UserError where a store gets none.
    """
    share_S = np.asarray(weights, np.float64) * count
    streams_S = np.floor(share_S + 1e-6).astype(int)  # 0.3 * 10 is a hair below 3
    rest_S = np.argsort(streams_S - share_S, kind="stable")[: count - streams_S.sum()]
    streams_S[rest_S] += 1
    for number in np.flatnonzero(streams_S == 0).tolist():
        remedy = (
            f"rounds to none of the {count} streams that the pairs are cut into: at least {1 / count:.4g}, or more "
        )
        remedy += "streams (data.streams; a store of few pairs lowers their number too)"
        raise UserError(Fault("data.store", f"weight {weights[number]:g}", remedy))
    return tuple(streams_S.tolist())


def _warn_of_rounding(weights: Sequence[float], streams_of: Sequence[int]) -> None:
    shares = [streams / sum(streams_of) for streams in streams_of]
    if max(abs(share - weight) for share, weight in zip(shares, weights, strict=True)) > LARGEST_ROUNDING:
        log.warning(
            "data.store: %d streams round the weights %s to %s; more streams need a larger data.streams or more pairs",
            sum(streams_of),
            ", ".join(f"{weight:.4g}" for weight in weights),
            ", ".join(f"{share:.4g}" for share in shares),
        )


def _first_of_streams(pairs_S: Sequence[int], streams_of: Sequence[int]) -> np.ndarray:
    """Return the first pair of each stream and, last, the number of pairs: (V + 1,) int64."""
    starts = itertools.accumulate(pairs_S, initial=0)
    edges = [
        start + np.arange(streams) * pairs // streams
        for start, pairs, streams in zip(starts, pairs_S, streams_of, strict=False)
    ]
    return np.concatenate([*edges, [sum(pairs_S)]])


def _check_batch(batch: int, count: int) -> None:
    """Raise UserError unless `batch` is a multiple or a divisor of `count`, a power of two."""
    if batch % count == 0 or count % batch == 0:
        return
    unit = count if batch > count else 2 ** int(math.log2(batch))
    below, above = batch // unit * unit, (batch // unit + 1) * unit
    remedy = f"make it a multiple or a divisor of the {count} streams the pairs are cut into: {below} or {above}"
    raise UserError(Fault("train.batch", batch, remedy))


def _check_curriculum(stages: Sequence[tuple[int, float]], difficulty: np.ndarray | None, pairs: int) -> np.ndarray:
    """Return the difficulty of every pair; raise UserError where stages do not rise or a difficulty is missing."""
    ends, levels = [end for end, _ in stages], [level for _, level in stages]
    shown = tuple(stages)
    if any(late < early for early, late in itertools.pairwise([0, *ends])):
        raise UserError(Fault("data.curriculum", shown, "no stage may end before the one before it"))
    if any(late < early for early, late in itertools.pairwise(levels)):
        raise UserError(Fault("data.curriculum", shown, "the largest difficulty must not fall from stage to stage"))
    if difficulty is None or np.shape(difficulty) != (pairs,) or not np.isfinite(difficulty).all():
        remedy = "the index has no difficulty for every pair: choose a pairs.rule that gives one, or no curriculum"
        raise UserError(Fault("data.curriculum", shown, remedy))
    return np.asarray(difficulty)


def _streams_of_curriculum(
    level_N: np.ndarray,
    levels: Sequence[float],
    pairs_S: Sequence[int],
    weights: Sequence[float],
    batch: int,
    count: int,
) -> int:
    """Return how many streams, at most `count`, give every stage the pairs of a step in each stream."""
    start_S = [0, *itertools.accumulate(pairs_S)]
    for level in levels:
        drawn_N = np.concatenate([[0], np.cumsum(level_N <= level)])
        for number, (start, stop) in enumerate(itertools.pairwise(start_S), 1):
            if drawn_N[start] == drawn_N[stop]:
                whose = "no pair" if len(pairs_S) == 1 else f"no pair of store {number} of data.store"
                remedy = f"{whose} is that easy: at least {float(level_N[start:stop].min()):.4g}, the easiest"
                raise UserError(Fault("data.curriculum", level, remedy))
        while count > 1:
            first_V = _first_of_streams(pairs_S, _share_out(weights, count))
            if np.diff(drawn_N[first_V]).min() >= max(batch // count, 1):
                break
            if count // 2 < len(pairs_S):
                remedy = (
                    "leaves a store fewer pairs than its share of a batch: a larger level, or a smaller train.batch"
                )
                raise UserError(Fault("data.curriculum", level, remedy))
            count //= 2
        if drawn_N[-1] < batch:
            log.warning(
                "a stage holds %d pairs, fewer than a batch of %d: its batches repeat pairs", drawn_N[-1], batch
            )
    return count


def _rank(level_N: np.ndarray, first_V: np.ndarray, levels: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of each stream by rising difficulty (N,) uint32, and how many a stage draws from it (E, V)."""
    ranked_N = np.empty(level_N.size, np.uint32)
    size_EV = np.empty((len(levels), len(first_V) - 1), np.int64)
    for stream, (start, stop) in enumerate(itertools.pairwise(first_V)):
        rank = np.argsort(level_N[start:stop], kind="stable")
        ranked_N[start:stop] = start + rank
        size_EV[:, stream] = np.searchsorted(level_N[start:stop][rank], levels, side="right")
    return ranked_N, size_EV


def _rectangles(size_EV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sides, at most 2**16, of a nearly square rectangle just over each size, so that walks are rare."""
    root = np.ceil(np.sqrt(size_EV)).astype(np.int64)
    best_outer, best_inner = root, -(-size_EV // root)
    for shorter in range(1, 64):
        outer = np.maximum(root - shorter, 1)
        inner = -(-size_EV // outer)
        better = (outer * inner < best_outer * best_inner) & (inner <= 2 * outer) & (inner <= 2**16)
        best_outer, best_inner = np.where(better, outer, best_outer), np.where(better, inner, best_inner)
    return best_outer, best_inner


def scramble(word: Any, xp: ModuleType) -> Any:
    """Return a hash of uint32 words, a bijection (lowbias32 of C. Wellons' hash prospector, 2018)."""
    word = (word ^ (word >> 16)) * xp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * xp.uint32(0x846CA68B)
    return word ^ (word >> 16)


def _feistel(place: Any, outer: Any, inner: Any, key: Any, xp: ModuleType) -> Any:
    """Permute the places 0 .. outer * inner - 1, written as left * inner + right; the two take turns to be shifted."""
    left, right = place // inner, place % inner
    for number in range(0, ROUNDS, 2):
        left = _shift(left, right, outer, key + xp.uint32(number * 0x9E3779B9 % _WORD), xp)
        right = _shift(right, left, inner, key + xp.uint32((number + 1) * 0x9E3779B9 % _WORD), xp)
    return left * inner + right


def _shift(half: Any, by: Any, size: Any, key: Any, xp: ModuleType) -> Any:
    """Return half + f(by, key) modulo size, f by multiplication and shift (sizes are at most 2**16: no division)."""
    word = (by ^ key) * xp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * xp.uint32(0x846CA68B)
    moved = half + ((word >> 16) * size >> 16)
    return xp.minimum(moved, moved - size)  # below zero it wraps to a large number
