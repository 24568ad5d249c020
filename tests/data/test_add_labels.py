"""tools/add_labels.py: what it makes of a table, and that it names everything wrong with one before it writes."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from prepared import bytes_of, prepare, write_archive

from jaxbio.config.faults import UserError
from jaxbio.data.labels import list_labels, open_label
from jaxbio.data.store import Store, open_store

HEAD = "source,recording,start_s,end_s"
A, B, SHORT = "numpy:archive,r000", "numpy:archive,r001", "numpy:archive,r010"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Six recordings of four segments (0, 30, 60, 90 s), and one that was too short."""
    folder = tmp_path_factory.mktemp("made")
    archive = write_archive(folder / "archive", 6)
    write_archive(archive, 1, minutes=0.2, first=10)
    prepare(archive, folder / "store")
    return folder / "store"


@pytest.fixture
def store(made) -> Store:
    yield open_store(made)
    for path in (made / "labels").glob("*"):
        path.unlink()


@pytest.fixture
def add(store, repository, tmp_path):
    main = runpy.run_path(str(repository / "tools/add_labels.py"))["main"]

    def call(*lines: str, flags: tuple[str, ...] = (), head: str = HEAD, encoding: str = "utf-8"):
        path = tmp_path / "labels.csv"
        path.write_text("\n".join((head, *lines)) + "\n", encoding=encoding)
        return main(["--store", str(store.path), "--labels", str(path), *flags])

    return call


def faults_of(call) -> dict[str, str]:
    with pytest.raises(UserError) as caught:
        call()
    return {fault.field.partition("labels.csv, ")[2] or fault.field: str(fault) for fault in caught.value.faults}


def values_of(store, name, recording):
    label = open_label(store, name)
    return label.value_R[store.column("recording") == recording].tolist()


def test_recordings_and_spans_become_values_of_segments(store, add):
    lines = (f"{A},,,63,", f"{A},0,50,,SR", f"{A},50,200,,AF", f"{B},,45,41.5, AF ", f"{B},100,,,SR")
    said = add(*lines, head=HEAD + ",age,rhythm")
    assert values_of(store, "age", "r000") == [63] * 4
    assert open_label(store, "rhythm").classes == ("AF", "SR")
    assert values_of(store, "rhythm", "r000") == [1, 1, 0, 0]  # 30 to 60 s: 20 s of SR
    np.testing.assert_array_equal(values_of(store, "rhythm", "r001"), [0, np.nan, np.nan, 1])  # 30 to 60 s: 15 s of AF
    np.testing.assert_array_equal(values_of(store, "age", "r001"), [41.5, np.nan, np.nan, np.nan])
    assert said["lines"] == 5
    assert said["labels"]["rhythm"] == {"segments": 6, "unknown": 18, "undecided": 1, "values": {"AF": 3, "SR": 3}}
    assert said["labels"]["age"] == {"segments": 5, "unknown": 19, "undecided": 1, "values": {"41.5": 1, "63": 4}}


def test_nothing_of_the_store_changes_but_the_labels(store, add, capsys):
    before = bytes_of(store.path)
    add(f"{A},,,1", head=HEAD + ",af")
    assert capsys.readouterr().err.rstrip().endswith(f"inspect_store.py {store.path}")
    after = bytes_of(store.path)
    assert after.keys() - before.keys() == {"labels/af.parquet"}
    assert before.items() <= after.items()
    assert open_store(store.path).hash == store.hash


def test_stated_classes_keep_their_order_and_may_look_like_numbers(store, add):
    lines = (f"{A},,,426783006,x", f"{B},,,164889003,y")
    flags = ("--classes", "dx=426783006,164889003", "--classes=kind=y,x")
    add(*lines, head=HEAD + ",dx,kind", flags=flags)
    assert open_label(store, "dx").classes == ("426783006", "164889003")
    assert (values_of(store, "dx", "r001"), values_of(store, "kind", "r001")) == ([1] * 4, [0] * 4)


def test_a_label_is_replaced_only_when_asked_to(store, add):
    add(f"{A},,,1", head=HEAD + ",af")
    assert "--replace" in faults_of(lambda: add(f"{A},,,0", head=HEAD + ",af"))["--labels"]
    assert values_of(store, "af", "r000") == [1] * 4
    add(f"{A},,,0", head=HEAD + ",af", flags=("--replace",))
    assert values_of(store, "af", "r000") == [0] * 4


def test_a_table_without_spans_in_another_order_and_with_a_byte_order_mark_is_read(store, add):
    add("7,r000,numpy:archive", "NA,r001,numpy:archive", "", head="age,recording,source", encoding="utf-8-sig")
    assert values_of(store, "age", "r000") == [7] * 4
    assert np.isnan(values_of(store, "age", "r001")).all()


def test_lines_of_a_recording_that_gave_no_segment_are_counted_and_no_fault(store, add, caplog):
    with caplog.at_level("INFO"):
        add(f"{A},,,SR", f"{SHORT},,,SR", head=HEAD + ",rhythm")
    assert "1 lines are of recordings of which no segment was kept" in caplog.text


