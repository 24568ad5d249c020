"""Who is left out of a run: the subjects of a file, and held-out ones from whom another store trains."""

import numpy as np
import pytest
from prepared import prepare, small_config, write_archive, write_mixture

from jaxbio.config.faults import UserError
from jaxbio.data import assemble, exclusion
from jaxbio.data.exclusion import find_excluded, find_leaks, find_left_out, read_exclusion
from jaxbio.data.several import Stores

SPLIT_ANOTHER_WAY = {"prepare__split": (0.2, 0.4, 0.4)}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two stores whose archives have four subjects in common by name, of other signals, and other shares of splits."""
    folder = tmp_path_factory.mktemp("exclusion")
    first = prepare(write_archive(folder / "one" / "archive", 10), folder / "A")
    other = write_archive(folder / "two" / "archive", 10, first=6)
    return Stores((first, prepare(other, folder / "B", small_config(**SPLIT_ANOTHER_WAY))), (0.5, 0.5))


def write(path, text):
    path.write_text(text)
    return path


def test_a_subject_is_left_out_by_name_or_by_source_and_name(stores, tmp_path):
    subject_R = stores.column("subject")
    for text in (
        "subject\nr001\nr012\n",
        "source,subject\nnumpy:archive,r001\n,r012\n",
        "subject,why\nr012,x\nr001,\n",
    ):
        excluded_R = find_excluded(stores, read_exclusion(write(tmp_path / "file.csv", text)))
        np.testing.assert_array_equal(excluded_R, np.isin(subject_R, ["r001", "r012"]))
    assert 0 < excluded_R.sum() < stores.rows


def test_copies_of_an_excluded_subject_s_segments_are_left_out_with_them(tmp_path, caplog):
    archive = write_archive(tmp_path / "archive", 6)
    write_mixture(archive / "a_part.npz", archive / "r002.npz", seed=99)
    store = prepare(archive, tmp_path / "store")
    subject_R, copy_R = store.column("subject"), np.isfinite(store.column("duplicate_of"))
    copied_R = np.isin(np.arange(store.rows), store.column("duplicate_of")[copy_R])
    assert set(subject_R[copy_R]) == {"r002"}
    assert set(subject_R[copied_R]) == {"a_part"}
    for subject, copies_R in (("r002", copied_R), ("a_part", copy_R)):
        file = write(tmp_path / "file.csv", f"subject\n{subject}\n")
        left_out_R = find_left_out(Stores((store,)), read_exclusion(file))
        np.testing.assert_array_equal(left_out_R, (subject_R == subject) | copies_R)
    assert caplog.text.count("2 segments of 1 other subjects are copies, and left out too") == 2


def test_whom_the_file_names_decides_its_hash_not_how(tmp_path):
    one, other, more = (
        read_exclusion(write(tmp_path / "file.csv", text))
        for text in ("subject\na\nb\n", "source,subject\n,b\n,a\n,a\n", "source,subject\nx,b\n,a\n")
    )
    assert one.hash == other.hash != more.hash


def test_strangers_are_named_with_the_nearest_subject(stores, tmp_path):
    text = "source,subject\n,r01\nnumpy:elsewhere,r001\n" + "".join(f"z,x{number}\n" for number in range(7))
    with pytest.raises(UserError) as refused:
        find_excluded(stores, read_exclusion(write(tmp_path / "file.csv", text)))
    faults = {fault.value: fault.remedy for fault in refused.value.faults}
    assert all(fault.field == "data.exclude_subjects" for fault in refused.value.faults)
    assert "did you mean numpy:archive,r01" in faults["r01"]
    assert "did you mean numpy:archive,r001" in faults["numpy:elsewhere,r001"]
    assert "4 more" in faults


def test_no_nearest_subject_is_looked_for_among_thousands(monkeypatch, stores, tmp_path):
    file = write(tmp_path / "file.csv", "subject\nr01\n")
    monkeypatch.setattr(exclusion, "_COMPARED", 5)
    with pytest.raises(UserError, match=r"r01.*is a subject of no store; subjects are spelt as in segments\.parquet"):
        find_excluded(stores, read_exclusion(file))


@pytest.mark.parametrize("text", ["source,name\na,b\n", "subject\n", "", "subject\na\n,\n", "\x00\xff", None])
def test_a_file_that_names_nobody_is_refused(tmp_path, text):
    file = tmp_path / "file.csv"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"data\.exclude_subjects"):
        read_exclusion(file)


def test_held_out_subjects_from_whom_another_store_trains_are_left_out(stores, caplog):
    split_R, subject_R, row_R = stores.column("split"), stores.column("subject"), np.arange(stores.rows)
    trained = set(subject_R[split_R == "train"])
    expected_R = (split_R == "validation") & np.isin(subject_R, list(trained))
    assert expected_R.any()
    np.testing.assert_array_equal(find_left_out(stores, None), expected_R)
    assert f"{expected_R.sum()} segments of the validation split" in caplog.text
    # of one store, here, there is none; and whoever is excluded is not trained on
    assert find_left_out(Stores(stores.stores[:1]), None) is None
    assert not find_leaks(Stores(stores.stores[:1]), np.zeros(stores.stores[0].rows, bool)).any()
    assert not find_leaks(stores, split_R == "train").any()
    assert row_R.size == stores.rows


def test_a_recording_under_another_name_is_a_leak(tmp_path):
    """The same signals: those of the subject who is held out in one store are trained on in the other."""
    first = prepare(write_archive(tmp_path / "here", 8), tmp_path / "A")
    second = prepare(write_archive(tmp_path / "there", 8), tmp_path / "B")
    stores = Stores((first, second), (0.5, 0.5))
    split_R, fingerprint_R = stores.column("split"), stores.column("fingerprint")
    trained = fingerprint_R[split_R == "train"]
    leaked_R = find_leaks(stores, np.zeros(stores.rows, bool))
    np.testing.assert_array_equal(leaked_R, (split_R == "validation") & np.isin(fingerprint_R, trained))
    assert leaked_R.any()


def test_a_store_whose_splits_were_parted_by_a_partial_copy_is_a_leak_to_itself(tmp_path, monkeypatch, caplog):
    """As stores are that were prepared before subjects with copies went into one split."""
    monkeypatch.setattr(assemble, "join_subjects", lambda code_R, _: np.arange(code_R.max() + 1))
    archive = write_archive(tmp_path / "archive", 8)
    before = prepare(archive, tmp_path / "before")
    split_of = dict(zip(before.column("subject"), before.column("split"), strict=True))
    held, trained = (next(s for s in sorted(split_of) if split_of[s] == split) for split in ("validation", "train"))
    write_mixture(archive / f"{trained}.npz", archive / f"{held}.npz", seed=99)
    store = prepare(archive, tmp_path / "store")
    split_R, subject_R = store.column("split"), store.column("subject")
    leaked_R = find_left_out(Stores((store,)), None)
    np.testing.assert_array_equal(leaked_R, (split_R == "validation") & (subject_R == held))
    assert leaked_R.any()
    assert f"{leaked_R.sum()} segments of the validation split are left out" in caplog.text
