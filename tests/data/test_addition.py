"""A store is extended without a change to what it holds; its names may go by a key; some subjects never enter it."""

import json
import logging
import os
import runpy
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from prepared import beating_signals, bytes_of, prepare, small_config, write_archive, write_mixture, write_recording

from jaxbio.config.faults import UserError
from jaxbio.data import addition
from jaxbio.data.exclusion import read_exclusion
from jaxbio.data.labels import Label, open_label, write_labels
from jaxbio.data.overlap import find_overlap
from jaxbio.data.pairs import open_index
from jaxbio.data.prepare import prepare_share, prepare_store
from jaxbio.data.pseudonyms import SubjectKey, read_key
from jaxbio.data.recordings import parse_source
from jaxbio.data.shares import parse_share
from jaxbio.data.store import open_store
from jaxbio.data.store_files import PARTS, RECORDINGS


@pytest.fixture
def archive(tmp_path) -> Path:
    return write_archive(tmp_path / "archive", 8, minutes=1.2)


def grow(archive: Path) -> None:
    """Five new recordings, one whose name comes first, a copy of an old one, and a file that is none."""
    write_archive(archive, 4, minutes=1.2, first=20)
    write_recording(archive / "a_copy.npz", beating_signals(3, 72))
    (archive / "torn.npz").write_bytes(b"PK nothing")


def test_an_extended_store_keeps_its_shards_its_rows_and_its_splits(archive, tmp_path):
    store = prepare(archive, tmp_path / "store")
    write_labels(store, [Label("age", np.arange(store.rows, dtype=np.float32))])
    before = {name: digest for name, digest in bytes_of(store.path).items() if name.endswith("array_record")}
    table = store.table.to_pylist()
    rows = list(map(str, table))  # as texts, where NaN is NaN
    grow(archive)
    bigger = prepare(archive, tmp_path / "store", adds=True)
    assert before.items() <= bytes_of(bigger.path).items()
    assert list(map(str, bigger.table.to_pylist()))[: len(table)] == rows
    assert bigger.rows == len(table) + 2 * 5
    bigger.verify()
    # Of the copy, whose name comes first, the new rows are the duplicates.
    new = bigger.table.to_pylist()[len(table) :]
    copies = [row for row in new if row["recording"] == "a_copy"]
    assert [row["split"] for row in copies] == ["none", "none"]
    assert [table[row["duplicate_of"]]["recording"] for row in copies] == ["r003", "r003"]
    np.testing.assert_array_equal(bigger.read(np.arange(len(table))), store.read(np.arange(len(table))))
    assert bigger.manifest["account"]["total_s"] == pytest.approx(8 * 72 + 5 * 72)
    assert {row["recording"] for row in pq.read_table(bigger.path / RECORDINGS).to_pylist()} >= {"torn", "r020", "r000"}
    label = open_label(bigger, "age")
    np.testing.assert_array_equal(label.value_R[: len(table)], np.arange(len(table)))
    assert np.isnan(label.value_R[len(table) :]).all()
    assert open_index(bigger, small_config(), "train").rows_NM.max() < bigger.rows
    assert not (bigger.path / PARTS).exists()
    assert prepare(archive, tmp_path / "store", adds=True).manifest == bigger.manifest  # nothing new


def test_an_added_subject_with_part_of_a_known_recording_lies_in_the_known_one_s_split(archive, tmp_path):
    """One for every known subject: some would be parted from theirs by their own hash."""
    store = prepare(archive, tmp_path / "store")
    split_of = dict(zip(store.column("subject"), store.column("split"), strict=True))
    for subject in split_of:
        write_mixture(archive / f"a_{subject}.npz", archive / f"{subject}.npz", seed=90 + int(subject[1:]))
    bigger = prepare(archive, tmp_path / "store", adds=True)
    new = [row for row in bigger.table.to_pylist() if row["recording"].startswith("a_") and row["split"] != "none"]
    assert len(new) == 2 * len(split_of)
    assert all(row["split"] == split_of[row["subject"].removeprefix("a_")] for row in new)


