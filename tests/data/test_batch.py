"""The specification of a batch is what the loader delivers, array by array."""

import numpy as np
import pytest
from array_store import neighbours, random_segments, write_store

from jaxbio.config import fields
from jaxbio.data.batch import arrays_by_row, batch_spec, random_batch
from jaxbio.data.labels import open_labels
from jaxbio.data.loader import make_loader
from jaxbio.data.order import make_order

SMALL = {"data.rate_hz": 10.0, "data.segment_s": 5.0, "train.batch": 64}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("batch") / "store", random_segments(600))


def config_of(**changes):
    return fields.change(fields.defaults(), SMALL | {name.replace("__", "."): value for name, value in changes.items()})


def by_row_of(store, config):
    return arrays_by_row(store, config, open_labels(store, config.data.labels))


def described(arrays):
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


@pytest.mark.parametrize(
    "changes", [{}, {"prepare__missing_channel": "mask", "data__labels": ("ppg_offset", "ecg_gain")}]
)
def test_the_loader_delivers_the_arrays_of_the_specification_and_no_others(store, changes):
    config, index = config_of(**changes), neighbours(600)
    order = make_order(len(index.rows_NM), 64, streams=32, seed=0)
    with make_loader(store, index, order, by_row=by_row_of(store, config)) as loader:
        assert described(next(loader).arrays) == described(batch_spec(config))
    assert described(random_batch(config, np.random.default_rng(0))) == described(batch_spec(config))


def test_every_host_gets_the_labels_of_its_rows_in_the_recipes_order(store):
    """`ppg_offset` is the row's number and `ecg_gain` is 2, in this store; eight devices dealt to two hosts in turn."""
    config, index = config_of(data__labels=("ecg_gain", "ppg_offset")), neighbours(600)
    order = make_order(len(index.rows_NM), 64, streams=32, seed=0)
    of_device = np.arange(64).reshape(8, -1)
    for positions in (None, of_device[0::2].reshape(-1), of_device[1::2].reshape(-1)):
        with make_loader(store, index, order, by_row=by_row_of(store, config), positions=positions) as loader:
            arrays = next(loader).arrays
        row_BM = index.rows_NM[order.draw(0)][slice(None) if positions is None else positions]
        expected = np.stack([np.full(row_BM.shape, 2), row_BM], axis=-1)
        np.testing.assert_array_equal(arrays["label_BMK"], expected)


def test_single_segments_have_one_member():
    assert batch_spec(config_of(pairs__rule="all_segments"))["segment_BMCT"].shape == (64, 1, 2, 50)


def test_a_specification_counts_its_bytes():
    spec = batch_spec(config_of())
    assert spec["segment_BMCT"].nbytes == random_batch(config_of(), np.random.default_rng(0))["segment_BMCT"].nbytes


def test_a_table_without_columns_of_presence_says_that_every_channel_is_there(store):
    np.testing.assert_array_equal(store.present_NC, np.ones((600, 2), bool))
