"""Source lines, folders with odd names and links, roles, subjects: what every format shares."""

import os

import numpy as np
import pytest
from small_files import NAMES, write_csv, write_record

from jaxbio.config.faults import UserError
from jaxbio.data.recordings import (
    Options,
    Recording,
    RecordingError,
    Refused,
    Source,
    assign_subjects,
    list_recordings,
    parse_assumed,
    parse_source,
)
from jaxbio.data.recordings.channels import find_roles, unit_of
from jaxbio.data.recordings.subjects import subject_of


def test_source_line_with_every_option(tmp_path):
    text = f"csv:{tmp_path}?rate_hz=62.5&time=Time [s]:ms&columns=ppg:G,ecg:Lead%2CII&glob=*/PPG*.csv"
    text += "&missing=-999,Lead%2C off&decimal=comma&assume_unit=ecg:uV"
    assert parse_source(text) == Source(
        "csv",
        str(tmp_path),
        Options(
            rate_hz=62.5,
            time=("Time [s]", "ms"),
            columns={"ppg": "G", "ecg": "Lead,II"},
            glob="*/PPG*.csv",
            missing=("-999", "lead, off"),
            decimal=",",
            assume_unit={"ecg": "uV"},
        ),
    )
    assert parse_source(text).name == f"csv:{tmp_path.name}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gdf:x", "begin with one of"),
        ("nothing", "begin with one of"),
        ("wfdb:/no/such/folder", "no file or folder"),
        ("csv:.?rate_hz=fast", "rate_hz"),
        ("csv:.?rate_hz=0", "positive"),
        ("csv:.?rate_hz=nan", "positive"),
        ("csv:.?time=t", "NAME:UNIT"),
        ("csv:.?time=t:minutes", "NAME:UNIT"),
        ("csv:.?columns=ppg", "ROLE:NAME"),
        ("csv:.?colour=red", "unknown option 'colour'"),
        ("wfdb:.?rate_hz=125", "unknown option 'rate_hz'"),
        ("csv:.?decimal=dot", "comma or point"),
        ("csv:.?assume_unit=ecg:furlong", "millivolt"),
        ("csv:.?assume_unit=foot:mV", "is no role"),
    ],
)
def test_wrong_source_lines_are_faults_that_say_what_to_write(text, said):
    with pytest.raises(UserError) as caught:
        parse_source(text)
    assert said in str(caught.value)
    assert caught.value.faults[0].field == "--source"


def test_all_faults_of_a_line_come_together():
    with pytest.raises(UserError) as caught:
        parse_source("csv:.?rate_hz=x&time=y&colour=red")
    assert len(caught.value.faults) == 3


def test_empty_folder_is_a_fault(tmp_path):
    with pytest.raises(UserError, match="no file of this format"):
        list_recordings(Source("wfdb", str(tmp_path)), NAMES)


@pytest.mark.parametrize("name", ["ü ñ", "a b", "line\nbreak", "quo'te\"s", "?x=1", "心電図", "p:q"])
def test_odd_folder_and_file_names_list_and_read(tmp_path, name):
    folder = tmp_path / name / name
    folder.mkdir(parents=True)
    path = write_csv(folder / f"{name}.csv.gz", {"PPG": np.arange(100)})
    write_record(folder)
    write_record(folder, "packed", fmt="212")
    for source in (parse_source(f"csv:{tmp_path / name}?rate_hz=50"), parse_source(f"csv:{path}?rate_hz=50")):
        (entry,) = list_recordings(source, NAMES)
        assert entry.read(0.0, 1.0, ["ppg"])["ppg"][7] == 7
        assert os.path.basename(entry.recording) == name
    entries = list_recordings(parse_source(f"wfdb:{tmp_path / name}"), NAMES)
    assert [len(entry.read(0.0, 1.0, ["ecg"])["ecg"]) for entry in entries] == [125, 125]


def test_names_that_are_no_text_become_text(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"p\xff.csv")
    with open(path, "wb") as file:
        file.write(b"PPG\n" + b"1\n" * 100)
    (entry,) = list_recordings(parse_source(f"csv:{tmp_path}?rate_hz=50"), NAMES)
    assert entry.recording.encode("utf-8") == b"p\\xff"
    assert len(entry.read(0.0, 1.0, ["ppg"])["ppg"]) == 50


def test_listing_is_sorted_and_the_same_every_time(tmp_path):
    for name in ("b", "a/z", "a/b", "c"):
        write_csv(tmp_path / f"{name}.csv", {"PPG": np.arange(50)})
    source = parse_source(f"csv:{tmp_path}?rate_hz=50")
    entries = list_recordings(source, NAMES)
    assert [entry.recording for entry in entries] == ["a/b", "a/z", "b", "c"]
    assert entries == list_recordings(source, NAMES)


