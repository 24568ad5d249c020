"""What opens, reads and checks a store: every way in which its bytes can be wrong is named, and nothing else passes."""

import concurrent.futures
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from prepared import prepare, small_config, write_archive

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.data.labels import Label, list_labels, open_label, write_labels
from jaxbio.data.pairs import index_hash, make_pairs, open_index
from jaxbio.data.store import Store, StoreError, open_store
from jaxbio.data.store_files import MANIFEST, SCHEMA, TABLE


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A store of eight recordings in a few shards."""
    folder = tmp_path_factory.mktemp("made")
    prepare(write_archive(folder / "archive", 8), folder / "store")
    return folder / "store"


@pytest.fixture
def copy(made, tmp_path) -> Path:
    """A copy of that store to damage."""
    return Path(shutil.copytree(made, tmp_path / "store"))


@pytest.fixture
def store(made) -> Store:
    return open_store(made)


def test_a_store_is_shown_in_a_line(store, made):
    assert (
        repr(store)
        == f"Store({str(made)!r}: {store.rows} segments of {store.segment_s:g} s at {store.rate_hz:g} Hz, ppg, ecg)"
    )


def change_manifest(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def test_rows_come_back_in_the_order_asked_for_across_shards(store):
    assert len(store.shards) >= 3
    everything = store.read(np.arange(store.rows))
    assert everything.shape == (store.rows, 2, 9000)
    assert everything.dtype == np.int16
    asked = np.random.default_rng(0).integers(store.rows, size=64).astype(np.uint32)  # repeats included
    np.testing.assert_array_equal(store.read(asked), everything[asked])


def test_many_threads_read_what_one_reads(store):
    rng = np.random.default_rng(1)
    asked = [rng.integers(store.rows, size=16) for _ in range(40)]
    alone = [store.read(rows) for rows in asked]
    fresh = open_store(store.path)  # whose readers are opened by the threads
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for expected, found in zip(alone, pool.map(fresh.read, asked), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_store_travels_between_processes(store):
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.read([0, 1]), store.read([0, 1]))


def test_rows_outside_the_store_are_refused(store):
    for rows in ([store.rows], [-1]):
        with pytest.raises(IndexError, match=f"has {store.rows}"):
            store.read(rows)
    assert store.read([]).shape == (0, 2, 9000)


def test_table_has_a_row_for_every_record(store):
    assert store.table.num_rows == store.rows == sum(shard["records"] for shard in store.shards)
    np.testing.assert_array_equal(np.bincount(store.column("shard")), [shard["records"] for shard in store.shards])
    assert store.take(store.rows - 1)["recording"] == store.column("recording")[-1] == "r007"
    assert store.scale_NC2.shape == (store.rows, 2, 2)
    with pytest.raises(KeyError, match="no column nothing"):
        store.column("nothing")


@pytest.mark.parametrize("folder", ["", "absent", "empty"])
def test_folder_without_manifest_is_no_store_and_the_command_is_named(copy, folder):
    (copy / "empty").mkdir()
    (copy / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"tools/prepare_store\.py"):
        open_store(copy / folder)


def test_manifest_of_another_schema_or_torn_is_refused(copy):
    change_manifest(copy, schema=SCHEMA + 1)
    with pytest.raises(UserError, match=f"schema {SCHEMA + 1}"):
        open_store(copy)
    for text in ('{"schema": 1, "rate', "[]", "\x80"):
        (copy / MANIFEST).write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match="manifest"):
            open_store(copy)


def test_every_file_of_another_size_or_missing_is_named_at_once(copy, store):
    first, second = (shard["name"] for shard in store.shards[:2])
    (copy / first).unlink()
    (copy / second).write_bytes((copy / second).read_bytes()[:-1000])
    (copy / TABLE).write_bytes(b"")
    with pytest.raises(UserError) as caught:
        open_store(copy)
    named = " ".join(fault.field for fault in caught.value.faults)
    assert len(caught.value.faults) == 3
    assert all(name in named for name in (first, second, TABLE))


@pytest.mark.parametrize("which", [0, 1, TABLE])
def test_flipped_byte_is_found_by_verify_and_named(copy, store, which):
    name = which if isinstance(which, str) else store.shards[which]["name"]
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(UserError) as caught:
        open_store(copy).verify()
    assert [Path(fault.field).name for fault in caught.value.faults] == [name]


def test_flipped_byte_is_never_read_silently(copy, store):
    shard = store.shards[0]
    content = bytearray((copy / shard["name"]).read_bytes())
    damaged = open_store(copy)
    rows = np.arange(shard["records"])
    good = store.read(rows)
    outcomes = []
    for place in np.linspace(100, shard["bytes"] - 70_000, 12).astype(int):
        content[place] ^= 4
        (copy / shard["name"]).write_bytes(bytes(content))
        content[place] ^= 4
        for row in rows:
            try:
                np.testing.assert_array_equal(open_store(copy).read([row])[0], good[row])
            except StoreError as error:
                outcomes.append(shard["name"] in str(error))
    assert outcomes
    assert all(outcomes)
    assert damaged.rows == store.rows


@pytest.mark.parametrize("when", ["before it is opened", "after it was opened"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_a_truncated_shard_names_itself_and_a_row_that_is_lost(copy, share, when):
    opened = open_store(copy)
    shard, first = opened.shards[1], int(opened.first_rows[1])
    if when == "after it was opened":
        opened.read([first])
    os.truncate(copy / shard["name"], int(share * shard["bytes"]))
    rows = np.arange(opened.rows)
    with pytest.raises(StoreError) as caught:
        opened.read(rows)
    found = re.search(rf"{shard['name']}, row (\d+), number (\d+) of its records", str(caught.value))
    assert found, caught.value
    row, number = int(found[1]), int(found[2])
    assert row == first + number
    assert first <= row < int(opened.first_rows[2])
    with pytest.raises(StoreError, match=f"row {row},"):
        opened.read([row])
    with pytest.raises(UserError, match=re.escape(shard["name"])):
        open_store(copy)


# ---- what is no file in the folder of a store


def all_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def use_everything(folder: Path) -> None:
    store = open_store(folder)
    for name in list_labels(store):
        open_label(store, name)
    for split in ("train", "validation", "test"):
        open_index(store, small_config(), split)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), os.mkdir])
def test_a_pipe_a_device_or_a_folder_in_the_place_of_any_file_is_named_and_not_waited_for(copy, make):
    write_labels(open_store(copy), [Label("age", np.ones(open_store(copy).rows, np.float32))])
    files = all_files(copy)
    assert {path.suffix for path in files} == {".json", ".parquet", ".npy", ".array_record"}
    for path in files:
        path.rename(copy.parent / "kept")
        make(path)
        with pytest.raises(UserError):
            use_everything(copy)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        (copy.parent / "kept").rename(path)
    use_everything(copy)


def test_verify_passes_what_was_written(store):
    store.verify()


def test_store_of_another_model_is_refused_naming_what_differs(store):
    store.check(small_config())
    wanted = small_config(data__rate_hz=125.0, data__segment_s=10.0, data__channels=("ecg",))
    with pytest.raises(UserError) as caught:
        store.check(wanted)
    text = str(caught.value)
    assert [fault.field for fault in caught.value.faults] == ["data.rate_hz", "data.segment_s", "data.channels"]
    assert "300.0" in text
    assert "('ppg', 'ecg')" in text
    with pytest.raises(UserError, match="channels"):
        store.check(small_config(data__channels=("ecg", "ppg")))


def test_index_that_was_not_made_names_the_command(store):
    with pytest.raises(UserError, match=r"tools/make_pairs\.py"):
        open_index(store, small_config(quality__variant="author"), "train")


def test_index_of_both_variants_without_preparing_again(copy):
    store, config = open_store(copy), small_config(quality__variant="author")
    before = (copy / store.shards[0]["name"]).stat().st_mtime_ns
    name = make_pairs(store, config)
    ours, theirs = open_index(store, small_config(), "train"), open_index(store, config, "train")
    assert theirs.hash == name == index_hash(config) != ours.hash
    assert (copy / store.shards[0]["name"]).stat().st_mtime_ns == before


def test_pairs_lie_within_shard_recording_split_and_gap(store):
    found = 0
    for split in ("train", "validation", "test"):
        index = open_index(store, small_config(), split)
        found += len(index.rows_NM)
        for name in ("shard", "recording", "split"):
            value_NM = store.column(name)[index.rows_NM]
            assert (value_NM[:, 0] == value_NM[:, 1]).all()
        assert set(store.column("split")[index.rows_NM].ravel()) <= {split}
        assert (np.abs(np.diff(store.column("start_s")[index.rows_NM], axis=1)) <= 300).all()
        quality_NM = store.column("quality_waveform")[index.rows_NM]
        assert (quality_NM[:, 0] > quality_NM[:, 1]).all()
    assert found > 20


@pytest.mark.parametrize("damage", ["outside", "floats", "short", "truncated", "foreign"])
def test_index_that_does_not_belong_is_refused(copy, damage):
    store, config = open_store(copy), small_config()
    folder = copy / "index" / index_hash(config)
    rows_NM = np.load(folder / "train.npy")
    if damage == "outside":
        rows_NM[-1, 1] = store.rows
        np.save(folder / "train.npy", rows_NM)
    elif damage == "floats":
        np.save(folder / "train.npy", rows_NM.astype(np.float32))
    elif damage == "short":
        np.save(folder / "train.npy", rows_NM[:-1])
    elif damage == "truncated":
        (folder / "train.npy").write_bytes((folder / "train.npy").read_bytes()[:-3])
    else:
        rule = json.loads((folder / "rule.json").read_text())
        (folder / "rule.json").write_text(json.dumps({**rule, "store": "another"}))
    with pytest.raises(UserError, match=r"tools/make_pairs\.py"):
        open_index(store, config, "train")
    if damage == "foreign":  # made anew for this store
        make_pairs(store, config)
        assert len(open_index(store, config, "train").rows_NM) == len(rows_NM)


def test_default_fields_open_any_store_for_inspection(store):
    assert index_hash(fields.defaults()) == index_hash(small_config())
