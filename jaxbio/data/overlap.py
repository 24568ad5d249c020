"""What two stores have in common: segments, by their fingerprints, and subjects whom one trains on and the other holds.

overlap = find_overlap(open_store("A"), open_store("B"))
"""

from typing import NamedTuple

import numpy as np

from jaxbio.data.pairs import split_codes
from jaxbio.data.seen import are_among
from jaxbio.data.splits import SPLITS
from jaxbio.data.store import Store, subject_codes


class Overlap(NamedTuple):
    """Counted in the first store: segments of the second, those of them that cross splits, and subjects that do.

    Crossing: for training in one, for validation or test in the other. A subject is the same by source and name.
    """

    segments: int
    crossing_segments: int
    crossing_subjects: int


def find_overlap(store: Store, other: Store) -> Overlap:
    """Return what `store` shares with `other`, of the segments that either uses."""
    train, held = [SPLITS.index("train")], [SPLITS.index(split) for split in SPLITS if split != "train"]
    used = [SPLITS.index(split) for split in SPLITS]
    crossing = [_common(store, train, other, held), _common(store, held, other, train)]
    subjects = _subjects(store, train) & _subjects(other, held) | _subjects(store, held) & _subjects(other, train)
    return Overlap(_common(store, used, other, used), sum(crossing), len(subjects))


def _common(store: Store, splits: list[int], other: Store, others: list[int]) -> int:
    """Return how many segments of `store` in `splits` are segments of `other` in `others`."""
    mine_N, theirs_N = (
        one.column("fingerprint")[np.isin(split_codes(one), codes)] for one, codes in ((store, splits), (other, others))
    )
    return int(are_among(np.sort(theirs_N), mine_N).sum())


def _subjects(store: Store, splits: list[int]) -> set[tuple[str, str]]:
    code_R, names = subject_codes(store)
    return {names[code] for code in np.unique(code_R[np.isin(split_codes(store), splits)]).tolist()}