def test_what_is_added_and_refused_is_in_the_account(archive, tmp_path):
    before = prepare(archive, tmp_path / "store")
    (archive / "torn.npz").write_bytes(b"PK nothing")
    write_recording(archive / "flat.npz", {name: np.ones(7200, np.float32) for name in ("PLETH", "II")})
    store = prepare(archive, tmp_path / "store", adds=True)
    assert store.rows == before.rows
    assert store.manifest["account"]["rejected_s"]["constant"] == 60
    assert "torn" in pq.read_table(store.path / RECORDINGS)["recording"].to_pylist()
    assert len(store.shards) == len(before.shards) + 1
    store.verify()


def test_shares_extend_a_store_to_the_same_bytes(archive, tmp_path):
    for out in ("one", "other"):
        prepare(archive, tmp_path / out)
    grow(archive)
    prepare(archive, tmp_path / "one", adds=True)
    for share in ("1/2", "0/2"):
        sources = [parse_source(f"numpy:{archive}")]
        prepare_share(sources, small_config(), tmp_path / "other", parse_share(share), adds=True, progress=False)
    assert bytes_of(tmp_path / "other") == bytes_of(tmp_path / "one")


@pytest.mark.parametrize("moment", [0, 2])
def test_an_addition_that_was_ended_while_it_took_effect_is_finished_by_the_same_line(
    moment, archive, tmp_path, monkeypatch
):
    prepare(archive, tmp_path / "store")
    grow(archive)
    replace, moves = os.replace, []

    def end(source, target):
        if Path(source).parent.name == "addition" and Path(target).parent.name == "store":
            if len(moves) == moment:
                raise KeyboardInterrupt
            moves.append(target)
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(addition.os, "replace", end)
        with pytest.raises(KeyboardInterrupt):
            prepare(archive, tmp_path / "store", adds=True)
    if moment == 2:
        with pytest.raises(UserError, match="start the same line again"):
            open_store(tmp_path / "store")
    bigger = prepare(archive, tmp_path / "store", adds=True)
    assert bigger.rows == 16 + 10
    bigger.verify()


def test_a_store_is_extended_with_its_own_settings_and_key_alone(archive, tmp_path):
    with pytest.raises(UserError, match="no segment store"):
        prepare(archive, tmp_path / "none", adds=True)
    prepare(archive, tmp_path / "store")
    with pytest.raises(UserError, match=r"data\.rate_hz.*prepared with"):
        prepare(archive, tmp_path / "store", small_config(data__rate_hz=125.0), adds=True)
    with pytest.raises(UserError, match="--subject_key"):
        prepare(archive, tmp_path / "store", adds=True, key=SubjectKey(bytes(16)))


# ---- names


def test_renaming_the_folder_of_a_named_source_changes_no_byte(archive, tmp_path):
    stores = []
    for place in ("archive", "renamed"):
        if place != "archive":
            archive.rename(tmp_path / place)
        source = parse_source(f"ward=numpy:{tmp_path / place}")
        prepare_store([source], small_config(), tmp_path / f"store_{place}", progress=False)
        stores.append(bytes_of(tmp_path / f"store_{place}"))
    assert stores[0] == stores[1]
    assert source.name == "numpy:ward"


def test_under_a_key_nothing_in_the_store_names_a_recording(tmp_path):
    archive = write_archive(tmp_path / "archive", 3, minutes=1.2)
    for number in range(3):
        (archive / f"r{number:03d}.npz").rename(archive / f"meier{number}.npz")
    (archive / "meier_torn.npz").write_bytes(b"PK nothing")
    write_recording(archive / "meier_short.npz", beating_signals(1, 5))
    key = SubjectKey(b"a secret of a ward")
    store = prepare(archive, tmp_path / "store", key=key)
    held = b"".join(path.read_bytes() for path in sorted(store.path.rglob("*")) if path.is_file())
    assert b"meier" not in held
    assert sorted(set(store.column("recording"))) == sorted(
        key.recording("numpy:archive", f"meier{n}") for n in range(3)
    )
    assert {row["recording"] for row in pq.read_table(store.path / RECORDINGS).to_pylist()} >= {
        key.recording("numpy:archive", "meier_torn")
    }
    again = prepare(archive, tmp_path / "again", key=key)
    assert bytes_of(again.path) == bytes_of(store.path)
    other = prepare(archive, tmp_path / "other", key=SubjectKey(b"another secret of it"))
    assert not set(other.column("subject")) & set(store.column("subject"))


