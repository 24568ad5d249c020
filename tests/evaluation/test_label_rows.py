"""tools/make_labels.py --task: what is learnt of a store's segments is what the task asks of the same stretches."""

import csv
import runpy

import numpy as np
import pytest
from test_task_layouts import write_bidmc, write_lines, write_wfdb
from test_wearable_layouts import codes, write_subject

from jaxbio.config import fields
from jaxbio.config.families import supervised
from jaxbio.config.faults import UserError
from jaxbio.data.from_arrays import store_from_arrays
from jaxbio.data.labels import open_label
from jaxbio.data.prepare import prepare_store
from jaxbio.data.store import open_store
from jaxbio.evaluation import tasks

WINDOW_S = 10.0


def cinc_2017(folder):
    wfdb_folder(folder, ("A1", "A2", "A3", "A4"), 25, ("I",))
    write_lines(folder / "REFERENCE.csv", "A1,N", "A2,A", "A3,O", "A4,~")


def cpsc_2021(folder):
    wfdb = pytest.importorskip("wfdb")
    wfdb_folder(folder, ("data_7_1", "data_8_1"), 60, ("I",))
    for name in ("data_7_1", "data_8_1"):
        wfdb.wrann(name, "atr", np.array([10, 2500, 5600]), ["+"] * 3, aux_note=["(N", "(AFIB", "(N"],
                   write_dir=str(folder))  # fmt: skip


def cinc_2015(folder):
    wfdb_folder(folder, ("v100s", "v101l", "a200s"), 330, ("PLETH", "II"))
    alarms = ("v100s,Ventricular_Tachycardia,0", "v101l,Ventricular_Tachycardia,1", "a200s,Asystole,1")
    write_lines(folder / "ALARMS", *alarms)


def wfdb_folder(folder, names, seconds, signals):
    pytest.importorskip("wfdb")
    for seed, name in enumerate(names):
        write_wfdb(folder, name, seconds, seed=seed, signals=signals)


def bidmc(folder):
    for number in range(1, 4):
        write_bidmc(folder, f"bidmc_0{number}", f"s0000{number // 2}", number)


def wesad(folder):
    write_subject(folder, "S2", label=codes(700, (1, 20), (0, 10), (2, 15), (3, 15), (4, 10), (5, 10)))
    write_subject(folder, "S10", label=codes(700, (2, 80)))


def dalia(folder):
    write_subject(folder, "S1", activity=codes(4, (1, 20), (0, 10), (8, 20), (7, 30)))


@pytest.fixture(scope="module")
def tools(repository):
    return {
        name: runpy.run_path(str(repository / f"tools/{name}.py"))["main"] for name in ("make_labels", "add_labels")
    }


def prepare(sources, out):
    changes = {"data.segment_s": WINDOW_S, "data.rate_hz": 100.0, "prepare.missing_channel": "mask"}
    prepare_store(sources, fields.change(fields.defaults(), changes), out, progress=False)
    return open_store(out)


def label(tools, store, table, *words):
    """Make the table and add it to the store, by the words that the tool itself says come next."""
    said = tools["make_labels"](["--out", str(table), *words])
    classes = [f"{said['columns'][0]}={','.join(said['classes'])}"] if said["classes"] else []
    words = [word for listed in classes for word in ("--classes", listed, "--allow", "unseen_classes")]
    tools["add_labels"](["--store", str(store.path), "--labels", str(table), *words, "--replace"])
    return said


def learnt(store, names):
    """Return by (source, recording, start) what the store's segments have of these labels, (K,)."""
    columns = zip(*(store.column(name).tolist() for name in ("source", "recording", "start_s")), strict=True)
    value_RK = np.stack([open_label(store, name).value_R for name in names], axis=1)
    return dict(zip(columns, value_RK, strict=True))


def asked(segments):
    columns = (segments.source_B.tolist(), segments.recording_B.tolist(), segments.start_s_B.tolist())
    return dict(zip(zip(*columns, strict=True), segments.label_BK.astype(np.float32), strict=True))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("af", cinc_2017),
        ("af", cpsc_2021),
        ("signal_quality", cinc_2017),
        ("vt_alarm", cinc_2015),
        ("heart_rate", bidmc),
        ("respiratory_rate", bidmc),
        ("spo2", bidmc),
        ("blood_pressure", bidmc),
        ("affect", wesad),
        ("activity", dalia),
    ],
)
def test_labels_of_a_stores_segments_are_what_the_task_asks_of_the_same_stretches(name, write, tools, tmp_path):
    folder = tmp_path / "archive"
    write(folder)
    task = tasks.get_task(name)
    sources = tasks.find_sources(task, [str(folder)])
    store = prepare(sources, tmp_path / "store")
    words = ["--task", name, "--data", str(folder), "--window_s", f"{WINDOW_S:g}"]
    said = label(tools, store, tmp_path / "labels.csv", *words)
    found = asked(tasks.read_segments(name, sources, rate_hz=100.0, length=1000, channels=("ppg", "ecg")))
    stored = learnt(store, said["columns"])
    assert found.keys() <= stored.keys()
    for place, value_K in stored.items():
        expected_K = found.get(place, np.full(len(task.targets), np.nan))
        np.testing.assert_array_equal(value_K, expected_K, err_msg=str(place))
    assert open_label(store, said["columns"][0]).classes == task.classes
    assert said["columns"] == ([name] if name != "blood_pressure" else ["blood_pressure_systolic",
                                                                       "blood_pressure_diastolic"])  # fmt: skip


