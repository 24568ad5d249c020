"""Neighbourhoods hold each pair of an index once, each segment once, and weigh pairs as drawing them singly does."""

import itertools

import jax
import numpy as np
import pytest
from prepared import prepare, small_config, write_archive

from jaxbio.config import fields
from jaxbio.config.command_line import load_recipe
from jaxbio.config.faults import UserError
from jaxbio.config.resolve import find_faults
from jaxbio.data.batch import batch_spec
from jaxbio.data.neighbourhoods import make_neighbourhoods
from jaxbio.data.pairs import Index
from jaxbio.training.run_data import open_run_data
from jaxbio.training.sharding import make_mesh

NEIGHBOURHOODS = {"data__batching": "neighbourhoods", "data__neighbourhood": (6, 4), "train__batch": 8}


def make_index(pairs: int, seed: int = 0, cap: int = 4) -> Index:
    """Pairs of segments at most ten apart, in the order of the first; a segment comes about `cap` times."""
    rng = np.random.default_rng(seed)
    first_K = np.sort(rng.integers(0, max(2 * pairs // cap, 1), pairs))
    rows_KM = np.stack([first_K, first_K + rng.integers(1, 11, pairs)], axis=-1)
    turned_K = rng.random(pairs) < 0.5
    rows_KM[turned_K] = rows_KM[turned_K][:, ::-1]
    return Index(np.unique(rows_KM, axis=0).astype(np.uint32), np.zeros(pairs, np.float32), "")


def pairs_of(neighbourhoods, number: int, better: int) -> np.ndarray:
    """The pairs of rows that a batch would form of a neighbourhood."""
    place_P2 = neighbourhoods.by_element["pair_UP2"][number][neighbourhoods.by_element["weight_UP"][number] > 0]
    row_S = neighbourhoods.rows_NSM[number, :, 0]
    return np.stack([row_S[:better][place_P2[:, 0]], row_S[better:][place_P2[:, 1]]], axis=-1)


@pytest.mark.parametrize(("pairs", "room"), [(1, (1, 1)), (700, (6, 4)), (20_000, (24, 16))])
def test_every_pair_is_in_one_neighbourhood_and_every_segment_in_it_once(pairs, room):
    index = make_index(pairs)
    count, most = len(index.rows_NM), 4 * room[1]
    found = make_neighbourhoods(index, (count,), (1.0,), better=room[0], worse=room[1], most=most, drawn=2)
    assert found.rows_NSM.shape == (len(found.pairs_N), sum(room), 1)
    together = [pairs_of(found, number, room[0]) for number in range(len(found.pairs_N))]
    np.testing.assert_array_equal(np.concatenate(together), index.rows_NM)
    assert found.pairs_N.max() <= most
    for number, own_K2 in enumerate(together):
        row_S = found.rows_NSM[number, :, 0]
        for member, places, there in ((0, row_S[: room[0]], "better_UG"), (1, row_S[room[0] :], "worse_UH")):
            there_S = found.by_element[there][number]
            assert sorted(places[there_S]) == sorted(set(own_K2[:, member]))
            assert set(places[~there_S]) <= {places[0]}


def test_a_neighbourhood_takes_pairs_until_one_has_no_room():
    index = make_index(3_000)
    found = make_neighbourhoods(index, (len(index.rows_NM),), (1.0,), better=6, worse=4, most=16, drawn=2)
    edges = np.cumsum([0, *found.pairs_N])
    for first, stop in itertools.pairwise(edges[:-1]):
        longer_KM = index.rows_NM[first : stop + 1]
        assert stop + 1 - first > 16 or len(set(longer_KM[:, 0])) > 6 or len(set(longer_KM[:, 1])) > 4


def test_weighted_sums_of_a_step_have_the_mean_over_all_pairs_as_expectation():
    """Also of several stores, each by its share of what is drawn."""
    first, second = make_index(900), make_index(300, seed=1, cap=2)
    rows_NM = np.concatenate([first.rows_NM, second.rows_NM + 10_000])
    sizes, weights = (len(first.rows_NM), len(second.rows_NM)), (0.75, 0.25)
    found = make_neighbourhoods(
        Index(rows_NM, np.zeros(len(rows_NM)), ""), sizes, weights, better=6, worse=4, most=16, drawn=8
    )
    loss_K = np.random.default_rng(3).normal(size=len(rows_NM))
    value_N = np.add.reduceat(loss_K, np.cumsum([0, *found.pairs_N])[:-1]) * found.by_element["weight_UP"][:, 0]
    of_store = np.split(8 * value_N, [found.of[0]])
    expected = np.split(loss_K, [sizes[0]])
    for mine, own_K in zip(of_store, expected, strict=True):
        assert mine.mean() == pytest.approx(own_K.mean(), rel=1e-5)
    drawn = 8 * sum(
        share * own.mean() for share, own in zip(weights, np.split(found.pairs_N, [found.of[0]]), strict=True)
    )
    assert found.pairs_per_step == pytest.approx(drawn)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("neighbourhoods")
    return prepare(write_archive(folder / "one", 24, minutes=8.2), folder / "A")


def batches_of(store, mesh, start_step=0, **changes):
    data = open_run_data(small_config(**NEIGHBOURHOODS, train__steps=12, data__streams=2, **changes), store.path)
    with data.batches(mesh, start_step) as batches:
        return data, [{name: np.asarray(array)[0] for name, array in batch.arrays.items()} for batch in batches]


def test_batches_hold_what_the_recipe_says_whatever_the_mesh_and_where_they_start(store):
    data, whole = batches_of(store, make_mesh(1, 1, 1, devices=jax.devices()[:1]))
    spec = batch_spec(data.config)
    for batch in whole:
        assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
            name: (array.shape, array.dtype) for name, array in spec.items()
        }
    np.testing.assert_array_equal(whole[3]["row_BM"], data.rows(3))
    np.testing.assert_array_equal(whole[3]["segment_BMCT"][:, 0], store.read(data.rows(3)[:, 0]))
    _, split = batches_of(store, make_mesh(2, 1, 1, devices=jax.devices()[:2]), 5)
    for batch, expected in zip(split, whole[5:], strict=True):
        for name, array in expected.items():
            np.testing.assert_array_equal(batch[name], array, err_msg=name)


def test_an_epoch_holds_every_pair_as_often_as_every_other(store):
    data = open_run_data(small_config(**NEIGHBOURHOODS, data__streams=2), store.path)
    steps = len(data.drawn.pairs_N) // 2  # a stream less one where their number is odd
    drawn = np.concatenate([data.order.draw(step) for step in range(steps)])
    assert len(set(drawn.tolist())) == drawn.size >= len(data.drawn.pairs_N) - 1
    assert data.pairs_per_step == pytest.approx(2 * data.drawn.pairs_N.mean())


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("data.batching", {"pairs.rule": "all_segments"}),
        ("data.curriculum", {"data.curriculum": ((1.0, 1.0),)}),
        ("train.microbatches", {"train.microbatches": 2}),
        ("train.batch", {"train.batch": 24}),
        ("train.batch", {"mesh.data": 3}),
        ("data.neighbourhood", {"data.neighbourhood": (24,)}),
    ],
)
def test_what_does_not_go_with_neighbourhoods_is_named(field, changes):
    config = fields.change(load_recipe("configs/qualityfm_base.py"), {"data.batching": "neighbourhoods"})
    assert find_faults(config) == []
    assert field in {fault.field for fault in find_faults(fields.change(config, changes))}


def test_an_objective_that_takes_rows_as_pairs_refuses_them():
    config = fields.change(load_recipe("configs/siamquality_resnet50.py"), {"data.batching": "neighbourhoods"})
    assert (
        "quality_distillation does not" in {fault.field: fault.remedy for fault in find_faults(config)}["data.batching"]
    )


def test_a_batch_that_fits_no_streams_is_named_in_segments(store):
    config = small_config(**{**NEIGHBOURHOODS, "train__batch": 12}, data__streams=2)
    with pytest.raises(UserError, match="8 or 16") as refused:
        open_run_data(config, store.path)
    assert [(fault.field, fault.value) for fault in refused.value.faults] == [("train.batch", 12)]
