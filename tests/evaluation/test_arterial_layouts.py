"""Blood pressure and its course of the UCI set and of PulseDB: folders generated in their layouts, none is here."""

import h5py
import numpy as np
import pytest
import scipy.io

from jaxbio.config.faults import UserError
from jaxbio.evaluation import tasks
from jaxbio.evaluation.tasks.abp_waveform import courses
from jaxbio.signals.patients import draw_course, draw_patient, record

RATE_HZ = 125.0


def simulate(seed: int, seconds: float) -> dict[str, np.ndarray]:
    return record(draw_course(draw_patient(seed, rhythm="sinus"), seed, duration_s=seconds), seed, rate_hz=RATE_HZ)


def as_matlab(path, write) -> None:
    """Write a file of version 7.3: HDF5 behind MATLAB's header; `write(file, put)` puts numbers by name."""

    def put(file, name, value):
        dataset = file.create_dataset(name, data=np.atleast_2d(value))
        dataset.attrs["MATLAB_class"] = np.bytes_("double")
        return dataset

    with h5py.File(path, "w", userblock_size=512) as file:
        write(file, lambda name, value: put(file, name, value))
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")


def write_uci(path, recordings: list[dict[str, np.ndarray]]) -> None:
    def write(file, put):
        # the axes of MATLAB are in reverse: a cell holds 3 x samples
        made = [
            put(f"#refs#/{k}", np.stack([own["ppg"], own["abp"], own["ecg"]], axis=1))
            for k, own in enumerate(recordings)
        ]
        cell = file.create_dataset(path.stem, (len(made), 1), h5py.ref_dtype)
        cell.attrs["MATLAB_class"] = np.bytes_("cell")
        cell[:, 0] = [dataset.ref for dataset in made]

    as_matlab(path, write)


def write_pulsedb(path, windows: list[dict[str, np.ndarray]], pressures: list[tuple[float, float]]) -> None:
    def write(file, put):
        group = file.create_group("Subj_Wins")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        fields = {f"{role.upper()}_Raw": [own[role] for own in windows] for role in ("ppg", "ecg", "abp")}
        fields |= {"SegSBP": [np.array(high) for high, _ in pressures], "SegDBP": [np.array(p[1]) for p in pressures]}
        for field, values in fields.items():
            made = [put(f"#refs#/{field}{k}", value) for k, value in enumerate(values)]
            references = group.create_dataset(field, (len(made), 1), h5py.ref_dtype)
            references[:, 0] = [dataset.ref for dataset in made]

    as_matlab(path, write)


def read(name: str, folder, channels=("ppg", "ecg")):
    sources = tasks.find_sources(tasks.get_task(name), [str(folder)])
    return tasks.read_segments(name, sources, rate_hz=100.0, length=1000, channels=channels)


def test_uci_reads_both_versions_of_its_cells_and_knows_no_patient(tmp_path):
    own = [simulate(seed, 25.0) for seed in (1, 2, 3)]
    write_uci(tmp_path / "Part_1.mat", own[:2])
    cell = np.empty((1, 2), object)
    cell[0, :] = [np.stack([own[2]["ppg"], own[2]["abp"], own[2]["ecg"]]), np.zeros((3, 400))]
    scipy.io.savemat(tmp_path / "part_12.mat", {"p": cell})
    segments = read("blood_pressure", tmp_path)
    assert segments.recording_B.tolist() == [f"{name}" for name in ("Part_1/Part_1/1", "Part_1/Part_1/2", "part_12/p/1")
                                             for _ in range(2)]  # fmt: skip
    assert not segments.subject_known_B.any()
    assert len(set(segments.subject_B)) == 3
    for number in range(3):
        high, low = np.quantile(own[number]["abp"], [0.98, 0.02])
        assert np.abs(segments.label_BK[2 * number] - [high, low]).max() < 8
    with pytest.raises(UserError, match="needs no prediction"):
        read("blood_pressure", tmp_path, channels=("ppg", "abp"))


def test_pulsedb_has_its_own_pressures_and_patients(tmp_path):
    for seed, name in ((1, "p000160"), (2, "p001234")):
        windows = [simulate(10 * seed + k, 10.0) for k in range(3)]
        write_pulsedb(tmp_path / f"{name}.mat", windows, [(100.0 + seed, 60.0 + k) for k in range(3)])
    segments = read("blood_pressure", tmp_path)
    assert segments.label_BK.tolist() == [[100.0 + seed, 60.0 + k] for seed in (1, 2) for k in range(3)]
    assert sorted(set(segments.subject_B)) == [f"mat:{tmp_path.name}/{name}" for name in ("p000160", "p001234")]
    assert segments.subject_known_B.all()
    task = tasks.get_task("blood_pressure")
    assert tasks.window_length(task, tasks.find_sources(task, [str(tmp_path)]), None, 300.0, 9000) == 3000
    assert read("abp_waveform", tmp_path).label_BK.shape == (6, 250)


def test_a_file_of_pulsedb_without_pressures_is_named(tmp_path):
    write_pulsedb(tmp_path / "p000160.mat", [simulate(1, 10.0)] * 2, [(1.0, 1.0)] * 2)
    with h5py.File(tmp_path / "p000160.mat", "r+") as file:
        del file["Subj_Wins/SegSBP"]
    with pytest.raises(UserError, match=r"p000160\.mat.*SegSBP"):
        read("blood_pressure", tmp_path)


def test_courses_are_the_line_at_25_hz_and_none_where_it_is_no_pressure_or_was_held():
    t_T = np.arange(round(10 * RATE_HZ)) / RATE_HZ
    beats_T = simulate(5, 10.0)["abp"].astype(np.float32)
    held_T, flushed_T, flat_T = beats_T.copy(), beats_T.copy(), np.full_like(beats_T, 90.0)
    held_T[400:500] = held_T[400]
    flushed_T[700:1150] = 185 + np.arange(450) % 2  # moves by the last bit of the converter
    found = courses(np.stack([beats_T, held_T, flushed_T, flat_T]), 10.0)
    assert found.shape == (4, 250)
    assert np.isnan(found[1:]).all()
    np.testing.assert_allclose(found[0], np.interp(np.arange(250) / 25.0, t_T, beats_T), atol=4.0)
    assert np.abs(found[0] - np.interp(np.arange(250) / 25.0, t_T, beats_T)).mean() < 1.0
