"""The order in which pairs are drawn: a function of (seed, index, batch, step), with no state and no buffer.

The n pairs of an index are cut into V streams of neighbours (`streams.py`); a step takes its rows from all of them (or,
where the batch is smaller than V, from every V / batch-th, in turn). Inside a stream of m pairs draw q is pair
perm(q % m), a permutation computed from (seed, stream, q // m): each pair comes once before any comes twice. Where the
pairs are of several stores, numbered store after store, a store's weight is its share of the streams. Knows nothing of
hosts or devices. The arithmetic is uint32, the same over NumPy and jax.numpy.

    order = make_order(pairs=1_000_000, batch=512, streams=256, seed=0)
    order = make_order(pairs=(700_000, 2_000), weights=(0.7, 0.3), batch=512, streams=256, seed=0)
    pair_B = order.draw(step)
"""

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.streams import cut_streams

log = logging.getLogger(__name__)

ROUNDS = 6  # four suffice for large domains (Luby and Rackoff 1988); domains of 16 pairs need more to look uniform
_WORD = 2**32


def while_loop(condition: Callable[[Any], Any], body: Callable[[Any], Any], value: Any) -> Any:
    """Return `value` after `body` was applied as long as `condition` held; `jax.lax.while_loop` for concrete arrays."""
    while condition(value):
        value = body(value)
    return value


@dataclass(frozen=True, eq=False)
class Order:
    """An order over `pairs` pairs for a global `batch`, in `streams` streams (V); made by `make_order`.

    `streams_of` says how many of the streams are each store's, one store after another.
    Axes: V streams, E stages of the curriculum (one without). `first_step_E` is where a stage starts, `first_V` the
    first pair of the part that a stream draws from, `size_EV` how many of its pairs a stage draws from, `outer_EV` x
    `inner_EV` >= `size_EV` the rectangle on which they are permuted, `key_V` the hash of (seed, part); of `lanes_V`
    streams that draw from one part in turn a stream is number `lane_V`; all uint32. `ranked_N` uint32 lists the pairs
    of each part by rising difficulty; None without a curriculum.
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
    lanes_V: np.ndarray
    lane_V: np.ndarray
    ranked_N: np.ndarray | None

    def draw(
        self, step: Any, xp: ModuleType = np, loop: Callable[..., Any] = while_loop, place_B: Any | None = None
    ) -> Any:
        """Return the pair numbers uint32 of `step` (0 <= step < 2**32): (batch,), or those at the places `place_B`.

        `xp` is numpy or jax.numpy; inside a jitted function `step` may be traced, and `loop` is jax.lax.while_loop.
        """
        step = xp.asarray(step, dtype=xp.uint32)
        stage = (step >= xp.asarray(self.first_step_E)).sum() - 1
        step = step - xp.asarray(self.first_step_E)[stage]

        per_stream, turns = max(self.batch // self.streams, 1), max(self.streams // self.batch, 1)
        place_B = xp.arange(self.batch, dtype=xp.uint32) if place_B is None else place_B.astype(xp.uint32)
        stream_B = place_B // per_stream * turns + step % turns
        lane_B = xp.asarray(self.lane_V)[stream_B] * per_stream + place_B % per_stream
        lanes_B = xp.asarray(self.lanes_V)[stream_B] * per_stream

        size_B = xp.asarray(self.size_EV)[stage][stream_B]
        outer_B = xp.asarray(self.outer_EV)[stage][stream_B]
        inner_B = xp.asarray(self.inner_EV)[stage][stream_B]
        # Draw q = (step // turns) * lanes + lane, as (q // size, q % size) without leaving 32 bits.
        visit = step // turns
        offset_B = visit % size_B * lanes_B + lane_B
        epoch_B = visit // size_B * lanes_B + offset_B // size_B
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

    def reach(self, first_place: int, stop_place: int) -> tuple[int, int]:
        """Return the first pair, and the one behind the last, of the parts that these places of a batch draw from.

        Under a curriculum, pairs that no stage draws are among them.
        """
        per_stream, turns = max(self.batch // self.streams, 1), max(self.streams // self.batch, 1)
        first, last = first_place // per_stream * turns, (stop_place - 1) // per_stream * turns + turns - 1
        start_P = np.unique(self.first_V)  # parts lie one behind another, and so do the streams that draw from them
        after = int(np.searchsorted(start_P, self.first_V[last], side="right"))
        return int(self.first_V[first]), int(start_P[after]) if after < start_P.size else self.pairs


def make_order(
    pairs: int | Sequence[int],
    batch: int,
    *,
    streams: int,
    seed: int,
    weights: Sequence[float] = (1.0,),
    difficulty: np.ndarray | None = None,
    stages: Sequence[tuple[int, float]] = (),
    each: int = 1,
) -> Order:
    """Return the order over `pairs` pairs, of one store or of each of several with `weights` that sum to 1.

    What it calls a pair is any element of an index; `each` is how much of train.batch one is, which faults name.

    They are cut into about `streams` streams, see `cut_streams`. A curriculum is `stages`, each (its end step,
    exclusive; the largest difficulty drawn), over `difficulty` (pairs,) float32; a stage without a step is passed over,
    the last holds for all later steps.

    Raises UserError for an empty index, as `cut_streams` does, for stages that fall or hold no pair of a store, and for
    a curriculum over pairs without a difficulty.
    """
    pairs_S = (pairs,) if isinstance(pairs, int) else tuple(pairs)
    total = sum(pairs_S)
    if not 0 < total < _WORD or 0 in pairs_S:
        remedy = "the index must hold between 1 and 2**32 - 1 pairs: mend the pairs.* fields"
        raise UserError(Fault("pairs", pairs, remedy))
    if batch < 1:
        raise UserError(Fault("train.batch", batch, "at least 1"))
    levels = [level for _, level in stages]
    level_N = _check_curriculum(stages, difficulty, pairs_S) if stages else np.zeros(total, np.float32)
    drawn_E = [_count_easy(level_N, level) for level in levels]
    cut = cut_streams(pairs_S, weights, batch=batch, streams=streams, drawn_E=drawn_E, each=each)
    _warn_of_small_stages(drawn_E, batch)

    ranked_N, size_EP = _rank(level_N, cut.edge_P, levels) if stages else (None, np.diff(cut.edge_P)[None, :])
    size_EV = size_EP[:, cut.part_V]
    lanes_V, lane_V = _take_turns(cut.part_V, max(cut.count // batch, 1))
    if int((size_EV * lanes_V).max()) * max(batch // cut.count, 1) >= _WORD:
        if lanes_V.max() > 1:
            remedy = (
                "the first stage leaves a stream of a large store too few pairs: a larger difficulty, or no curriculum"
            )
            raise UserError(Fault("data.curriculum", tuple(stages), remedy))
        remedy = f"{total} pairs at train.batch = {batch} need more streams: 256"
        raise UserError(Fault("data.streams", streams, remedy))
    outer_EV, inner_EV = _rectangles(size_EV)
    low, high = np.array([[seed % _WORD], [seed // _WORD % _WORD]], np.uint32)
    return Order(
        pairs=total,
        batch=batch,
        streams=cut.count,
        streams_of=cut.streams_of,
        first_step_E=np.array([0, *(end for end, _ in stages[:-1])], np.uint32),
        first_V=cut.edge_P[cut.part_V].astype(np.uint32),
        size_EV=size_EV.astype(np.uint32),
        outer_EV=outer_EV.astype(np.uint32),
        inner_EV=inner_EV.astype(np.uint32),
        key_V=scramble(scramble(scramble(low, np) ^ high, np) ^ cut.part_V.astype(np.uint32), np),
        lanes_V=lanes_V.astype(np.uint32),
        lane_V=lane_V.astype(np.uint32),
        ranked_N=ranked_N,
    )


def _take_turns(part_V: np.ndarray, turns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how many streams draw from each stream's part, and its number among them, in the order of their turns.

    A step with `turns` > 1 takes rows from every `turns`-th stream, from another first one in each turn.
    """
    stream_V = np.arange(part_V.size)
    by_turn = np.lexsort((stream_V, stream_V % turns, part_V))
    lane_V = np.empty_like(stream_V)
    lane_V[by_turn] = stream_V - np.searchsorted(part_V[by_turn], part_V[by_turn])
    return np.bincount(part_V)[part_V], lane_V