def test_a_key_is_long_enough_and_lies_outside_the_store(tmp_path):
    (tmp_path / "short").write_bytes(b"123456789012345")
    with pytest.raises(UserError, match="15 bytes, at least 16"):
        read_key(tmp_path / "short", tmp_path / "store")
    with pytest.raises(UserError, match=r"urandom"):
        read_key(tmp_path / "none", tmp_path / "store")
    (tmp_path / "store").mkdir()
    (tmp_path / "store/key").write_bytes(bytes(32))
    with pytest.raises(UserError, match="inside the store"):
        read_key(tmp_path / "store/key", tmp_path / "store")
    assert "123" not in repr(SubjectKey(b"1234567890123456"))


def test_excluded_subjects_never_enter_the_store_and_are_counted(archive, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "withdrawn.csv").write_text("source,subject\nnumpy:archive,r001\n,r002\n,nobody\n")
    excluded = read_exclusion(tmp_path / "withdrawn.csv", "--exclude_subjects").subjects
    store = prepare(archive, tmp_path / "store", excluded=excluded, key=SubjectKey(bytes(16)))
    assert len(set(store.column("subject"))) == 6
    assert store.manifest["account"]["rejected_s"]["excluded"] == pytest.approx(144)
    assert "leaves out 2 recordings of 2 subjects" in caplog.text
    assert "nobody" in caplog.text
    assert json.loads((store.path / "manifest.json").read_text())["subject_key"] == SubjectKey(bytes(16)).id


def test_a_table_of_names_is_hidden_as_a_preparation_hides_them(tmp_path, repository):
    main = runpy.run_path(str(repository / "tools/hide_names.py"))["main"]
    (tmp_path / "ward.key").write_bytes(bytes(16))
    (tmp_path / "labels.csv").write_text("source,recording,subject,age\ncsv:a,r1,p1,40\n,r2,p2,50\n")
    line = ["--subject_key", str(tmp_path / "ward.key"), "--table", str(tmp_path / "labels.csv"), "--out"]
    with pytest.raises(UserError, match=r"line 3.*names no source"):
        main([*line, str(tmp_path / "refused.csv")])
    main([*line, str(tmp_path / "hidden.csv"), "--source", "csv:b"])
    key = SubjectKey(bytes(16))
    assert (tmp_path / "hidden.csv").read_text().splitlines() == [
        "source,recording,subject,age",
        f"csv:a,{key.recording('csv:a', 'r1')},{key.subject('csv:a', 'p1')},40",
        f",{key.recording('csv:b', 'r2')},{key.subject('csv:b', 'p2')},50",
    ]


def test_what_two_stores_share_is_counted_by_fingerprint_and_by_subject(tmp_path):
    stores = []
    for name, first, shares in (
        ("learnt", 0, (1.0, 0.0, 0.0)),
        ("held", 4, (0.0, 1.0, 0.0)),
        ("more", 5, (1.0, 0.0, 0.0)),
    ):
        archive = write_archive(tmp_path / name / "archive", 6, minutes=1.2, first=first)
        stores.append(prepare(archive, tmp_path / f"store_{name}", small_config(prepare__split=shares)))
    learnt, held, more = stores
    assert find_overlap(learnt, held) == (4, 4, 2)  # two segments each of r004 and r005
    assert find_overlap(held, learnt) == (4, 4, 2)
    assert find_overlap(learnt, more) == (2, 0, 0)
