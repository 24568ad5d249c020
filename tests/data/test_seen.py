"""What an encoder has seen, as it travels: no names, found again by subject or by segment, united over runs."""

import numpy as np
import pytest
from prepared import prepare, small_config, write_archive

from jaxbio.config.faults import UserError
from jaxbio.data.quantise import fingerprint
from jaxbio.data.seen import SEEN, UNKNOWN, Seen, hash_segments, read_seen, seen_of
from jaxbio.data.several import Stores, open_indexes


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen")
    return Stores((prepare(write_archive(folder / "archive", 10), folder / "A"),))


@pytest.fixture(scope="module")
def rows_NM(stores):
    return open_indexes(stores, small_config(), "train")[0].rows_NM


def names_of(stores, row_N):
    columns = (stores.column(name)[row_N] for name in ("source", "subject"))
    return np.array([f"{source}/{subject}" for source, subject in zip(*columns, strict=True)])


def test_seen_are_the_subjects_and_segments_of_the_pairs_and_no_others(stores, rows_NM):
    row_N, fingerprint_R = np.arange(stores.rows), stores.column("fingerprint")
    subject_N = names_of(stores, row_N)
    seen = seen_of(stores, rows_NM)
    trained = np.isin(subject_N, subject_N[np.unique(rows_NM)])
    assert 0 < trained.sum() < stores.rows
    np.testing.assert_array_equal(seen.find(subject_N, fingerprint_R), trained)
    assert seen.segment_N.size == np.unique(rows_NM).size
    assert seen.subject_S.size == len(set(subject_N[trained]))
    assert not seen.find(np.full(stores.rows, "elsewhere/x"), fingerprint_R + np.uint64(1)).any()


def test_a_subject_under_another_name_is_found_whole_by_one_of_its_segments(stores, rows_NM):
    seen = seen_of(stores, rows_NM[:1])
    fingerprint_R = stores.column("fingerprint")[[rows_NM[0, 0], stores.rows - 1, stores.rows - 2]]
    found_B = seen.find(np.array(["new/a", "new/a", "new/b"]), fingerprint_R)
    assert found_B.tolist() == [True, True, False]


def test_the_file_names_nobody_and_gives_back_what_was_written(stores, rows_NM, tmp_path):
    seen = seen_of(stores, rows_NM)
    seen.write(tmp_path / SEEN)
    found = read_seen(tmp_path / SEEN)
    np.testing.assert_array_equal(found.subject_S, seen.subject_S)
    np.testing.assert_array_equal(found.segment_N, seen.segment_N)
    assert found.complete
    content = (tmp_path / SEEN).read_bytes()
    assert not any(subject.encode() in content for subject in set(stores.column("subject")))
    assert not np.isin(stores.column("fingerprint"), found.segment_N).any()
    assert content == seen.to_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [SEEN]


def test_united_are_both_and_what_is_not_known_stays_so():
    first, second = (Seen(np.array(a, np.uint64), np.array(b, np.uint64)) for a, b in (([1, 5], [2]), ([5], [3, 9])))
    both = first.unite(second)
    assert (both.subject_S.tolist(), both.segment_N.tolist(), both.complete) == ([1, 5], [2, 3, 9], True)
    assert str(both) == "2 subjects, 3 segments"
    assert not both.unite(UNKNOWN).complete
    assert "not known" in str(both.unite(UNKNOWN))
    assert str(UNKNOWN) == "not known"


def test_a_file_that_is_none_or_salted_otherwise_is_refused(tmp_path):
    assert read_seen(tmp_path / SEEN) is UNKNOWN
    whole = Seen(np.ones(3, np.uint64), np.ones(3, np.uint64)).to_bytes()
    for content in (b"", b"PK", whole[:200], b"nonsense"):
        (tmp_path / SEEN).write_bytes(content)
        with pytest.raises(UserError, match=r"seen\.npz"):
            read_seen(tmp_path / SEEN)
    np.savez(tmp_path / SEEN, subject=[1], segment=[1], complete=True, salt=np.frombuffer(b"other", np.uint8))
    with pytest.raises(UserError, match="salt"):
        read_seen(tmp_path / SEEN)


def test_a_disk_that_refuses_is_named(tmp_path):
    with pytest.raises(UserError, match=r"seen\.npz"):
        Seen(np.ones(1, np.uint64), np.ones(1, np.uint64)).write(tmp_path / "nowhere" / SEEN)


def test_hashes_of_segments_collide_no_more_than_their_fingerprints():
    fingerprint_N = np.arange(100_000, dtype=np.uint64)
    assert np.unique(hash_segments(fingerprint_N)).size == fingerprint_N.size


def test_a_fingerprint_is_of_samples_and_scale_to_the_bit(stores):
    segment_NCT, scale_NC2 = stores.read(np.arange(stores.rows)), stores.scale_NC2
    found_N = fingerprint(segment_NCT, scale_NC2)
    np.testing.assert_array_equal(found_N, stores.column("fingerprint"))
    segment_NCT[:, 0, 7] += 1
    assert (fingerprint(segment_NCT, scale_NC2) != found_N).all()
