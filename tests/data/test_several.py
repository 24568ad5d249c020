"""Several stores as one: what is read by a row of the view is what its store holds, whatever reads it."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from array_store import neighbours, random_segments, write_store
from prepared import prepare, small_config, write_archive

from jaxbio.config.faults import UserError
from jaxbio.data import several
from jaxbio.data.loader import make_loader
from jaxbio.data.order import make_order
from jaxbio.data.pairs import open_index
from jaxbio.data.several import Stores, open_indexes, open_stores

SIZES = (600, 90, 300)


@pytest.fixture(scope="module")
def segments():
    return [random_segments(rows, seed=number) for number, rows in enumerate(SIZES)]


@pytest.fixture(scope="module")
def parts(tmp_path_factory, segments):
    folder = tmp_path_factory.mktemp("several")
    return [write_store(folder / f"store{number}", array) for number, array in enumerate(segments)]


@pytest.fixture(scope="module")
def stores(parts):
    return open_stores([(str(store.path), weight) for store, weight in zip(parts, (0.5, 0.2, 0.3), strict=True)])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two prepared stores of subjects of two archives."""
    folder = tmp_path_factory.mktemp("prepared")
    first = prepare(write_archive(folder / "one", 8), folder / "A")
    return first, prepare(write_archive(folder / "two", 6, first=50), folder / "B")


def test_a_row_of_the_view_is_the_row_of_its_store(stores, parts, segments):
    assert stores.rows == sum(SIZES)
    row_N = np.random.default_rng(0).permutation(stores.rows).astype(np.uint32)
    np.testing.assert_array_equal(stores.read(row_N), np.concatenate(segments)[row_N])
    np.testing.assert_array_equal(stores.scale_NC2, np.concatenate([store.scale_NC2 for store in parts]))
    assert stores.store_of(np.array([0, 599, 600, 689, 690, 989])).tolist() == [0, 0, 1, 1, 2, 2]
    assert stores.read(row_N[:0]).shape == (0, 2, 50)
    with pytest.raises(IndexError, match="990"):
        stores.read([3, 990])


def test_columns_are_joined_and_texts_keep_their_meaning(prepared):
    stores = Stores(prepared, (0.5, 0.5))
    for name in ("start_s", "quality_waveform", "source", "subject"):
        np.testing.assert_array_equal(stores.column(name), np.concatenate([store.column(name) for store in prepared]))
    code_R, texts = stores.codes("recording")
    np.testing.assert_array_equal(np.array(texts, object)[code_R], stores.column("recording"))
    assert len(set(texts)) == len(texts)
    assert stores.has_column("split")
    assert not stores.has_column("nonsense")


@pytest.mark.parametrize("cache", ["none", "host"])
def test_a_batch_of_several_stores_holds_their_segments_on_every_host(stores, segments, tmp_path, cache):
    index = neighbours(sum(SIZES))
    order = make_order((600, 90, len(index.rows_NM) - 690), 64, streams=64, seed=0, weights=stores.weights)
    options = {"cache": cache, "cache_dir": tmp_path / "cache", "stop_step": 3}
    whole = list(make_loader(stores, index, order, **options))
    for step, batch in enumerate(whole):
        row_BM = index.rows_NM[order.draw(step)]
        np.testing.assert_array_equal(batch.arrays["row_BM"], row_BM)
        np.testing.assert_array_equal(batch.arrays["segment_BMCT"], np.concatenate(segments)[row_BM])
        np.testing.assert_array_equal(batch.arrays["scale_BMC2"], stores.scale_NC2[row_BM])
    held = np.arange(64).reshape(8, 8)[1::3].reshape(-1)
    for batch, expected in zip(make_loader(stores, index, order, positions=held, **options), whole, strict=True):
        assert batch.rows_crc32 == expected.rows_crc32
        np.testing.assert_array_equal(batch.arrays["segment_BMCT"], expected.arrays["segment_BMCT"][held])


