"""Which subject is for training, validation or test: a function of its name alone.

So a subject keeps its split when data is added, and between stores. Subjects who turn out to be one patient go
together, by the name of one of them. It knows nothing of signals.

    split_of("wfdb:mimic3wdb", "p000194", (0.90, 0.05, 0.05))
"""

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

SPLITS = ("train", "validation", "test")
UNUSED = "none"  # duplicates of a segment that is used
_SALT = "jaxbio splits 1"  # project-wide: another salt would move subjects between the splits of existing stores

Subject = tuple[str, str]


def unit_hash(source: str, subject: str) -> float:
    """Return the subject's number in [0, 1), uniform over subjects and the same everywhere."""
    text = "\0".join((_SALT, source, subject)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big") / 2**48


def split_of(source: str, subject: str, shares: Sequence[float]) -> str:
    """Return the split of a subject; `shares` are those of train, validation and test and sum to 1."""
    position, edge = unit_hash(source, subject), 0.0
    for split, share in zip(SPLITS, shares, strict=True):
        edge += share
        if position < edge:
            return split
    return max(zip(shares, SPLITS, strict=True))[1]  # rounding left a sliver above the last edge


def assign_splits(
    subjects: Iterable[Subject],
    shares: Sequence[float],
    known: Mapping[Subject, str] | None = None,
    joined: Sequence[Collection[Subject]] = (),
) -> tuple[dict[Subject, str], list[dict[str, str]]]:
    """Return the split of every (source, subject), and the moves that fill splits which would be empty.

    An empty split of a share above 0 gets the subject with the smallest hash among those whose own split keeps another
    one; a store of fewer subjects than splits leaves splits empty. Each case is a warning in the log. Where a store is
    extended, `known` are the splits of those whom it has: they stay, and nobody is moved. Each of `joined` are subjects
    who are one patient: all of them go where the first of `subjects` among them goes, or whom `known` has; where it has
    them in several splits, to the first, train before the others, so that nobody is held out from whom train learns.
    """
    wanted = sorted(set(subjects))
    leader_of = _leaders(wanted, joined)
    assigned = {leader: split_of(*leader, shares) for leader in sorted(set(leader_of.values()))}
    if known:
        settled = _settled(known, joined)
        return {subject: settled.get(subject, assigned[leader_of[subject]]) for subject in wanted}, []
    moves = _fill_empty(assigned, shares)
    return {subject: assigned[leader_of[subject]] for subject in wanted}, moves


def _leaders(wanted: Sequence[Subject], joined: Sequence[Collection[Subject]]) -> dict[Subject, Subject]:
    """Return by whose name the split of each of `wanted`, which are sorted, is decided."""
    leader_of = {subject: subject for subject in wanted}
    for group in joined:
        members = sorted(leader_of.keys() & group)
        leader_of |= {subject: members[0] for subject in members}
    return leader_of


def _settled(known: Mapping[Subject, str], joined: Sequence[Collection[Subject]]) -> dict[Subject, str]:
    """Return the splits of `known`, and of those who are joined to them."""
    settled: dict[Subject, str] = {}
    for group in joined:
        splits = {known[subject] for subject in group if subject in known}
        if splits:
            settled |= dict.fromkeys(group, min(splits, key=SPLITS.index))
    return {**settled, **known}


def _fill_empty(assigned: dict[Subject, str], shares: Sequence[float]) -> list[dict[str, str]]:
    """Move subjects of `assigned` into splits that are empty, and return the moves."""
    moves = []
    for split, share in zip(SPLITS, shares, strict=True):
        if share <= 0 or split in assigned.values() or not assigned:
            continue
        chosen = _smallest_movable(assigned)
        if chosen is None:
            logging.warning("split %s stays empty: the store has too few subjects", split)
            continue
        logging.warning("split %s would be empty: subject %s of %s moves there", split, chosen[1], chosen[0])
        moves.append({"source": chosen[0], "subject": chosen[1], "from": assigned[chosen], "to": split})
        assigned[chosen] = split
    return moves


def _smallest_movable(assigned: Mapping[Subject, str]) -> Subject | None:
    sizes = {split: list(assigned.values()).count(split) for split in SPLITS}
    movable = [subject for subject, split in assigned.items() if sizes[split] > 1]
    return min(movable, key=lambda subject: unit_hash(*subject), default=None)
