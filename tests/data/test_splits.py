"""Splits: a function of source and subject alone, and none empty where subjects suffice."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxbio.data.splits import SPLITS, assign_splits, split_of, unit_hash

SHARES = (0.90, 0.05, 0.05)
PINNED = ["train", "test", "test", "train", "train", "test", "validation", "test"]


def test_shares_come_out_over_many_subjects():
    counts = Counter(split_of("wfdb:archive", f"p{number:06d}", SHARES) for number in range(20_000))
    for split, share in zip(SPLITS, SHARES, strict=True):
        assert counts[split] / 20_000 == pytest.approx(share, abs=0.01)


def test_split_is_pinned_for_every_future_version():
    # Another salt or hash would move patients between the splits of stores that exist.
    assert [split_of("wfdb:mimic", f"p{number:06d}", (0.4, 0.3, 0.3)) for number in range(8)] == PINNED


@settings(max_examples=25, deadline=None)
@given(st.sets(st.text(min_size=1, max_size=5), min_size=1, max_size=40), st.sets(st.text(min_size=1), max_size=10))
def test_adding_data_moves_no_subject_whose_split_was_its_own(subjects, added):
    before, moves = assign_splits([("s", name) for name in subjects], SHARES)
    after, later = assign_splits([("s", name) for name in subjects | added], SHARES)
    moved = {(move["source"], move["subject"]) for move in (*moves, *later)}
    assert all(after[name] == split for name, split in before.items() if name not in moved)


def test_empty_split_gets_the_smallest_hash_and_the_move_is_told(caplog):
    subjects = [("s", name) for name in "abcdefgh"]
    ours = [subject for subject in subjects if split_of(*subject, (0.999, 0.0005, 0.0005)) == "train"]
    assigned, moves = assign_splits(ours, (0.999, 0.0005, 0.0005))
    smallest = sorted(ours, key=lambda subject: unit_hash(*subject))[:2]
    assert [(move["subject"], move["to"]) for move in moves] == [
        (smallest[0][1], "validation"),
        (smallest[1][1], "test"),
    ]
    assert set(assigned.values()) == set(SPLITS)
    assert "would be empty" in caplog.text


def test_share_of_zero_stays_empty_and_a_single_subject_stays():
    assigned, moves = assign_splits([("s", name) for name in "abcdefgh"], (1.0, 0.0, 0.0))
    assert set(assigned.values()) == {"train"}
    assert not moves
    assigned, moves = assign_splits([("s", "only")], SHARES)
    assert len(assigned) == 1
    assert not moves


def test_joined_subjects_go_where_the_first_of_them_goes_and_move_together():
    subjects = [("s", name) for name in "abcdefgh"]
    joined = [[("s", "h"), ("s", "b"), ("r", "a")], [("s", "c"), ("s", "d")]]
    alone, _ = assign_splits(subjects, (0.4, 0.3, 0.3))
    assigned, _ = assign_splits(subjects, (0.4, 0.3, 0.3), joined=joined)
    assert assigned == {**alone, ("s", "h"): alone["s", "b"], ("s", "d"): alone["s", "c"]}  # r, a has nothing in use
    ours = [("s", name) for name in "abcdefgh" if split_of("s", name, (0.999, 0.0005, 0.0005)) == "train"]
    first, second, *others = sorted(ours, key=lambda subject: unit_hash(*subject))
    assigned, moves = assign_splits(ours, (0.999, 0.0005, 0.0005), joined=[sorted([first, others[-1]])])
    leader = min(first, others[-1])
    assert assigned[first] == assigned[others[-1]]
    assert set(assigned.values()) == set(SPLITS)
    assert {(move["source"], move["subject"]) for move in moves} <= {leader, second, *others}


def test_of_joined_subjects_the_known_ones_stay_and_the_others_follow_them():
    joined = [[("s", "new"), ("s", "a"), ("s", "b")], [("s", "other"), ("s", "c")]]
    known = {("s", "a"): "test", ("s", "b"): "train", ("s", "c"): "validation"}
    assigned, moves = assign_splits([*known, ("s", "new"), ("s", "other")], SHARES, known, joined)
    assert assigned == {**known, ("s", "new"): "train", ("s", "other"): "validation"}
    assert not moves


def test_names_that_join_alike_are_different_subjects():
    assert unit_hash("a", "bc") != unit_hash("ab", "c")