def test_rhythms_are_labels_of_a_store_of_arrays(tools, tmp_path):
    """Pieces of a patient lie behind one another, as the task counts them, in recordings named as the files."""
    folder, rng = tmp_path / "archive", np.random.default_rng(0)
    folder.mkdir()
    names = ["patient_01", "patient_02"]
    pieces = [rng.integers(0, 32767, (4, 1000)).astype(np.int16) for _ in names]
    for name, ppg in zip(names, pieces, strict=True):
        np.savez(folder / f"{name}.npz", ppg=ppg, rhythm=np.array([0, 3, 5, 5], np.uint8), rate_hz=100)
    changes = {"data.segment_s": WINDOW_S, "data.rate_hz": 100.0, "data.channels": ("ppg",)}
    config = fields.change(fields.defaults(), changes)
    signals = [ppg.reshape(-1) for ppg in pieces]
    store = store_from_arrays(
        tmp_path / "store", rate_hz=100.0, config=config, names=names, subjects=names, ppg=signals
    )
    words = ["--task", "rhythm", "--data", str(folder), "--source", "arrays"]
    assert label(tools, store, tmp_path / "labels.csv", *words)["window_s"] == WINDOW_S
    stored = learnt(store, ["rhythm"])
    assert len(stored) == 8
    for (_, _, start_s), (value,) in stored.items():
        assert value == [0, 3, 5, 5][round(start_s / WINDOW_S)]


def test_patients_that_files_name_are_subjects_of_the_preparation(tools, tmp_path, capsys):
    bidmc(tmp_path / "bidmc")
    labels, subjects = str(tmp_path / "labels.csv"), tmp_path / "subjects.csv"
    words = ["--task", "spo2", "--data", str(tmp_path / "bidmc"), "--out", labels]
    said = tools["make_labels"]([*words, "--subjects", str(subjects), "--source", "csv:icu"])
    assert (said["recordings"], said["windows"]) == (3, 3)  # one of 30 s each
    assert "tools/add_labels.py --store STORE --labels" in capsys.readouterr().err
    lines = list(csv.reader(subjects.open()))
    assert lines[1:] == [["csv:icu", f"bidmc_0{k}_Signals", f"s0000{k // 2}"] for k in (1, 2, 3)]
    cinc_2017(tmp_path / "cinc")
    with pytest.raises(UserError, match="names patients"):
        tools["make_labels"](["--task", "af", "--data", str(tmp_path / "cinc"), "--out", labels, "--subjects", "s.csv"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "identification", "--data", "."], "whom a store names"),
        (["--task", "abp_waveform", "--data", "."], "finetune.py:abp_waveform"),
        (["--task", "quality_class", "--data", "."], "quality_waveform"),
        (["--task", "label:age", "--data", "."], "that a store has"),
        (["--task", "af"], "--data"),
        (["--task", "af", "--data", ".", "--window_s", "2"], "--window_s"),
        (["--task", "af", "--data", ".", "--before_s", "30"], "--before_s"),
        (["--headers", ".", "--window_s", "10", "--source", "x"], "of --task alone"),
        (["--headers", "."], "--source"),
    ],
)
def test_what_makes_no_table_is_refused_with_what_does(tools, words, said):
    with pytest.raises(UserError, match=said):
        tools["make_labels"]([*words, "--out", "labels.csv"])


def test_presets_ask_what_the_tasks_ask():
    for name, preset in supervised.PRESETS.items():
        (label,) = preset.get("data.labels", ("",))
        if label in tasks.TASKS and name not in ("vt_alarm", "superclass"):  # whose tables have names of their own
            assert preset.get("objective.classes", ()) == tasks.get_task(label).classes, name
    others = ("vt_alarm", "superclass", "identification", "abp_waveform", "quality_class", "quality_score")
    columns = {
        column
        for name in tasks.TASKS.keys() - set(others)
        for column in tasks.label_columns(name, tasks.get_task(name))
    }
    assert columns <= {label for preset in supervised.PRESETS.values() for label in preset.get("data.labels", ())}
