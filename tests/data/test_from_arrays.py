"""A store from arrays: what was handed in comes back, planted artefacts are found, and faults are named together."""

from datetime import datetime

import numpy as np
import pytest
from prepared import beating_signals

import jaxbio
from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.data.quantise import dequantise
from jaxbio.signals.synthetic import Artefact, recording


def two_channels(count: int, duration_s: float = 90.0) -> dict[str, list[np.ndarray]]:
    made = [beating_signals(number, duration_s) for number in range(count)]
    return {"ppg": [signals["PLETH"] for signals in made], "ecg": [signals["II"] for signals in made]}


def test_arrays_come_back_in_physical_units_with_names_subjects_and_times(tmp_path):
    config = fields.change(fields.defaults(), {"data.rate_hz": 100.0})  # their own rate: nothing is resampled
    signals = two_channels(3)
    names, subjects, times = ["x", "y", "z"], ["p1", "p2", "p3"], [1e9, 1e9 + 1000, 1e9 + 2000]
    store = jaxbio.store_from_arrays(
        tmp_path / "s", rate_hz=100.0, config=config, names=names, subjects=subjects, start_times=times, **signals
    )
    assert store.rows == 9
    assert store.column("recording").tolist() == [name for name in names for _ in range(3)]
    assert store.column("subject").tolist() == [name for name in subjects for _ in range(3)]
    np.testing.assert_allclose(store.column("time_s"), [time + start for time in times for start in (0, 30, 60)])
    x_NCT = dequantise(store.read(np.arange(9)), store.scale_NC2)
    expected = np.stack([np.reshape(signals[role], (9, 3000)) for role in ("ppg", "ecg")], axis=1)
    np.testing.assert_allclose(x_NCT, expected, atol=np.ptp(expected) / 60_000)
    assert store.manifest["units"] == {"ppg": ["NU"], "ecg": ["mV"]}


def test_roles_given_are_the_channels_and_rates_may_differ(tmp_path):
    store = jaxbio.store_from_arrays(
        tmp_path / "s",
        rate_hz={"ecg": 250.0, "abp": 62.5},
        ecg=[np.sin(np.arange(250 * 70) / 20)],
        abp=[80 + np.sin(np.arange(round(62.5 * 70)) / 9)],
    )
    assert store.channels == ("ecg", "abp")
    assert store.rows == 2
    assert store.manifest["account"]["rejected_s"] == {"remainder": pytest.approx(10.0)}


