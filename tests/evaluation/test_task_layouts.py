"""Every task reads its labels, windows and subjects from a folder as its data set lies there.

Layouts without recordings in the development set (VTaC, MIMIC PERform AF, PTB-XL's own tables) are tested on folders
generated here in that layout.
"""

import csv

import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.data.recordings import RecordingError
from jaxbio.data.recordings.wfdb_annotations import read_annotations
from jaxbio.evaluation import tasks
from jaxbio.evaluation.tasks.blood_pressure import pressures
from jaxbio.evaluation.tasks.rhythm_files import share_in
from jaxbio.signals import synthetic
from jaxbio.signals.patients import draw_course, draw_patient, record

wfdb = pytest.importorskip("wfdb")
SETTINGS = {"rate_hz": 100.0, "channels": ("ppg", "ecg")}


def read(name: str, folder, length: int = 1000, **settings) -> tasks.Segments:
    task = tasks.get_task(name)
    sources = tasks.find_sources(task, [str(folder)])
    return tasks.read_segments(name, sources, length=length, **{**SETTINGS, **settings})


def write_wfdb(
    folder, name: str, seconds: float, rate_hz: int = 125, seed: int = 0, signals=("PLETH", "II"), comments=()
):
    made = synthetic.recording(seed, duration_s=seconds, rate_hz=float(rate_hz))
    columns = {"PLETH": made.ppg, "II": made.ecg, "I": made.ecg}
    folder.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(name, fs=rate_hz, units=["mV"] * len(signals), sig_name=list(signals),
                p_signal=np.stack([columns[signal] for signal in signals], axis=1).astype(float),
                fmt=["16"] * len(signals), write_dir=str(folder), comments=list(comments))  # fmt: skip