def _check_curriculum(
    stages: Sequence[tuple[int, float]], difficulty: np.ndarray | None, pairs_S: Sequence[int]
) -> np.ndarray:
    """Return the difficulty of every pair; raise UserError where stages do not rise, a difficulty is missing, or a
    stage holds no pair of a store.
    """
    ends, levels = [end for end, _ in stages], [level for _, level in stages]
    shown = tuple(stages)
    if any(late < early for early, late in itertools.pairwise([0, *ends])):
        raise UserError(Fault("data.curriculum", shown, "no stage may end before the one before it"))
    if any(late < early for early, late in itertools.pairwise(levels)):
        raise UserError(Fault("data.curriculum", shown, "the largest difficulty must not fall from stage to stage"))
    if difficulty is None or np.shape(difficulty) != (sum(pairs_S),) or not np.isfinite(difficulty).all():
        remedy = "the index has no difficulty for every pair: choose a pairs.rule that gives one, or no curriculum"
        raise UserError(Fault("data.curriculum", shown, remedy))
    level_N = np.asarray(difficulty)
    for number, own_N in enumerate(np.split(level_N, np.cumsum(pairs_S)[:-1]), 1):
        if own_N.min() > levels[0]:
            whose = "no pair" if len(pairs_S) == 1 else f"no pair of store {number} of data.store"
            remedy = f"{whose} is that easy: at least {float(own_N.min()):.4g}, the easiest"
            raise UserError(Fault("data.curriculum", levels[0], remedy))
    return level_N


def _count_easy(level_N: np.ndarray, level: float) -> np.ndarray:
    """Return how many pairs before each pair are at most so difficult, and last how many in all: (N + 1,) uint32."""
    drawn_N = np.zeros(level_N.size + 1, np.uint32)
    np.cumsum(level_N <= level, dtype=np.uint32, out=drawn_N[1:])
    return drawn_N


def _warn_of_small_stages(drawn_E: Sequence[np.ndarray], batch: int) -> None:
    for drawn_N in drawn_E:
        if drawn_N[-1] < batch:
            log.warning(
                "a stage holds %d pairs, fewer than a batch of %d: its batches repeat pairs", drawn_N[-1], batch
            )


def _rank(level_N: np.ndarray, edge_P: np.ndarray, levels: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of each part by rising difficulty (N,) uint32, and how many a stage draws from it (E, P)."""
    ranked_N = np.empty(level_N.size, np.uint32)
    size_EP = np.empty((len(levels), len(edge_P) - 1), np.int64)
    for part, (start, stop) in enumerate(itertools.pairwise(edge_P)):
        rank = np.argsort(level_N[start:stop], kind="stable")
        ranked_N[start:stop] = start + rank
        size_EP[:, part] = np.searchsorted(level_N[start:stop][rank], levels, side="right")
    return ranked_N, size_EP


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