def test_faults_are_named_together(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(UserError) as caught:
        jaxbio.store_from_arrays(
            tmp_path / "full", rate_hz=0.0, subjects=["a"], config=fields.defaults(), ppg=np.zeros((2, 5000))
        )
    assert {fault.field for fault in caught.value.faults} == {"ecg", "rate_hz", "signals", "out"}
    good = np.zeros(6000)
    with pytest.raises(UserError) as caught:
        jaxbio.store_from_arrays(
            tmp_path / "s",
            rate_hz=100.0,
            ppg=[good, good, good.reshape(2, -1)],
            ecg=[good[:100], np.array([{}] * 10), good],
        )
    named = {fault.field for fault in caught.value.faults}
    assert {"recording 0", "ecg[1]", "ppg[2]"} <= named
    with pytest.raises(UserError, match="at least one recording"):
        jaxbio.store_from_arrays(tmp_path / "s", rate_hz=100.0, ppg=[])


GOOD = 0.1 * np.sin(np.arange(6000) / 20) + np.random.default_rng(0).normal(size=6000)  # 48 s at 125 Hz
WRONG_CALLS = {
    "a rate of one role": ({"rate_hz": {"ecg": 125}, "ppg": [GOOD], "ecg": [GOOD]}, "rate_hz"),
    "a rate as text": ({"rate_hz": "125", "ecg": [GOOD]}, "rate_hz"),
    "no rate": ({"rate_hz": None, "ecg": [GOOD]}, "rate_hz"),
    "a rate that is no number": ({"rate_hz": np.nan, "ecg": [GOOD]}, "rate_hz"),
    "a rate of another device": ({"rate_hz": 1e6, "ecg": [GOOD]}, "rate_hz"),
    "start times of None": ({"ecg": [GOOD, GOOD], "start_times": [None, 5.0]}, "start_times[0]"),
    "start times as datetimes": ({"ecg": [GOOD], "start_times": [datetime(2020, 1, 1)]}, "start_times[0]"),
    "a role that is none": ({"pleth": [GOOD]}, "pleth"),
    "too short": ({"ecg": [GOOD[:1000]]}, "signals"),
    "names twice": ({"ecg": [GOOD, GOOD[::-1]], "names": ["a", "a"]}, "names"),
    "names as one text": ({"ecg": [GOOD], "names": "a"}, "names"),
    "one signal in the place of a list": ({"ecg": GOOD}, "ecg"),
    "a number in the place of a list": ({"ecg": 7.0}, "ecg"),
    "none": ({"ecg": None}, "ecg"),
    "rows of unlike length": ({"ecg": [[[1.0, 2.0], [3.0]]]}, "ecg[0]"),
    "nothing that can be kept": ({"ecg": [np.full(6000, np.nan)]}, "signals"),
}


@pytest.mark.parametrize("folder", ["new", "empty"])
@pytest.mark.parametrize("case", WRONG_CALLS)
def test_wrong_calls_are_faults_of_the_argument_and_leave_nothing_behind(tmp_path, case, folder):
    arguments, named = WRONG_CALLS[case]
    out = tmp_path / "s"
    if folder == "empty":
        out.mkdir()
    with pytest.raises(UserError) as caught:
        jaxbio.store_from_arrays(out, **{"rate_hz": 125.0, **arguments})
    assert caught.value.faults[0].field == named
    assert "--source" not in str(caught.value)
    assert out.exists() == (folder == "empty")
    assert not out.exists() or not any(out.iterdir())


def test_faults_of_one_kind_in_many_recordings_are_one_line(tmp_path):
    with pytest.raises(UserError) as caught:
        jaxbio.store_from_arrays(tmp_path / "s", rate_hz=125.0, ppg=[GOOD.reshape(2, -1)] * 500, ecg=[GOOD[:0]] * 500)
    assert str(caught.value).count("\n") == 1
    assert str(caught.value).count("499 more") == 2


def test_masked_samples_are_missing_and_unknown_patients_are_unknown(tmp_path):
    masked = np.ma.masked_array(GOOD, mask=np.zeros(6000, bool))
    masked[100:300] = np.ma.masked
    store = jaxbio.store_from_arrays(
        tmp_path / "s", rate_hz=125.0, ecg=[masked] * 3, subjects=[None, np.nan, "p3"], start_times=[np.nan, 5.0, 6]
    )
    assert store.column("ecg_missing_frac") == pytest.approx([200 / 3750] * 3)
    assert store.column("subject").tolist() == ["000000", "000001", "p3"]
    assert store.column("subject_known").tolist() == [False, False, True]
    assert store.table["time_s"].to_pylist() == [None, 5.0, 6.0]


def test_a_corrected_call_writes_where_a_wrong_one_was_refused(tmp_path):
    with pytest.raises(UserError):
        jaxbio.store_from_arrays(tmp_path / "s", rate_hz=125.0, ecg=[np.full(6000, np.nan)])
    assert jaxbio.store_from_arrays(tmp_path / "s", rate_hz=125.0, ecg=[GOOD]).rows == 1


def test_a_recording_without_a_lead_is_derived_masked_or_a_fault(tmp_path):
    leads = {"i": beating_signals(0, 20)["II"], "ii": beating_signals(1, 20)["II"]}
    iii = leads["ii"] - leads["i"]
    signals = {"i": [leads["i"]] * 2, "ii": [leads["ii"]] * 2, "iii": [iii, None]}
    ten_s = {"data.rate_hz": 100.0, "data.segment_s": 10.0, "data.channels": ("i", "ii", "iii")}

    def store(policy: str, **given):
        config = fields.change(fields.defaults(), {**ten_s, "prepare.missing_channel": policy})
        return jaxbio.store_from_arrays(tmp_path / policy, rate_hz=100.0, config=config, **given)

    with pytest.raises(UserError, match="recording 000001 = 'no signal for iii'"):
        store("refuse", **signals)
    derived = store("derive", **signals)
    assert derived.column("iii_name").tolist() == ["iii"] * 2 + ["derived from i, ii"] * 2
    x_NCT = dequantise(derived.read(np.arange(4)), derived.scale_NC2)
    np.testing.assert_allclose(x_NCT[2:, 2], iii.reshape(2, 1000), atol=np.ptp(iii) / 60_000)
    masked = store("mask", **signals)
    assert masked.present_NC.tolist() == [[True] * 3] * 2 + [[True, True, False]] * 2
    assert not masked.read([2, 3])[:, 2].any()
    config = fields.change(
        fields.defaults(), {**ten_s, "data.channels": ("i", "v1"), "prepare.missing_channel": "derive"}
    )
    with pytest.raises(UserError, match="no signal for v1") as caught:
        jaxbio.store_from_arrays(tmp_path / "s", rate_hz=100.0, config=config, i=[leads["i"]])
    assert caught.value.faults[0].field == "recording 000000"
    with pytest.raises(UserError, match="eeg = 'unknown role'"):
        jaxbio.store_from_arrays(tmp_path / "s", rate_hz=100.0, i=[leads["i"]], eeg=[leads["i"]])


def loud_motion(length: int, rate_hz: float, rng: np.random.Generator) -> np.ndarray:
    """1/f noise of 0.3-10 Hz and unit variance over the whole length (the generator's own comes in bursts)."""
    frequency_hz = np.fft.rfftfreq(length, 1 / rate_hz)
    gain = ((frequency_hz >= 0.3) & (frequency_hz <= 10.0)) / np.maximum(frequency_hz, 0.3)
    noise_T = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * gain, n=length)
    return noise_T / noise_T.std()