def write_lines(path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_vt_alarm_of_cinc_2015_takes_the_window_before_the_alarm(tmp_path):
    write_wfdb(tmp_path, "v100s", 300)
    write_wfdb(tmp_path, "v101l", 330, seed=1)
    write_wfdb(tmp_path, "a200s", 300, seed=2)
    write_lines(tmp_path / "ALARMS", "v100s,Ventricular_Tachycardia,0", "v101l,Ventricular_Tachycardia,1",
                "a200s,Asystole,1")  # fmt: skip
    segments = read("vt_alarm", tmp_path)
    assert segments.recording_B.tolist() == ["v100s", "v101l"]
    assert segments.label_B.tolist() == [0, 1]
    assert segments.start_s_B.tolist() == [290, 290]
    expected = synthetic.recording(1, duration_s=330, rate_hz=125.0).ecg[290 * 125 : 300 * 125]
    found = segments.x_BCT[1, 1]
    assert np.corrcoef(np.interp(np.arange(1000) * 1.25, np.arange(1250), expected), found)[0, 1] > 0.95
    assert segments.left_out["no_label"] == 1
    # a length that does not divide 300 s
    assert read("vt_alarm", tmp_path, length=700).start_s_B.tolist() == [293, 293]
    with pytest.raises(UserError, match="--window_s"):
        read("vt_alarm", tmp_path, length=31_000)


def test_vt_alarm_of_vtac_knows_its_patients(tmp_path):
    """Generated in VTaC's layout."""
    for record_name, event in (("p1", "p1_0"), ("p1", "p1_1"), ("p2", "p2_0")):
        write_wfdb(tmp_path / "waveforms" / record_name, event, 360)
    write_lines(tmp_path / "event_labels.csv", "record,event,decision", "p1,p1_0,True", "p1,p1_1,False",
                "p2,p2_0,Uncertain")  # fmt: skip
    segments = read("vt_alarm", tmp_path)
    assert segments.label_B.tolist() == [1, 0]
    assert len(set(segments.subject_B)) == 1
    assert segments.subject_known_B.all()


def test_af_of_cinc_2017_leaves_out_what_is_too_noisy_and_signal_quality_asks_for_it(tmp_path):
    for seed, name in enumerate(("A1", "A2", "A3", "A4")):
        write_wfdb(tmp_path, name, 25, seed=seed, signals=("I",))
    write_lines(tmp_path / "REFERENCE.csv", "A1,N", "A2,A", "A3,O", "A4,~")
    segments = read("af", tmp_path)
    by_name = dict(zip(segments.recording_B, segments.label_B))
    assert by_name == {"A1": 0, "A2": 1, "A3": 0}
    assert segments.present_BC.tolist() == [[False, True]] * 6
    assert not segments.x_BCT[:, 0].any()
    quality = read("signal_quality", tmp_path)
    assert {name for name, label in zip(quality.recording_B, quality.label_B) if label} == {"A4"}


def test_af_of_cpsc_2021_follows_the_annotated_spans(tmp_path):
    write_wfdb(tmp_path, "data_7_1", 60, signals=("I",))
    wfdb.wrann("data_7_1", "atr", np.array([10, 2500, 5000]), ["+"] * 3, aux_note=["(N", "(AFIB", "(N"],
               write_dir=str(tmp_path))  # fmt: skip
    segments = read("af", tmp_path)
    assert segments.start_s_B.tolist() == [0, 10, 20, 30, 40, 50]
    assert segments.label_B.tolist() == [0, 0, 1, 1, 0, 0]
    assert set(segments.subject_B) == {f"wfdb:{tmp_path.name}/7"}


def test_shares_of_a_rhythm_by_hand():
    begin_s, is_af = np.array([0.0, 12.0, 14.0]), np.array([False, True, False])
    np.testing.assert_allclose(share_in(begin_s, is_af, np.array([0.0, 10.0, 20.0]), 10.0), [0.0, 0.2, 0.0])


def test_annotations_are_those_of_wfdb(data_dir, tmp_path):
    """Real ones, and marks more than 1,023 samples apart with texts of odd length."""
    places, texts = np.array([5, 70_000, 70_001, 5_000_000]), ["(N", "", "(AFIB", "abc"]
    wfdb.wrann("own", "atr", places, ["+", "N", "+", "+"], aux_note=texts, write_dir=str(tmp_path))
    for path in (tmp_path / "own", data_dir / "cpsc2021_af" / "data_101_6"):
        expected = wfdb.rdann(str(path), "atr")
        sample_N, text_N = read_annotations(f"{path}.atr")
        np.testing.assert_array_equal(sample_N, expected.sample)
        assert text_N == [text.rstrip("\0") for text in expected.aux_note]


@pytest.mark.parametrize("keep", [0, 3, 11])
def test_annotations_that_end_within_a_mark_are_refused(tmp_path, keep):
    wfdb.wrann("own", "atr", np.array([5, 70_000]), ["+", "N"], aux_note=["(N", ""], write_dir=str(tmp_path))
    path = tmp_path / "own.atr"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RecordingError, match="ends before"):
        read_annotations(str(path))


def test_af_of_mimic_perform_has_the_label_of_the_folder(tmp_path):
    """Generated in the layout of MIMIC PERform AF."""
    for kind in ("af", "non_af"):
        made = synthetic.recording(0, duration_s=20, rate_hz=125.0)
        folder = tmp_path / f"mimic_perform_{kind}_csv"
        folder.mkdir()
        table = np.stack([np.arange(2500) / 125, made.ppg, made.ecg], axis=1)
        path = folder / f"mimic_perform_{kind}_001_data.csv"
        np.savetxt(path, table, "%.4f", ",", header="Time,PPG,ECG", comments="")
    segments = read("af", tmp_path)
    assert sorted(zip(segments.label_B, segments.recording_B)) == [
        *[(0.0, "mimic_perform_non_af_csv/mimic_perform_non_af_001_data")] * 2,
        *[(1.0, "mimic_perform_af_csv/mimic_perform_af_001_data")] * 2,
    ]
    assert segments.present_BC.all()


