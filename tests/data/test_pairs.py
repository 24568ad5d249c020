"""Pairing rules against a double loop, their invariants under a cap, and the index on disk."""

import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxbio.config import fields
from jaxbio.data.pairs import (
    Rows,
    class_edges,
    class_of,
    good_bad_pairs,
    index_hash,
    make_pairs,
    neighbours,
    open_index,
    quality_class_pairs,
    select,
)
from jaxbio.data.store import Store
from jaxbio.data.store_files import TABLE

EDGES = (0.3, 0.5, 0.7, 0.9)
SLOTS = 10  # 300 s of 30-s segments


def make_rows(seed: int, size: int, *, recordings: int = 4, gap: float = 0.3) -> Rows:
    """Rows of some recordings with dropped windows, of any quality; row numbers with holes (unused rows)."""
    rng = np.random.default_rng(seed)
    recording_R = np.sort(rng.integers(recordings, size=size))
    slot_R = np.cumsum(1 + rng.poisson(gap, size=size))
    if size:  # each recording begins anew
        slot_R -= slot_R[np.searchsorted(recording_R, recording_R)]
    quality_R = rng.uniform(size=size).astype(np.float32)
    return Rows(
        row_R=np.sort(rng.choice(3 * size + 1, size=size, replace=False)),
        recording_R=recording_R,
        slot_R=slot_R,
        quality_R=quality_R,
        class_R=class_of(quality_R, EDGES),
        artefact_frac_R=np.round(rng.uniform(0, 0.2, size), 3).astype(np.float32),
    )


def all_pairs(rows: Rows, slots: int, kind_R: np.ndarray) -> set[tuple[int, int]]:
    """Every (i, j), i < j, of one recording, at most `slots` apart, of different kind; by a double loop."""
    return {
        (i, j)
        for i in range(rows.row_R.size)
        for j in range(i + 1, rows.row_R.size)
        if rows.recording_R[i] == rows.recording_R[j]
        and rows.slot_R[j] - rows.slot_R[i] <= slots
        and kind_R[i] != kind_R[j]
    }


