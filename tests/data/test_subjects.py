"""Whose a recording is, and what lies in which split: no patient and no copy in two of them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from prepared import prepare, small_config, write_archive, write_mixture

from jaxbio.config.faults import UserError
from jaxbio.data.listing import find_recordings, read_subjects
from jaxbio.data.recordings import parse_source
from jaxbio.data.splits import split_of
from jaxbio.data.store import Store

RECORDINGS_MADE = 24


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return write_archive(tmp_path_factory.mktemp("source") / "archive", RECORDINGS_MADE)


@pytest.fixture(scope="module")
def store(archive, tmp_path_factory) -> Store:
    return prepare(archive, tmp_path_factory.mktemp("store") / "store")


def splits_of(store) -> dict[str, set[str]]:
    used = store.column("split") != "none"
    found: dict[str, set[str]] = {}
    for subject, split in zip(store.column("subject")[used], store.column("split")[used], strict=True):
        found.setdefault(subject, set()).add(split)
    return found


def test_no_subject_is_in_two_splits_and_every_split_has_one(store):
    found = splits_of(store)
    assert len(found) == RECORDINGS_MADE
    assert all(len(splits) == 1 for splits in found.values())
    assert set.union(*found.values()) == {"train", "validation", "test"}


def test_recording_under_two_names_is_used_once(archive, store, tmp_path):
    folder = Path(shutil.copytree(archive, tmp_path / "archive"))
    shutil.copy(folder / "r003.npz", folder / "zz.npz")
    without, store = store, prepare(folder, tmp_path / "store")
    copied = np.flatnonzero(store.column("recording") == "zz")
    original = np.flatnonzero(store.column("recording") == "r003")
    assert (store.column("split")[copied] == "none").all()
    assert not (store.column("split")[original] == "none").any()
    np.testing.assert_array_equal(store.column("duplicate_of")[copied], original)
    assert np.isnan(store.column("duplicate_of")[original]).all()
    assert store.manifest["counts"]["duplicates"] == copied.size > 0
    used = store.column("split") != "none"
    assert np.unique(store.column("fingerprint")[used]).size == used.sum()
    assert splits_of(store) == splits_of(without)


@pytest.mark.parametrize(("of_part", "of_whole"), [("train", "validation"), ("test", "train"), ("validation", "test")])
def test_a_subject_with_part_of_another_s_recording_lies_in_one_split_with_them(
    of_part, of_whole, archive, store, tmp_path, caplog
):
    folder, before = Path(shutil.copytree(archive, tmp_path / "archive")), splits_of(store)
    part, whole = (next(name for name in sorted(before) if before[name] == {split}) for split in (of_part, of_whole))
    write_mixture(folder / f"{part}.npz", folder / f"{whole}.npz", seed=99)
    store = prepare(folder, tmp_path / "store")
    after = splits_of(store)
    together = {split_of("numpy:archive", min(part, whole), small_config().prepare.split)}
    assert after == {**before, part: together, whole: together}
    assert store.manifest["counts"]["duplicates"] == 2
    assert "2 subjects hold copies of others' segments: those who do lie in one split, at most 2" in caplog.text


def test_splits_hold_when_data_is_added_later(archive, store, tmp_path):
    folder = Path(shutil.copytree(archive, tmp_path / "archive"))
    write_archive(folder, 8, first=100)
    before, after = splits_of(store), splits_of(prepare(folder, tmp_path / "store"))
    assert len(after) == RECORDINGS_MADE + 8
    assert all(after[subject] == split for subject, split in before.items())


def test_subjects_file_joins_recordings_of_one_patient(archive, tmp_path):
    file = tmp_path / "subjects.csv"
    lines = [f"numpy:archive,r{number:03d},patient{number % 6}" for number in range(RECORDINGS_MADE)]
    file.write_text("\n".join(["source,recording,subject", *lines]))
    store = prepare(archive, tmp_path / "store", subjects=read_subjects(file))
    assert set(splits_of(store)) == {f"patient{number}" for number in range(6)}
    assert all(len(splits) == 1 for splits in splits_of(store).values())
    assert store.column("subject_known").all()
    ordered = store.column("subject").tolist()
    assert ordered == sorted(ordered)  # a patient's recordings lie together


def test_subjects_file_of_other_recordings_is_refused(archive, tmp_path, caplog):
    with pytest.raises(UserError, match=r"numpy:archive,r000"):
        prepare(archive, tmp_path / "store", subjects={("wfdb:elsewhere", "r000"): "p"})
    found = find_recordings(
        [parse_source(f"numpy:{archive}")],
        small_config(),
        subjects={("numpy:archive", "r000"): "p", ("numpy:archive", "r999"): "q"},
    )
    assert found[0].subject == "p"
    assert "1 lines of --subjects name no recording" in caplog.text


def test_blanks_around_a_name_are_no_part_of_it(tmp_path):
    (tmp_path / "subjects.csv").write_text("source,recording,subject\nwfdb:a,r1,p1\n wfdb:a , r2,p1 \n")
    assert read_subjects(tmp_path / "subjects.csv") == {("wfdb:a", "r1"): "p1", ("wfdb:a", "r2"): "p1"}
    (tmp_path / "subjects.csv").write_text("source,recording,subject\nwfdb:a,r1, \n")
    with pytest.raises(UserError, match="line 2"):
        read_subjects(tmp_path / "subjects.csv")


def test_one_name_in_two_sources_is_warned_of(tmp_path, caplog):
    sources = [parse_source(f"numpy:{write_archive(tmp_path / name, 2, minutes=0.6)}") for name in ("icu", "ward")]
    one = {("numpy:icu", "r000"): "p", ("numpy:icu", "r001"): "p", ("numpy:ward", "r001"): "q"}
    find_recordings(sources, small_config(), subjects=one)
    assert "more than one source" not in caplog.text
    find_recordings(sources, small_config(), subjects={**one, ("numpy:ward", "r000"): "p"})
    assert "--subjects gives 1 names in more than one source; the first: p, in numpy:icu and numpy:ward" in caplog.text


@pytest.mark.parametrize("text", ["source,recording\na,b", "source,recording,subject\na,b,", "\x00\xff", None])
def test_subjects_file_that_is_none_is_refused(tmp_path, text):
    file = tmp_path / "subjects.csv"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="--subjects"):
        read_subjects(file)
