"""Neighbourhoods: neighbouring pairs of an index, of which each distinct segment is read and encoded once.

The pairs of an index lie in the order of their recordings, so that pairs that lie together share their segments: under
a cap of four partners a segment is in up to four of them. A neighbourhood is a run of pairs with at most `better`
distinct better and `worse` distinct worse segments; every pair of the index is in exactly one. An order draws
neighbourhoods as it draws pairs, and the batch says which of its segments form pairs and what each pair counts.

    neighbourhoods = make_neighbourhoods(index, (n,), (1.0,), better=24, worse=16, most=64, drawn=8)
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxbio.data.pairs import Index

_LANES = 256  # parts of an index that are cut side by side
_PAIRS_PER_LANE = 4096  # the last neighbourhood of a part may be small, and should be one of many


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """N neighbourhoods, as an order draws them (`loader.Elements`).

    `rows_NSM` uint32 (M = 1) are the places of a neighbourhood: its better segments, then its worse ones, each in the
    order in which pairs name them; a place that is left over repeats the first of its kind. `pairs_N` says how many
    pairs a neighbourhood holds, `of` how many neighbourhoods are each store's, `pairs_per_step` how many pairs a step
    holds in the mean. `by_element` are the arrays of a batch: `pair_UP2`, `weight_UP`, `better_UG`, `worse_UH`
    (`jaxbio/data/batch.py`).
    """

    rows_NSM: np.ndarray
    pairs_N: np.ndarray
    of: tuple[int, ...]
    pairs_per_step: float
    by_element: Mapping[str, np.ndarray]


def make_neighbourhoods(
    index: Index,
    pairs_of: Sequence[int],
    weights: Sequence[float],
    *,
    better: int,
    worse: int,
    most: int,
    drawn: int,
) -> Neighbourhoods:
    """Return the neighbourhoods of an index of pairs, of which `pairs_of` are each store's and a step draws `drawn`.

    A neighbourhood has at most `most` pairs. A pair weighs so much that the weighted sum over the pairs of a step is,
    in the mean over an epoch, the mean over all pairs of a store; `weights` are the stores' shares of what is drawn.
    """
    edges = np.cumsum([0, *pairs_of])
    before_KM = np.stack([_last_seen(row_K) for row_K in index.rows_NM.T], axis=-1)  # K: the pairs of the index
    cuts = [_cut(before_KM, start, stop, (better, worse), most) for start, stop in itertools.pairwise(edges.tolist())]
    first_N, of = np.concatenate(cuts), tuple(map(len, cuts))
    pairs_N = np.diff(np.append(first_N, edges[-1]))
    mean_pairs_S = np.asarray(pairs_of) / of
    number_K = np.repeat(np.arange(first_N.size), pairs_N)
    rows, filled, places = zip(
        *(
            _share(row_K, before_K, first_N, number_K, room)
            for row_K, before_K, room in zip(index.rows_NM.T, before_KM.T, (better, worse), strict=True)
        ),
        strict=True,
    )
    pair_NP2 = np.zeros((first_N.size, most, 2), np.uint16)
    pair_NP2[number_K, np.arange(edges[-1]) - first_N[number_K]] = np.stack(places, axis=-1)
    holds_NP = np.arange(most) < pairs_N[:, None]
    weight_NP = np.where(holds_NP, np.repeat(1 / (drawn * mean_pairs_S), of)[:, None], 0).astype(np.float32)
    return Neighbourhoods(
        rows_NSM=np.concatenate(rows, axis=1)[..., None],
        pairs_N=pairs_N,
        of=of,
        pairs_per_step=float(drawn * np.dot(weights, mean_pairs_S)),
        by_element={"pair_UP2": pair_NP2, "weight_UP": weight_NP, "better_UG": filled[0], "worse_UH": filled[1]},
    )


def _last_seen(row_K: np.ndarray) -> np.ndarray:
    """Return the latest earlier pair that has the same row, -1 where there is none."""
    order_K = np.argsort(row_K, kind="stable")
    last_K = np.full(row_K.size, -1)
    same_K = row_K[order_K[1:]] == row_K[order_K[:-1]]
    last_K[order_K[1:][same_K]] = order_K[:-1][same_K]
    return last_K


def _cut(before_KM: np.ndarray, start: int, stop: int, room_M: tuple[int, int], most: int) -> np.ndarray:
    """Return the first pair of each neighbourhood among the pairs `start` .. `stop` - 1.

    Each takes pairs in their order until one brings a segment for which there is no room.
    """
    lanes = int(np.clip((stop - start) // _PAIRS_PER_LANE, 1, _LANES))
    edge = start + np.arange(lanes + 1) * (stop - start) // lanes
    first_L, stop_L = edge[:-1], edge[1:]
    found = []
    while first_L.size:
        found.append(first_L)
        pair_LP = first_L[:, None] + np.arange(most)
        new_LPM = before_KM[np.minimum(pair_LP, stop - 1)] < first_L[:, None, None]
        fits_LP = (pair_LP < stop_L[:, None]) & (new_LPM.cumsum(axis=1) <= room_M).all(axis=-1)
        first_L = first_L + fits_LP.sum(axis=1)
        left_L = first_L < stop_L
        first_L, stop_L = first_L[left_L], stop_L[left_L]
    return np.sort(np.concatenate(found))


def _share(
    row_K: np.ndarray, before_K: np.ndarray, first_N: np.ndarray, number_K: np.ndarray, room: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct rows of one member by neighbourhood (N, room), which places are filled, and each pair's."""
    new_K = before_K < first_N[number_K]
    source_K = np.where(new_K, np.arange(row_K.size), before_K)
    while not new_K[source_K].all():  # along the chain of pairs with this row, in ever longer leaps
        source_K = source_K[source_K]
    count_K = np.cumsum(new_K)
    place_K = (count_K - count_K[first_N][number_K])[source_K]
    rows_NS = np.repeat(np.asarray(row_K[first_N], np.uint32)[:, None], room, axis=1)
    rows_NS[number_K[new_K], place_K[new_K]] = row_K[new_K]
    return rows_NS, np.arange(room) < np.bincount(number_K[new_K])[:, None], place_K
