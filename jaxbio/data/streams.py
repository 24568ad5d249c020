"""How the pairs of an index are cut into streams: neighbours together, and each of several stores by its weight.

A part is a run of neighbouring pairs that one permutation mixes. Of one store every stream is a part. Of several, a
weight is a share of the streams; a store with too few pairs for its streams is one part, from which they draw in turn,
so that none of its pairs comes more often than another. It knows numbers of pairs, not what they are.

    streams = cut_streams((700_000, 2_000), (0.7, 0.3), batch=512, streams=256)
"""

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxbio.config.faults import Fault, UserError

log = logging.getLogger(__name__)

MIN_PAIRS_PER_STREAM = 16
LARGEST_ROUNDING = (
    0.01  # of a weight: of several stores there are more streams than asked for until none is off by more
)
MOST_STREAMS = 4096  # that are made so


@dataclass(frozen=True, eq=False)
class Streams:
    """V streams over P parts: `edge_P` (P + 1,) int64 is the first pair of each part and, last, the number of pairs,
    `part_V` the part that a stream draws from, `streams_of` how many streams are each store's, one store after another.
    """

    streams_of: tuple[int, ...]
    edge_P: np.ndarray
    part_V: np.ndarray

    @property
    def count(self) -> int:
        """V."""
        return len(self.part_V)


def cut_streams(
    pairs_S: Sequence[int],
    weights: Sequence[float],
    *,
    batch: int,
    streams: int,
    drawn_E: Sequence[np.ndarray] = (),
    each: int = 1,
) -> Streams:
    """Return the streams of stores that have `pairs_S` pairs, one after another, and `weights` that sum to 1.

    Of one store V is the largest power of two <= min(streams, pairs / 16). Of several it is the largest one <=
    `streams`, doubled until the shares are the weights within a hundredth (and the batch still fits), and each store
    gets its share in whole streams, the rest by largest remainder. `drawn_E` has for each stage of a curriculum how
    many pairs before each pair it draws (pairs + 1,): a stream must hold what a step takes of it, so V is halved for
    one store, and a store among several becomes one part. A pair may stand for something of `each` in train.batch.

    Raises UserError for a batch that is neither a multiple nor a divisor of V (with the two nearest that are) and for a
    weight that rounds to no stream.
    """
    count = _count_streams(pairs_S, weights, batch, streams)
    _check_batch(batch, count, each)
    if len(pairs_S) == 1:
        while count > 1 and not _all_hold(_cut(0, pairs_S[0], count), drawn_E, batch // count):
            count //= 2
    streams_of = _share_out(weights, count)
    _warn_of_rounding(weights, streams_of)
    edges, parts, first_part = [], [], 0
    for start, pairs, mine in zip(itertools.accumulate(pairs_S, initial=0), pairs_S, streams_of, strict=False):
        edge_P = _cut(start, pairs, mine)
        too_few = pairs < mine * MIN_PAIRS_PER_STREAM or not _all_hold(edge_P, drawn_E, batch // count)
        if len(pairs_S) > 1 and too_few:
            edge_P = _cut(start, pairs, 1)
        edges.append(edge_P[:-1])
        parts.append(first_part + np.arange(mine) % (len(edge_P) - 1))
        first_part += len(edge_P) - 1
    return Streams(streams_of, np.append(np.concatenate(edges), sum(pairs_S)), np.concatenate(parts))


def _count_streams(pairs_S: Sequence[int], weights: Sequence[float], batch: int, streams: int) -> int:
    """Return V before a curriculum lowers it."""
    if len(pairs_S) == 1:
        return 2 ** int(math.log2(max(min(streams, pairs_S[0] // MIN_PAIRS_PER_STREAM), 1)))
    count = 2 ** int(math.log2(streams))
    while count < MOST_STREAMS and _rounding(weights, count) > LARGEST_ROUNDING and _fits(batch, 2 * count):
        count *= 2
    return count


def _fits(batch: int, count: int) -> bool:
    return batch % count == 0 or count % batch == 0


def _check_batch(batch: int, count: int, each: int) -> None:
    """Raise UserError unless `batch` is a multiple or a divisor of `count`, a power of two; in numbers of `each`."""
    if _fits(batch, count):
        return
    unit = count if batch > count else 2 ** int(math.log2(batch))
    below, above = batch // unit * unit * each, (batch // unit + 1) * unit * each
    streams = f"{count} streams the pairs are cut into" + (f", times the {each} of a neighbourhood" if each > 1 else "")
    remedy = f"make it a multiple or a divisor of the {streams}: {below} or {above}"
    raise UserError(Fault("train.batch", batch * each, remedy))


def _cut(start: int, pairs: int, count: int) -> np.ndarray:
    """Return where `count` parts of `pairs` pairs from `start` begin and, last, where they end: (count + 1,) int64."""
    return start + np.arange(count + 1) * pairs // count


def _all_hold(edge_P: np.ndarray, drawn_E: Sequence[np.ndarray], pairs: int) -> bool:
    """Whether every part holds, in every stage, at least `pairs` pairs, and one in any case."""
    return all(np.diff(drawn_N[edge_P]).min() >= max(pairs, 1) for drawn_N in drawn_E)


def _share_out(weights: Sequence[float], count: int) -> tuple[int, ...]:
    """Return how many of `count` streams each store gets; raises UserError where one gets none."""
    streams_S = _rounded(weights, count)
    for number in np.flatnonzero(streams_S == 0).tolist():
        remedy = f"rounds to none of {count} streams: at least {1 / count:.4g}, or a larger data.streams"
        raise UserError(Fault("data.store", f"weight {weights[number]:g}", remedy))
    return tuple(streams_S.tolist())


def _rounded(weights: Sequence[float], count: int) -> np.ndarray:
    """Return the whole streams of every share, and what is left by largest remainder: (S,) int64."""
    share_S = np.asarray(weights, np.float64) * count
    streams_S = np.floor(share_S + 1e-6).astype(np.int64)  # 0.3 * 10 is a hair below 3
    rest_S = np.argsort(streams_S - share_S, kind="stable")[: count - streams_S.sum()]
    streams_S[rest_S] += 1
    return streams_S


def _rounding(weights: Sequence[float], count: int) -> float:
    """Return by how much of itself the weight is off that `count` streams round furthest."""
    return float(np.abs(_rounded(weights, count) / (np.asarray(weights) * count) - 1).max())


def _warn_of_rounding(weights: Sequence[float], streams_of: Sequence[int]) -> None:
    count = sum(streams_of)
    if _rounding(weights, count) > LARGEST_ROUNDING:
        log.warning(
            "data.store: %d streams round the weights %s to %s; a train.batch that is a power of two allows more",
            count,
            ", ".join(f"{weight:.4g}" for weight in weights),
            ", ".join(f"{streams / count:.4g}" for streams in streams_of),
        )
