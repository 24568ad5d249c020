"""Tables that 12-lead archives bring: PTB-XL's folds, patients and superclasses, and the comments of headers."""

import csv

import pytest

from jaxbio.config.faults import UserError
from jaxbio.data.ecg_archives import read_alarms, read_headers, read_ptbxl
from jaxbio.data.labels import NAME
from tools import make_labels

STATEMENTS = [
    ["", "description", "diagnostic", "diagnostic_class"],
    ["NORM", "normal", "1.0", "NORM"],
    ["IMI", "infarction", "1.0", "MI"],
    ["ASMI", "infarction", "1.0", "MI"],
    ["LVH", "hypertrophy", "1.0", "HYP"],
    ["SR", "sinus rhythm", "", ""],
]
DATABASE = [
    ["ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", "filename_lr", "filename_hr"],
    ["1", "15709.0", "56.0", "1", "{'NORM': 100.0, 'SR': 0.0}", "3", "records100/1_lr", "records500/1_hr"],
    ["2", "13243.0", "300.0", "0", "{'IMI': 35.0, 'ASMI': 0.0}", "10", "records100/2_lr", "records500/2_hr"],
    ["3", "13243.0", "", "0", "{'IMI': 35.0, 'LVH': 50.0}", "10", "records100/3_lr", "records500/3_hr"],
    ["4", "9", "24.0", "", "{'SR': 0.0}", "1", "records100/4_lr", "records500/4_hr"],
]


@pytest.fixture
def ptbxl(tmp_path):
    for name, lines in (("ptbxl_database.csv", DATABASE), ("scp_statements.csv", STATEMENTS)):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows(lines)
    return tmp_path


def read_ours(folder, column="filename_hr"):
    return read_ptbxl(folder / "ptbxl_database.csv", folder / "scp_statements.csv", column)


def test_a_record_has_a_superclass_where_it_has_exactly_one(ptbxl):
    rows = read_ours(ptbxl)
    assert [row.cells["superclass"] for row in rows] == ["NORM", "MI", "", ""]
    assert [row.cells["age"] for row in rows] == ["56", "", "", "24"]  # 300 stands for over 89
    assert [row.cells["sex"] for row in rows] == ["female", "male", "male", ""]
    assert [row.cells["fold"] for row in rows] == ["3", "10", "10", "1"]
    assert [row.subject for row in rows] == ["15709", "13243", "13243", "9"]
    assert rows[0].recording == "records500/1_hr"
    assert read_ours(ptbxl, "filename_lr")[0].recording == "records100/1_lr"


def test_the_tool_writes_labels_and_patients(ptbxl):
    labels, subjects = ptbxl / "labels.csv", ptbxl / "subjects.csv"
    flags = ["--ptbxl", str(ptbxl), "--source", "wfdb:ptb-xl", "--out", str(labels), "--subjects", str(subjects)]
    assert make_labels.main(flags)["recordings"] == 4
    assert labels.read_text().splitlines()[:2] == [
        "source,recording,superclass,fold,age,sex",
        "wfdb:ptb-xl,records500/1_hr,NORM,3,56,female",
    ]
    assert subjects.read_text().splitlines()[2] == "wfdb:ptb-xl,records500/2_hr,13243"


def test_both_rates_of_an_ecg_are_its_patients_whichever_rate_has_labels(ptbxl):
    subjects = ptbxl / "subjects.csv"
    flags = [
        "--ptbxl",
        str(ptbxl),
        "--source",
        "wfdb:ptb-xl",
        "--out",
        str(ptbxl / "x.csv"),
        "--subjects",
        str(subjects),
    ]
    for rate in ("hr", "lr"):
        make_labels.main([*flags, "--records", rate])
        lines = subjects.read_text().splitlines()
        assert {"wfdb:ptb-xl,records500/2_hr,13243", "wfdb:ptb-xl,records100/2_lr,13243"} < set(lines)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda lines: lines.pop(0), "lacks"),
        (lambda lines: lines[2].__setitem__(4, "{IMI"), "line 3"),
        (lambda lines: lines[1].__setitem__(1, "x"), "line 2"),
    ],
)
def test_another_table_is_refused(ptbxl, spoil, words):
    lines = [list(line) for line in DATABASE]
    spoil(lines)
    with (ptbxl / "ptbxl_database.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    with pytest.raises(UserError, match=words):
        read_ours(ptbxl)


def test_comments_of_headers_become_columns(data_dir, tmp_path):
    rows = {row.recording: row.cells for row in read_headers(data_dir / "cinc2021_12lead")}
    assert len(rows) == 42
    assert (rows["E07500"]["age"], rows["E07500"]["sex"]) == ("78", "male")
    assert rows["E07500"]["426177001"] == "1"
    assert rows["E07501"]["426177001"] == "0"
    rows = {row.recording: row.cells for row in read_headers(data_dir / "ptbxl_sample")}
    assert rows["00841_hr"] | {"STTC": "1", "HYP": "1", "PVC": "1", "sex": "female"} == rows["00841_hr"]
    with pytest.raises(UserError, match="no such comment"):
        read_headers(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_headers(tmp_path / "nowhere")


def test_a_code_that_is_no_name_of_a_label_becomes_one(tmp_path):
    (tmp_path / "a.hea").write_text("a 1 100 10\n# Labels: AFIB/AFL, sinus rhythm\n")
    (cells,) = (row.cells for row in read_headers(tmp_path))
    assert {name: text for name, text in cells.items() if text} == {"AFIB_AFL": "1", "sinus_rhythm": "1"}
    assert all(NAME.fullmatch(name) for name in cells)
    (tmp_path / "b.hea").write_text("b 1 100 10\n# Labels: AFIB AFL\n")
    with pytest.raises(UserError, match="both would be the column AFIB_AFL"):
        read_headers(tmp_path)


def test_alarms_are_labels_of_the_time_before_them(tmp_path):
    lines = ["v100s,Ventricular_Tachycardia,0", "a102s,Asystole,1", "v104s,Ventricular_Tachycardia,1"]
    (tmp_path / "ALARMS").write_text("\n".join(lines) + "\n")
    flags = ["--alarms", str(tmp_path), "--source", "wfdb:x", "--out", str(tmp_path / "labels.csv")]
    assert make_labels.main(flags)["recordings"] == 3
    assert (tmp_path / "labels.csv").read_text().split() == [
        "source,recording,start_s,end_s,asystole_alarm,vt_alarm",
        "wfdb:x,v100s,270,300,,false",
        "wfdb:x,a102s,270,300,true,",
        "wfdb:x,v104s,270,300,,true",
    ]
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    make_labels.main([*flags, "--source", f"wfdb:{tmp_path / 'link'}"])
    assert f"wfdb:{tmp_path.name},v104s,270,300,,true" in (tmp_path / "labels.csv").read_text()
    make_labels.main([*flags, "--before_s", "300"])
    assert ",v100s,0,300," in (tmp_path / "labels.csv").read_text()
    with pytest.raises(UserError, match="--before_s"):
        make_labels.main([*flags, "--before_s", "301"])


@pytest.mark.parametrize("line", ["v100s,Flutter,0", "v100s,Asystole", "v100s,Asystole,yes", ""])
def test_what_is_no_file_of_alarms_is_refused(tmp_path, line):
    (tmp_path / "ALARMS").write_text(line)
    with pytest.raises(UserError, match="2015"):
        read_alarms(tmp_path)