def test_superclass_of_ptb_xl_takes_patients_and_single_classes(tmp_path):
    """Generated in PTB-XL's layout."""
    rows = [("1", "10", "{'NORM': 100.0}"), ("2", "10", "{'IMI': 50.0}"), ("3", "11", "{'NORM': 80.0, 'IMI': 15.0}")]
    header = ["ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", "filename_lr", "filename_hr"]
    with (tmp_path / "ptbxl_database.csv").open("w", newline="") as file:
        lines = [
            [k, f"{p}.0", "50", "0", codes, "1", f"records100/{k}_lr", f"records500/0000{k}_hr"] for k, p, codes in rows
        ]
        csv.writer(file).writerows([header, *lines])
    write_lines(tmp_path / "scp_statements.csv", ",diagnostic,diagnostic_class", "NORM,1.0,NORM", "IMI,1.0,MI")
    for k, _, _ in rows:
        write_wfdb(tmp_path / "records500", f"0000{k}_hr", 10, signals=("I", "II"))
    segments = read("superclass", tmp_path, channels=("ecg",))
    assert segments.label_B.tolist() == [0, 1]
    assert len(set(segments.subject_B)) == 1


def test_superclass_of_headers_counts_each_ecg_once(tmp_path):
    write_wfdb(tmp_path, "00001_hr", 10, signals=("I", "II"), comments=["Labels: NORM"])
    write_wfdb(tmp_path, "00001_lr", 10, signals=("I", "II"), comments=["Labels: NORM"])
    write_wfdb(tmp_path, "00002_hr", 10, signals=("I", "II"), comments=["Labels: Old MI, PVC"])
    write_wfdb(tmp_path, "00003_hr", 10, signals=("I", "II"), comments=["Labels: STTC, HYP"])
    segments = read("superclass", tmp_path, channels=("ecg",))
    assert dict(zip(segments.recording_B, segments.label_B)) == {"00001_hr": 0, "00002_hr": 1}


def test_rhythm_keeps_segments_apart(tmp_path):
    rng = np.random.default_rng(0)
    ppg = rng.integers(0, 32767, (4, 1000)).astype(np.int16)
    np.savez(tmp_path / "patient_02.npz", ppg=ppg, rhythm=np.array([0, 3, 5, 5], np.uint8), rate_hz=100)
    segments = read("rhythm", tmp_path)
    assert segments.label_B.tolist() == [0, 3, 5, 5]
    np.testing.assert_allclose(segments.x_BCT[1, 0], ppg[1], rtol=1e-4)
    assert segments.present_BC.tolist() == [[True, False]] * 4
    # windows over an edge have no label
    assert read("rhythm", tmp_path, length=800).label_B.tolist() == [0, 5]
    (tmp_path / "below").mkdir()
    np.savez(tmp_path / "below" / "patient_04.npz", ppg=ppg, rhythm=np.array([1, 1, 2, 2], np.uint8), rate_hz=100)
    below = read("rhythm", tmp_path)
    assert below.label_B.tolist() == [1, 1, 2, 2, 0, 3, 5, 5]
    assert len(np.unique(below.subject_B)) == 2
    np.savez(tmp_path / "patient_03.npz", ppg=ppg)
    with pytest.raises(UserError, match=r"patient_03\.npz"):
        read("rhythm", tmp_path)


def write_bidmc(folder, name: str, patient: str, seed: int, seconds: int = 40) -> np.ndarray:
    """Write a recording in BIDMC's layout, with an arterial line; return (systolic, diastolic) of its beats."""
    course = draw_course(draw_patient(seed, rhythm="sinus"), seed, duration_s=seconds)
    made = record(course, seed, rate_hz=125.0)
    folder.mkdir(exist_ok=True)
    table = np.stack([made["ppg"], made["ecg"], made["abp"]], axis=1)
    np.savetxt(folder / f"{name}_Signals.csv", table, "%.4f", ",", header="PLETH, II, ABP", comments="")
    lines = [f"{second},{70 + seed},{70 + seed},{15 + second % 2},{97 if second else ''}" for second in range(seconds)]
    write_lines(folder / f"{name}_Numerics.csv", "Time [s], HR, PULSE, RESP, SpO2", *lines)
    write_lines(folder / f"{name}_Fix.txt", name, f"MIMIC II matched wdb ID: {patient}")
    return made["abp"]