def test_second_recording_of_a_name_is_refused(tmp_path):
    for name in ("a.csv", "a.csv.gz", "a.txt"):
        write_csv(tmp_path / name, {"PPG": np.arange(50)})
    entries = list_recordings(parse_source(f"csv:{tmp_path}?rate_hz=50"), NAMES)
    assert [isinstance(entry, Recording) for entry in entries] == [True, False, False]
    assert {entry.reason for entry in entries[1:]} == {"duplicate_name"}
    assert sum(entry.duration_s for entry in entries) == 3.0


def test_links_that_leave_the_source_are_refused_and_inner_ones_are_not_walked_twice(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "source"
    for folder in (outside, inside / "deep"):
        folder.mkdir(parents=True)
        write_csv(folder / "a.csv", {"PPG": np.arange(50)})
        write_record(folder)
    (inside / "far").symlink_to(outside)
    (inside / "far.csv").symlink_to(outside / "a.csv")
    (inside / "loop").symlink_to(inside)
    (inside / "r2.hea").symlink_to(outside / "r1.hea")
    entries = list_recordings(parse_source(f"csv:{inside}?rate_hz=50"), NAMES)
    found = {entry.recording: getattr(entry, "reason", "read") for entry in entries}
    assert found == {"deep/a": "read", "far": "outside_source", "far.csv": "outside_source"}
    entries = list_recordings(parse_source(f"wfdb:{inside}"), NAMES)
    found = {entry.recording: getattr(entry, "reason", "read") for entry in entries}
    assert found == {"deep/r1": "read", "far": "outside_source", "r2.hea": "outside_source"}


def test_linked_data_file_that_leaves_the_source_is_refused(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "source"
    outside.mkdir()
    inside.mkdir()
    write_record(inside)
    (inside / "r1.dat").rename(outside / "r1.dat")
    (inside / "r1.dat").symlink_to(outside / "r1.dat")
    (entry,) = list_recordings(parse_source(f"wfdb:{inside}"), NAMES)
    assert isinstance(entry, Refused)
    assert entry.reason == "outside_source"


def test_source_reached_through_a_link_is_read(tmp_path):
    (tmp_path / "archive").mkdir()
    write_record(tmp_path / "archive")
    (tmp_path / "link").symlink_to(tmp_path / "archive")
    (entry,) = list_recordings(parse_source(f"wfdb:{tmp_path / 'link'}"), NAMES)
    assert entry.source == "wfdb:archive"


def test_link_to_nothing_is_refused(tmp_path):
    (tmp_path / "a.csv").symlink_to(tmp_path / "gone.csv")
    (entry,) = list_recordings(parse_source(f"csv:{tmp_path}?rate_hz=50"), NAMES)
    assert entry.reason == "missing_file"
    assert "a.csv" in entry.detail


def test_roles_take_the_first_name_of_their_list_blanks_and_case_ignored():
    names = {"ecg": ("II", "V"), "ppg": ("PLETH",)}
    assert find_roles(["V", " i i", "Pleth "], names) == {"ecg": 1, "ppg": 2}
    assert find_roles(["V", "RESP"], names) == {"ecg": 0}
    assert find_roles(["'II'", "ii"], names) == {"ecg": 0}
    assert find_roles(["II,", "PLETH,"], names) == {"ecg": 0, "ppg": 1}
    assert find_roles(["", "II"], names) == {"ecg": 1}


def test_a_named_column_overrides_the_list(tmp_path):
    write_record(tmp_path, names=("II", "V"), units=("mV", "mV"))
    (entry,) = list_recordings(parse_source(f"wfdb:{tmp_path}?columns=ecg:v"), NAMES)
    assert entry.channels["ecg"].name == "V"


@pytest.mark.parametrize(
    ("recording", "subject"),
    [
        ("p10/p100020/p100020-2183-04-28-17-47", ("p100020", True)),
        ("other/p10/p100020/3544749_0001", ("p100020", True)),
        ("waves/p100/p10014354/81739927/81739927", ("p10014354", True)),
        ("s25047/s25047-2704-05-04-10-44", ("s25047", True)),
        ("matched/s25047/3544749_0001", ("s25047", True)),
        ("patient1/s00001", ("patient1/s00001", False)),
        ("patient1/s00002/ppg", ("patient1/s00002/ppg", False)),
        ("s00001", ("s00001", False)),
        ("data_101_6", ("101", True)),
        ("00841_hr", ("00841", False)),
        ("00841_lr", ("00841", False)),
        ("subject_01/PPG", ("subject_01/PPG", False)),
    ],
)
def test_subject_follows_the_archive_s_path(recording, subject):
    assert subject_of("/archive", recording) == subject


def test_of_the_source_s_own_path_only_the_last_folder_names_a_subject():
    assert subject_of("/mimic/p10/p100020", "3544749_0001") == ("p100020", True)
    assert subject_of("/mimic2/s25047", "s25047-2704-05-04-10-44") == ("s25047", True)
    assert subject_of("/home/s12345/archive", "a") == ("a", False)
    assert subject_of("/home/s12345", "a") == ("a", False)


def test_one_subject_under_two_folders_is_one(tmp_path):
    for folder in ("first/p000020", "second/p000020"):
        write_csv(tmp_path / folder / "a.csv", {"PPG": np.arange(50)})
    entries = list_recordings(parse_source(f"csv:{tmp_path}?rate_hz=50"), NAMES)
    assert [(entry.subject, entry.subject_known) for entry in entries] == [("p000020", True)] * 2


def test_a_file_of_subjects_has_the_last_word(tmp_path):
    write_csv(tmp_path / "a.csv", {"PPG": np.arange(50)})
    write_csv(tmp_path / "b.csv", {"HR": np.arange(50)})
    entries = list_recordings(parse_source(f"csv:{tmp_path}?rate_hz=50"), NAMES)
    source = entries[0].source
    assigned = assign_subjects(entries, {(source, "a"): "patient 7", (source, "b"): "patient 8"})
    assert (assigned[0].subject, assigned[0].subject_known) == ("patient 7", True)
    assert assigned[1] == entries[1]


def test_a_missing_channel_lists_the_names_of_the_file_and_the_nearest(tmp_path):
    write_record(tmp_path, names=("II", "PLETHX", "ABP"), units=("mV", "NU", "mmHg"))
    (entry,) = list_recordings(Source("wfdb", str(tmp_path)), NAMES, required=("ppg", "ecg"))
    assert entry.reason == "missing_channel"
    assert "no signal for ppg; the file has 'II', 'PLETHX', 'ABP'; nearest: columns=ppg:PLETHX" in entry.detail
    write_csv(tmp_path / "many.csv", {f"x{number}": range(50) for number in range(40)})
    (entry,) = list_recordings(parse_source(f"csv:{tmp_path}?rate_hz=50"), NAMES)
    assert "'x23' and 16 more" in entry.detail


@pytest.mark.parametrize(
    ("role", "unit", "read"),
    [
        ("ecg", "mV", ("mV", 1.0)),
        ("ecg", "millivolts", ("mV", 1.0)),
        ("ecg", "Volts", ("mV", 1e3)),
        ("ecg", "V", ("mV", 1e3)),
        ("ecg", "µV", ("mV", 1e-3)),
        ("ecg", "[uV]", ("mV", 1e-3)),
        ("ecg", "undef", ("NU", 1.0)),
        ("ecg", "a.u.", ("NU", 1.0)),
        ("ecg", "bits", ("NU", 1.0)),
        ("ecg", "ADC units", ("NU", 1.0)),
        ("ecg", "", ("NU", 1.0)),
        ("abp", "mm Hg", ("mmHg", 1.0)),
        ("abp", "mm[Hg]", ("mmHg", 1.0)),
        ("abp", "kPa", ("mmHg", 7.500617)),
        ("abp", "cm[H2O]", ("mmHg", 0.7355592)),
        ("ppg", "{counts}", ("NU", 1.0)),
        ("ppg", "nA", ("NU", 1.0)),
        ("ppg", "undef", ("NU", 1.0)),
    ],
)
def test_units_are_read_under_all_their_names(role, unit, read):
    assert unit_of(role, unit, "file", {}) == read


@pytest.mark.parametrize("unit", ["", "NU", "bits", "undef", "furlong"])
def test_a_unit_is_assumed_where_the_file_states_none_that_is_known(unit):
    assert unit_of("ecg", unit, "file", {"ecg": "uV"}) == ("mV", 1e-3)


def test_a_unit_that_is_stated_is_not_overruled():
    assert unit_of("ecg", "mV", "file", {"ecg": "uV"}) == ("mV", 1.0)
    with pytest.raises(RecordingError, match="mmHg"):
        unit_of("ecg", "mmHg", "file", {"ecg": "mV"})


def test_assumed_units_reach_every_segment_and_the_plan(tmp_path):
    write_record(tmp_path, names=("II",), units=("furlong",))
    source = f"wfdb:{tmp_path}"
    plain, assumed = parse_source(source), parse_source(source, {"ecg": "uV"})
    assert list_recordings(plain, NAMES)[0].reason == "unknown_unit"
    (recording,) = list_recordings(assumed, NAMES)
    (in_volts,) = list_recordings(parse_source(f"{source}?assume_unit=ecg:V", {"ecg": "uV"}), NAMES)
    one = recording.read(0.0, 1.0, ["ecg"])["ecg"]
    np.testing.assert_allclose(in_volts.read(0.0, 1.0, ["ecg"])["ecg"], one * 1e6, rtol=1e-5)
    assert recording.reading != in_volts.reading


def test_flags_of_assumed_units_are_checked():
    assert parse_assumed(None) == {}
    assert parse_assumed("ecg:uV,abp:kPa") == {"ecg": "uV", "abp": "kPa"}
    with pytest.raises(UserError, match="millivolt"):
        parse_assumed("ecg:miles")


def test_a_unit_assumed_for_ecg_is_that_of_every_lead():
    assert unit_of("v1", "", "file", {"ecg": "uV"}) == ("mV", 1e-3)
    assert unit_of("v1", "", "file", {"ecg": "uV", "v1": "V"}) == ("mV", 1e3)