def test_the_checksum_of_rows_tells_stores_and_weights_apart(parts, stores):
    index, order = neighbours(300), make_order(len(neighbours(300).rows_NM), 8, streams=8, seed=0)

    def crc32(store):
        with make_loader(store, index, order, stop_step=1) as loader:
            return next(loader).rows_crc32

    same_rows = zlib.crc32(index.rows_NM[order.draw(0)].astype("<u4").tobytes(), zlib.crc32(parts[0].hash.encode()))
    assert crc32(parts[0]) == crc32(Stores((parts[0],))) == same_rows
    others = [crc32(parts[2]), crc32(stores), crc32(replace(stores, weights=(0.4, 0.3, 0.3)))]
    assert len({same_rows, *others}) == 4


def test_the_hash_is_of_stores_order_and_weights(parts, stores):
    assert Stores((parts[0],)).hash == parts[0].hash
    again = Stores(tuple(parts), (0.5, 0.2, 0.3))
    others = (replace(again, weights=(0.2, 0.5, 0.3)), replace(again, stores=(parts[1], parts[0], parts[2])))
    assert stores.hash == again.hash
    assert len({again.hash, *(other.hash for other in others)}) == 3


def test_faults_of_all_stores_come_together(parts, tmp_path):
    with pytest.raises(UserError) as refused:
        open_stores([(str(tmp_path / "one"), 0.3), (str(parts[0].path), 0.3), (str(tmp_path / "two"), 0.4)])
    assert [fault.value for fault in refused.value.faults] == [str(tmp_path / "one"), str(tmp_path / "two")]


def test_stores_of_another_rate_length_or_channels_are_named(tmp_path):
    parts = [write_store(tmp_path / "fast", random_segments(9), rate_hz=20.0)]
    parts += [write_store(tmp_path / "single", random_segments(9, channels=1))]
    parts += [write_store(tmp_path / "right", random_segments(9))]
    config = small_config(data__rate_hz=10.0, data__segment_s=5.0)
    with pytest.raises(UserError) as refused:
        Stores(tuple(parts), (0.3, 0.3, 0.4)).check(config)
    named = [(fault.field, "fast" if "fast" in fault.remedy else "single") for fault in refused.value.faults]
    assert named == [("data.rate_hz", "fast"), ("data.segment_s", "fast"), ("data.channels", "single")]


def test_one_store_under_two_names_is_refused(parts):
    (parts[0].path.parent / "linked").symlink_to(parts[0].path)
    with pytest.raises(UserError, match="the same store"):
        open_stores([(str(parts[0].path), 0.5), (str(parts[0].path.parent / "linked"), 0.5)])


def test_more_rows_than_an_index_can_number_are_refused(parts, monkeypatch):
    monkeypatch.setattr(several, "_MOST_ROWS", 690)
    assert open_stores(parts[0].path).rows == 600
    with pytest.raises(UserError, match="at most 689"):
        open_stores([(str(parts[0].path), 0.5), (str(parts[1].path), 0.5)])


def test_pairs_are_numbered_store_after_store_and_left_out_rows_are_in_none(prepared):
    config, stores = small_config(), Stores(prepared, (0.5, 0.5))
    own = [open_index(store, config, "train") for store in prepared]
    index, pairs_of = open_indexes(stores, config, "train")
    assert pairs_of == tuple(len(part.rows_NM) for part in own)
    assert min(pairs_of) > 0
    shifted_NM = np.concatenate([own[0].rows_NM, own[1].rows_NM + prepared[0].rows])
    np.testing.assert_array_equal(index.rows_NM, shifted_NM)
    np.testing.assert_array_equal(index.difficulty_N, np.concatenate([part.difficulty_N for part in own]))
    assert index.rows_NM.dtype == np.uint32

    left_out_R = np.zeros(stores.rows, bool)
    left_out_R[index.rows_NM[[0, -1], 1]] = True
    kept, kept_of = open_indexes(stores, config, "train", left_out_R)
    np.testing.assert_array_equal(kept.rows_NM, shifted_NM[~left_out_R[shifted_NM].any(axis=1)])
    assert sum(kept_of) == len(kept.rows_NM) == len(kept.difficulty_N) < sum(pairs_of)