def spoilt_recording(seed: int, kind: str, share: float, rate_hz: float) -> dict[str, np.ndarray]:
    """Two segments of a clean heart with `share` of each spoilt in both channels.

    Noises have 10 times the signal's variance there; or the signal stops.
    """
    rng = np.random.default_rng(seed)
    start_s = 30 * np.arange(2) + rng.uniform(0, 30 * (1 - share), 2)
    planted = [Artefact(kind, role, start, start + 30 * share, -10.0) for start in start_s for role in ("ppg", "ecg")]
    made = recording(seed, duration_s=60.0, rate_hz=rate_hz, artefacts=() if kind == "motion" else planted)
    signals = {"ppg": made.ppg.copy(), "ecg": made.ecg.copy()}
    for artefact in planted if kind == "motion" else ():
        span = slice(round(artefact.start_s * rate_hz), round(artefact.stop_s * rate_hz))
        signal = signals[artefact.channel]
        signal[span] += 10**0.5 * signal.std() * loud_motion(signal[span].size, rate_hz, rng)
    return signals


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("kind", ["motion", "wander", "mains", "emg", "white", "lead_off", "dropout", "held"])
def test_planted_artefacts_come_back_as_their_share_of_the_segment(tmp_path, kind, share):
    made = [spoilt_recording(seed, kind, share, 125.0) for seed in range(8)]
    config = fields.change(fields.defaults(), {"prepare.max_missing_frac": 0.9})  # dropouts stay in the store
    signals = {role: [signals[role] for signals in made] for role in ("ppg", "ecg")}
    store = jaxbio.store_from_arrays(tmp_path / "s", rate_hz=125.0, config=config, **signals)
    found = store.column("artefact_frac")
    assert store.rows == 16
    assert abs(np.median(found) - share) <= 0.1
    assert np.mean(np.abs(found - share) <= 0.1) >= 0.85, np.sort(found).round(2)