def as_set(first_N: np.ndarray, second_N: np.ndarray) -> set[tuple[int, int]]:
    pairs = list(zip(first_N.tolist(), second_N.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert pairs == sorted(pairs)
    return set(pairs)


tables = st.builds(make_rows, st.integers(0, 10**6), st.integers(0, 60), recordings=st.integers(1, 5))


@settings(max_examples=25, deadline=None)
@given(tables, st.integers(0, 12))
def test_without_a_cap_every_pair_of_the_double_loop_is_made(rows, slots):
    assert as_set(*neighbours(rows, slots, rows.class_R, None)) == all_pairs(rows, slots, rows.class_R)


@settings(max_examples=25, deadline=None)
@given(tables, st.integers(1, 5))
def test_cap_holds_and_leaves_out_only_what_nearer_pairs_displaced(rows, cap):
    taken = as_set(*neighbours(rows, SLOTS, rows.class_R, cap))
    possible = all_pairs(rows, SLOTS, rows.class_R)
    gaps = {place: [] for place in range(rows.row_R.size)}
    for i, j in taken:
        gaps[i].append(rows.slot_R[j] - rows.slot_R[i])
        gaps[j].append(rows.slot_R[j] - rows.slot_R[i])
    assert taken <= possible
    assert all(len(found) <= cap for found in gaps.values())
    for i, j in possible - taken:
        gap = rows.slot_R[j] - rows.slot_R[i]
        assert any(len(gaps[k]) == cap and max(gaps[k]) <= gap for k in (i, j))


@settings(max_examples=25, deadline=None)
@given(tables)
def test_better_member_comes_first_and_classes_differ(rows):
    rows_NM, difficulty_N = quality_class_pairs(rows, SLOTS, 4)
    place_NM = np.searchsorted(rows.row_R, rows_NM)
    assert rows_NM.dtype == np.uint32
    assert difficulty_N.dtype == np.float32
    assert (rows.class_R[place_NM[:, 0]] > rows.class_R[place_NM[:, 1]]).all()
    assert (rows.recording_R[place_NM[:, 0]] == rows.recording_R[place_NM[:, 1]]).all()
    assert (np.abs(np.diff(rows.slot_R[place_NM], axis=1)) <= SLOTS).all()
    np.testing.assert_array_equal(difficulty_N, rows.quality_R[place_NM[:, 0]] - rows.quality_R[place_NM[:, 1]])
    assert (np.diff(rows_NM.min(axis=1).astype(np.int64)) >= 0).all()  # in shard order


@settings(max_examples=25, deadline=None)
@given(tables, st.integers(1, 4))
def test_good_bad_caps_the_good_segments_only(rows, cap):
    rows_NM, difficulty_N = good_bad_pairs(rows, SLOTS, cap, 0.05)
    place_NM = np.searchsorted(rows.row_R, rows_NM)
    good_R = rows.artefact_frac_R <= 0.05
    assert good_R[place_NM[:, 0]].all()
    assert not good_R[place_NM[:, 1]].any()
    np.testing.assert_array_equal(difficulty_N, rows.artefact_frac_R[place_NM[:, 1]])
    possible = all_pairs(rows, SLOTS, good_R)
    for good in np.flatnonzero(good_R):
        near = sorted(abs(rows.slot_R[i] - rows.slot_R[j]) for i, j in possible if good in (i, j))
        mine = place_NM[place_NM[:, 0] == good]
        found = sorted(abs(np.diff(rows.slot_R[mine], axis=1)[:, 0]).tolist())
        assert found == near[:cap]


def test_gap_is_that_of_time_stamps_not_of_kept_windows():
    # Nine kept windows on, but 600 s apart: the published rule would pair them.
    start_s = np.array([0.0, 600.0])
    rows = Rows(
        row_R=np.arange(2),
        recording_R=np.zeros(2, int),
        slot_R=(start_s / 30).astype(int),
        quality_R=np.array([0.95, 0.1], np.float32),
        class_R=np.array([4, 0], np.int8),
        artefact_frac_R=np.zeros(2, np.float32),
    )
    assert len(quality_class_pairs(rows, SLOTS, None)[0]) == 0
    assert len(quality_class_pairs(rows, 20, None)[0]) == 1


def test_score_on_an_edge_belongs_to_the_class_above():
    quality_R = np.array([0.0, 0.29999, 0.3, 0.5, 0.7, 0.9, 1.0], np.float32)
    np.testing.assert_array_equal(class_of(quality_R, EDGES), [0, 0, 1, 2, 3, 4, 4])


def test_quantile_edges_give_the_shares_that_were_asked_for():
    config = fields.change(
        fields.defaults(), {"pairs.class_edges_as": "quantiles", "pairs.class_edges": (0.1, 0.3, 0.5, 0.8)}
    )
    quality_R = np.random.default_rng(0).uniform(0.97, 1.0, 10_000).astype(np.float32)  # all Excellent by value
    share = np.bincount(class_of(quality_R, class_edges(quality_R, config))) / quality_R.size
    np.testing.assert_allclose(share, [0.1, 0.2, 0.2, 0.3, 0.2], atol=0.01)


def test_all_segments_index_has_one_member():
    config = fields.change(fields.defaults(), {"pairs.rule": "all_segments"})
    rows = make_rows(0, 50)
    rows_NM, difficulty_N = select(rows, config, 30.0)
    np.testing.assert_array_equal(rows_NM[:, 0], rows.row_R)
    np.testing.assert_array_equal(difficulty_N, 1 - rows.quality_R)


def test_same_segment_pairs_every_used_row_with_itself():
    config = fields.change(fields.defaults(), {"pairs.rule": "same_segment"})
    rows = make_rows(0, 50)
    rows_NM, difficulty_N = select(rows, config, 30.0)
    assert rows_NM.dtype == np.uint32
    np.testing.assert_array_equal(rows_NM, np.stack([rows.row_R, rows.row_R], axis=1))
    np.testing.assert_array_equal(difficulty_N, 1 - rows.quality_R)


def test_index_hash_follows_pairs_fields_and_variant_and_nothing_else():
    changes = [
        {"quality.variant": "author"},
        {"pairs.max_per_segment": None},
        {"pairs.max_gap_s": 120.0},
        {"pairs.rule": "good_bad"},
        {"pairs.class_edges_as": "quantiles"},
    ]
    hashes = {index_hash(fields.change(fields.defaults(), change)) for change in [{}, *changes]}
    assert len(hashes) == 6
    assert index_hash(fields.change(fields.defaults(), {"train.seed": 5, "prepare.block_h": 3.0})) in hashes


def test_rule_over_two_million_rows_takes_at_most_six_seconds():
    rows = make_rows(1, 2_000_000, recordings=20_000, gap=0.2)
    began_s = time.process_time()
    rows_NM, _ = quality_class_pairs(rows, SLOTS, 4)
    spent_s = time.process_time() - began_s
    assert len(rows_NM) > 3_000_000
    assert spent_s <= 6, f"{spent_s:.1f} s"


@pytest.mark.slow
def test_index_of_a_two_million_row_store_takes_at_most_six_seconds(tmp_path):
    """From the table on disk to the index on disk."""
    rows = make_rows(2, 2_000_000, recordings=20_000, gap=0.2)
    size = rows.row_R.size
    recordings = pa.DictionaryArray.from_arrays(
        rows.recording_R.astype(np.int32), [f"r{number}" for number in range(20_000)]
    )
    split = pa.DictionaryArray.from_arrays((rows.recording_R % 10 == 0).astype(np.int32), ["train", "validation"])
    table = {
        "shard": (rows.recording_R // 100).astype(np.int32),
        "source": pa.array(["s"] * size).dictionary_encode(),
        "recording": recordings,
        "start_s": rows.slot_R * 30.0,
        "split": split,
        "quality_waveform": rows.quality_R,
        "artefact_frac": rows.artefact_frac_R,
    }
    pq.write_table(pa.table(table), tmp_path / TABLE)
    store = Store(tmp_path, {"hash": "h", "rate_hz": 300.0, "length": 9000, "shards": [{"records": size}]})
    began_s = time.process_time()
    make_pairs(store, fields.defaults())
    spent_s = time.process_time() - began_s
    counts = [len(open_index(store, fields.defaults(), split).rows_NM) for split in ("train", "validation", "test")]
    assert min(counts[:2]) > 100_000
    assert spent_s <= 6, f"{spent_s:.1f} s"
