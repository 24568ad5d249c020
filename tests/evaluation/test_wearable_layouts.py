"""WESAD and PPG-DaLiA: no recording of them is here, so these are folders generated in their layout."""

import pickle

import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.evaluation import tasks
from jaxbio.signals import synthetic

SECONDS = 80


def write_subject(folder, name: str, **beside) -> None:
    """Write a subject's pickle: signals of both data sets, and the codes `beside` them."""
    made = {rate: synthetic.recording(1, duration_s=SECONDS, rate_hz=float(rate)) for rate in (64, 700)}
    signals = {"chest": {"ECG": made[700].ecg[:, None]}, "wrist": {"BVP": made[64].ppg[:, None]}}
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / f"{name}.pkl").write_bytes(pickle.dumps({"signal": signals, "subject": name, **beside}, 2))


def codes(rate_hz: int, *spans: tuple[int, int]) -> np.ndarray:
    """Return codes at a rate: of (code, seconds) one after the other."""
    return np.concatenate([np.full(seconds * rate_hz, code, np.int32) for code, seconds in spans])


def read(name: str, folder, length: int = 1000):
    sources = tasks.find_sources(tasks.get_task(name), [str(folder)])
    return tasks.read_segments(name, sources, rate_hz=100.0, length=length, channels=("ppg", "ecg"))


def test_affect_of_wesad_takes_windows_that_are_spent_in_one_condition(tmp_path):
    write_subject(tmp_path, "S2", label=codes(700, (1, 20), (0, 10), (2, 15), (3, 15), (4, 10), (5, 10)))
    write_subject(tmp_path, "S10", label=codes(700, (2, SECONDS)))
    segments = read("affect", tmp_path)
    of_2 = segments.subject_B == f"pickle:{tmp_path.name}/S2"
    assert segments.start_s_B[of_2].tolist() == [0, 10, 30, 50, 60]  # 40 to 50 s is of two conditions
    names = [tasks.get_task("affect").classes[int(code)] for code in segments.label_B[of_2]]
    assert names == ["baseline", "baseline", "stress", "amusement", "meditation"]
    assert set(segments.subject_B[~of_2]) == {f"pickle:{tmp_path.name}/S10"}
    assert segments.subject_known_B.all()
    assert segments.present_BC.all()


def test_activity_of_ppg_dalia_follows_codes_at_four_a_second(tmp_path):
    spans = ((1, 20), (0, 10), (8, 20), (7, 30))
    write_subject(tmp_path, "S1", activity=codes(4, *spans)[:, None].astype(float), label=np.ones(37))
    segments = read("activity", tmp_path, length=800)
    names = [tasks.get_task("activity").classes[int(code)] for code in segments.label_B]
    assert names == ["sitting", "sitting", "working", "working", "walking", "walking", "walking"]
    assert segments.start_s_B.tolist() == [0, 8, 32, 40, 56, 64, 72]


def test_a_pickle_without_states_is_named(tmp_path):
    write_subject(tmp_path, "S2")
    with pytest.raises(UserError, match=r"S2\.pkl.*'label'"):
        read("affect", tmp_path)