FAULTY = (
    # lines, columns of values, flags, where the fault is, what it says
    ([f"{A},,,1", "numpy:archive,r099,,,1"], "af", (), "line 3", "no recording of the store"),
    (["numpy:archiv,r000,,,1"], "af", ("--allow=unknown_recordings",), "--labels", "numpy:archive,r000"),
    ([f"{A},0,60,1", f"{B},0,60,1", f"{A},59,90,1"], "af", (), "line 2 and 4", "spans overlap"),
    ([f"{A},,,1", f"{A},30,60,0"], "af", (), "line 2 and 3", "two values for one segment"),
    ([f"{A},60,30,1"], "af", (), "line 2", "0 <= start_s < end_s"),
    ([f"{A},soon,30,1"], "af", (), "line 2", "0 <= start_s < end_s"),
    ([f"{A},30000,60000,1"], "af", (), "line 2", "seconds"),
    ([f"{A},0,30"], "af", (), "line 2", "as many"),
    (["numpy:archive,,,,1"], "af", (), "line 2", "recordings.parquet"),
    ([f"{A},,,1", f"{B},,,SR"], "rhythm", (), "line 2", "names and numbers"),
    ([f"{A},,,61", f"{B},0,30,62", f"{B},30,60,6o"], "age", (), "line 4", "names and numbers"),
    ([f"{A},,,inf"], "age", (), "line 2", "float32"),
    ([f"{A},,,426783006"], "dx", (), "line 2", "--classes dx=A,B,..."),
    ([f"{A},,,SR", f"{B},,,AF"], "rhythm", ("--classes=rhythm=SR",), "line 3", "one of SR"),
    ([f"{A},,,SR"], "rhythm", ("--classes=rhythm=SR,PVC",), "--classes", "no line has this class"),
    ([f"{A},,,SR", f"{SHORT},,,PVC"], "rhythm", (), "rhythm", "no segment in use is of this class"),
    ([f"{SHORT},,,SR"], "rhythm", (), "rhythm", "no segment in use gets one"),
    ([f"{A},,,"], "age", (), "age", "no segment in use gets one"),
    ([f"{A},,,1"], "Old MI", (), "--labels", "letters"),
    ([f"{A},,,1"], "heart_rate_bpm", (), "--labels", "the store's table has a column"),
    ([f"{A},,,1"], "af", ("--classes=rhythm=SR",), "--classes", "no such column; it has af"),
    ([f"{A},,,SR"], "rhythm", ("--classes=rhythm",), "--classes", "LABEL=A,B,C"),
    ([], "af", (), "--labels", "no line but its header"),
)


@pytest.mark.parametrize(("lines", "columns", "flags", "where", "what"), FAULTY)
def test_a_fault_is_named_with_its_line_and_nothing_is_written(store, add, lines, columns, flags, where, what):
    found = faults_of(lambda: add(*lines, head=f"{HEAD},{columns}", flags=flags))
    assert list(found) == [where]
    assert what in found[where]
    assert list_labels(store) == []


@pytest.mark.parametrize(
    ("head", "what"),
    [
        ("source,start_s,end_s,af", "no column recording"),
        ("source;recording;af", "no column source"),
        (HEAD, "no column of values"),
        (HEAD + ",af,af", "two columns af"),
    ],
)
def test_a_header_that_is_none_is_refused(add, head, what):
    with pytest.raises(UserError, match=what):
        add(f"{A},,,1", head=head)


def test_bytes_that_are_no_text_are_refused(add):
    assert "UTF-8" in faults_of(lambda: add(f"{A},,,1", head=HEAD + ",größe", encoding="utf-16"))["--labels"]


def test_faults_of_every_kind_come_together_and_each_kind_once(store, add):
    lines = [f"{A},0,60,SR,1", f"{A},30,90,AF,1", "x,y,,,SR,", f"{B},5,3,SR,"]
    lines += [f"{B},{start},{start + 1},FLUTTER," for start in range(40)]
    found = faults_of(lambda: add(*lines, head=HEAD + ",rhythm,age", flags=("--classes=rhythm=SR,AF,PVC",)))
    assert {"line 2 and 3", "line 4", "line 5", "--classes"} <= found.keys()
    assert "and 32 more" in next(place for place in found if place.startswith("line 6"))
    assert len(found) == 5


def test_what_is_allowed_is_left_out_or_kept_and_counted(store, add, caplog):
    lines = (f"{A},,,SR", "numpy:archive,r099,,,SR")
    flags = ("--allow", "unknown_recordings", "--allow", "unseen_classes", "--classes", "rhythm=PVC,SR")
    with caplog.at_level("WARNING"):
        said = add(*lines, head=HEAD + ",rhythm", flags=flags)
    assert said["labels"]["rhythm"]["values"] == {"PVC": 0, "SR": 4}
    assert values_of(store, "rhythm", "r000") == [1] * 4
    assert "1 lines are of recordings that are not in the store" in caplog.text


def test_inspect_lists_labels_with_their_counts_and_the_report_shows_them(store, add, repository, tmp_path, capsys):
    add(f"{A},,,SR", f"{B},,,AF", head=HEAD + ",rhythm")
    inspect = runpy.run_path(str(repository / "tools/inspect_store.py"))["main"]
    said = inspect([str(store.path), "--out", str(tmp_path / "report.html")])
    assert json.loads(json.dumps(said))["labels"] == {"rhythm": {"AF": 4, "SR": 4}}
    page = (tmp_path / "report.html").read_text()
    assert "Labels" in page
    assert "rhythm" in page
