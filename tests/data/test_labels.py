"""Labels beside a store: what is written is read, by rows, and what is not this store's is refused."""

import shutil

import numpy as np
import pytest
from array_store import random_segments, write_store

from jaxbio.config.faults import UserError
from jaxbio.data.labels import (
    Label,
    count_unknown,
    count_values,
    list_labels,
    open_label,
    open_labels,
    write_labels,
)

ROWS = 12
RHYTHM = Label("rhythm", np.float32([0, 1, np.nan] * 4), ("SR", "unknown"))  # a class may have any name
AGE = Label("age", np.linspace(20, 90, ROWS).astype(np.float32))


def hashes_of(store):
    return {label.name: label.hash for label in open_labels(store, ("rhythm", "age"))}


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store", random_segments(ROWS))


def test_labels_come_back_by_row_in_the_order_asked_for(store):
    write_labels(store, [RHYTHM, AGE])
    assert list_labels(store) == ["age", "rhythm"]
    for label, written in zip(open_labels(store, ("rhythm", "age")), (RHYTHM, AGE), strict=True):
        assert label.value_R.dtype == np.float32
        np.testing.assert_array_equal(label.value_R, written.value_R)
    assert open_label(store, "rhythm").classes == ("SR", "unknown")
    assert open_label(store, "age").classes == ()


def test_a_column_of_numbers_of_the_table_is_a_label(store):
    np.testing.assert_array_equal(open_label(store, "ppg_offset").value_R, np.arange(ROWS))


def test_labels_that_the_store_lacks_are_named_together_with_what_it_has_and_what_adds_them(store):
    write_labels(store, [RHYTHM])
    with pytest.raises(UserError) as caught:
        open_labels(store, ("rhytm", "mood"))
    assert [(fault.field, fault.value) for fault in caught.value.faults] == [
        ("data.labels", "rhytm"),
        ("data.labels", "mood"),
    ]
    assert "did you mean rhythm?" in caught.value.faults[0].remedy
    assert f"python tools/add_labels.py --store {store.path} --labels FILE.csv" in str(caught.value)


def test_the_hash_follows_values_and_names_and_nothing_else(store, tmp_path):
    write_labels(store, [RHYTHM, AGE])
    before = hashes_of(store)
    write_labels(store, [RHYTHM])
    assert hashes_of(store) == before
    changed = RHYTHM.value_R.copy()
    changed[0] = np.nan
    write_labels(store, [Label("rhythm", changed, RHYTHM.classes)])
    values = hashes_of(store)
    write_labels(store, [Label("rhythm", changed, ("SR", "AF"))])
    names = hashes_of(store)
    assert len({before["rhythm"], values["rhythm"], names["rhythm"]}) == 3
    assert before["age"] == values["age"] == names["age"]


def test_a_label_of_another_store_is_refused(store, tmp_path):
    other = write_store(tmp_path / "other", random_segments(ROWS, seed=1))
    write_labels(other, [RHYTHM])
    shutil.copytree(other.path / "labels", store.path / "labels")
    with pytest.raises(UserError, match=f"store {other.hash[:12]}.*this is {store.hash[:12]}"):
        open_label(store, "rhythm")


def test_no_changed_byte_changes_a_label_unnoticed(store):
    write_labels(store, [RHYTHM])
    path = store.path / "labels" / "rhythm.parquet"
    content, refused = path.read_bytes(), []
    for place in range(0, len(content), 2):
        changed = bytearray(content)
        changed[place] ^= 1 << place // 2 % 8
        path.write_bytes(changed)
        try:
            label = open_label(store, "rhythm")
        except UserError as error:
            refused.append(str(error))
        else:  # a byte that no reader looks at
            np.testing.assert_array_equal(label.value_R, RHYTHM.value_R)
            assert label.classes == RHYTHM.classes
    assert len(refused) > len(content) // 8
    assert all("--replace" in message for message in refused)


def test_no_label_appears_where_one_of_them_cannot_be_written(store):
    (store.path / "labels" / "age.parquet").mkdir(parents=True)
    with pytest.raises(UserError, match="writable"):
        write_labels(store, [AGE, RHYTHM, Label("no/such/folder", AGE.value_R)])
    assert sorted(path.name for path in (store.path / "labels").iterdir()) == ["age.parquet"]


def test_values_are_counted_by_split_and_the_unknown_apart():
    split_R = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, -1, -1, -1])
    assert count_values(RHYTHM, split_R) == {"SR": [2, 0, 1], "unknown": [1, 1, 1]}
    assert count_unknown(RHYTHM, split_R) == [1, 1, 1]
    assert count_values(AGE, split_R) == {"numbers": [4, 2, 3]}
    zero_one = Label("af", np.float32([0, 1, 1, np.nan] * 3))
    assert count_values(zero_one, split_R) == {"0": [1, 1, 1], "1": [2, 1, 1]}