def test_tasks_of_bidmc_read_monitor_patients_and_pressure(tmp_path):
    folder = tmp_path / "bidmc"
    abp = [
        write_bidmc(folder, f"bidmc_0{k}", patient, k) for k, patient in ((1, "s00001"), (2, "s00001"), (3, "s00002"))
    ]
    rate = read("heart_rate", folder)
    assert set(rate.subject_B) == {"csv:bidmc/s00001", "csv:bidmc/s00002"}
    assert rate.subject_known_B.all()
    assert np.unique(rate.label_B).tolist() == [71, 72, 73]
    assert np.unique(read("respiratory_rate", folder).label_B).tolist() == [15.5]
    assert np.unique(read("spo2", folder).label_B).tolist() == [97]
    pressure = read("blood_pressure", folder)
    assert pressure.label_BK.shape == (12, 2)
    for number, x_T in enumerate(abp):
        own = pressure.label_BK[pressure.recording_B == f"bidmc_0{number + 1}_Signals"]
        high, low = np.quantile(x_T, [0.98, 0.02])
        assert np.abs(np.median(own, axis=0) - [high, low]).max() < 6
    with pytest.raises(UserError, match="needs no prediction"):
        read("blood_pressure", folder, channels=("ppg", "abp"))
    whose = read("identification", folder)
    assert whose.classes == ("csv:bidmc/s00001", "csv:bidmc/s00002")
    assert whose.label_B.tolist() == [0] * 8 + [1] * 4


def test_a_line_that_is_no_pressure_has_no_label():
    course = draw_course(draw_patient(5, rhythm="sinus"), 5, duration_s=10.0)
    abp = record(course, 5, rate_hz=125.0)["abp"]
    flushed, flat, far, lost = abp.copy(), np.full_like(abp, 90.0), abp + 200, abp.copy()
    flushed[:700] = 300.0
    lost[:500] = np.nan
    found = pressures(np.stack([abp, flat, far, lost]), 10.0)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1:]).all()


def test_every_task_says_what_it_is():
    for name, task in tasks.TASKS.items():
        assert task.labels_are, name
        assert task.published, name
        assert all(layout.holds for layout in task.layouts)
        assert task.classes or task.classes_are_subjects or task.unit


def test_folder_of_no_layout_names_those_that_are_known(tmp_path):
    with pytest.raises(UserError, match=r"REFERENCE\.csv.*mimic_perform.*data_\*\.atr"):
        read("af", tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read("af", tmp_path / "nowhere")


def test_encoder_of_other_channels_is_told_so(tmp_path):
    write_wfdb(tmp_path, "A1", 25, signals=("I",))
    write_lines(tmp_path / "REFERENCE.csv", "A1,N")
    with pytest.raises(UserError, match="takes ppg, of which the recordings have none"):
        read("af", tmp_path, channels=("ppg",))


@pytest.mark.parametrize(
    ("name", "file", "lines", "said"),
    [
        ("vt_alarm", "ALARMS", ["v1,Ventricular_Tachycardia,yes"], "line 1"),
        ("vt_alarm", "event_labels.csv", ["record,event"], "decision"),
        ("af", "REFERENCE.csv", ["A1,X"], "labels N, A, O"),
    ],
)
def test_files_of_labels_that_are_none_are_named(tmp_path, name, file, lines, said):
    write_wfdb(tmp_path, "v1", 300 if name == "vt_alarm" else 20)
    write_lines(tmp_path / file, *lines)
    with pytest.raises(UserError, match=said):
        read(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder", "segments", "subjects"),
    [
        ("vt_alarm", "cinc2015_vt", 169, 169),
        ("af", "cinc2017", 581, 180),
        ("af", "cpsc2021_af", 93, 4),
        ("heart_rate", "bidmc", 640, 34),
        ("blood_pressure", "bidmc", 118, 4),
        ("signal_quality", "cinc2017", 626, 200),
        ("superclass", "ptbxl_sample", 18, 18),
        ("rhythm", "ppg_rhythm", 2358, 26),
    ],
)
def test_real_folders_are_read_whole(data_dir, name, folder, segments, subjects):
    task = tasks.get_task(name)
    sources = tasks.find_sources(task, [str(data_dir / folder)])
    length = tasks.window_length(task, sources, None, 100.0, 3000)
    found = tasks.read_segments(name, sources, rate_hz=100.0, length=length, channels=("ppg", "ecg"))
    assert (len(found.label_BK), len(set(found.subject_B))) == (segments, subjects)
