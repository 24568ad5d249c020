"""The generator keeps its word: seeds, rates, rhythms, artefacts where they were planted, noise of the stated power."""

import itertools

import numpy as np
import pytest

from jaxbio.signals import noise
from jaxbio.signals.segments import measure
from jaxbio.signals.synthetic import ARTEFACTS, RHYTHMS, Artefact, add_noise, random_artefacts, recording


def test_everything_follows_from_the_seed():
    artefacts = random_artefacts(3, 60.0)
    first, again = (recording(3, duration_s=60.0, rhythm="af", artefacts=artefacts) for _ in range(2))
    other = recording(4, duration_s=60.0, rhythm="af", artefacts=artefacts)
    for role in ("ppg", "ecg", "abp"):
        np.testing.assert_array_equal(getattr(first, role), getattr(again, role))
        assert not np.array_equal(getattr(first, role), getattr(other, role))
    assert random_artefacts(3, 60.0) == artefacts


@pytest.mark.parametrize("rate_hz", [62.5, 125.0, 300.0])
def test_lengths_types_and_units(rate_hz):
    made = recording(0, duration_s=61.0, rate_hz=rate_hz)
    for role in ("ppg", "ecg", "abp"):
        signal_T = getattr(made, role)
        assert signal_T.shape == (round(61 * rate_hz),)
        assert signal_T.dtype == np.float32
    assert 40 < made.abp.min() < made.abp.max() < 180
    assert 0.3 < np.abs(made.ecg).max() < 3
    assert np.all((made.r_peaks_s >= 0) & (made.r_peaks_s < 61))


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_rhythms_are_what_they_are_called(rhythm):
    made = [recording(seed, duration_s=120.0, rhythm=rhythm) for seed in range(4)]
    interval_s = [np.diff(one.r_peaks_s) for one in made]
    variation = np.median([one.std() / one.mean() for one in interval_s])
    ventricular = np.mean([one.ventricular.mean() for one in made])
    rate_bpm = np.median([60 / one.mean() for one in interval_s])
    low, high = {"vt": (140, 195), "tachycardia": (120, 170)}.get(rhythm, (45, 120))
    assert low <= rate_bpm <= high
    assert {"vt": 1.0, "bigeminy": 0.5}.get(rhythm, 0.0) == pytest.approx(ventricular, abs=0.15)
    assert (variation > 0.15) == (rhythm in ("af", "ectopy", "bigeminy"))
    if rhythm == "ectopy":
        assert 0.05 < ventricular < 0.2


@pytest.mark.parametrize("rate_bpm", [50.0, 75.0, 110.0])
def test_the_rate_can_be_given(rate_bpm):
    made = recording(1, duration_s=120.0, heart_rate_bpm=rate_bpm)
    assert 60 / np.diff(made.r_peaks_s).mean() == pytest.approx(rate_bpm, rel=0.05)


@pytest.mark.parametrize("kind", noise.NOISES)
@pytest.mark.parametrize("snr_db", [10.0, -5.0])
def test_noise_has_the_stated_power(kind, snr_db):
    x_BT = np.stack([recording(seed, duration_s=30.0).ecg for seed in range(2)])
    added_BT = add_noise(x_BT, kind, snr_db, np.random.default_rng(0), 300.0) - x_BT
    found_db = 10 * np.log10(x_BT.var(axis=1) / added_BT.var(axis=1))
    np.testing.assert_allclose(found_db, snr_db, atol=0.05)


@pytest.mark.parametrize(
    ("kind", "low_hz", "high_hz"),
    [("wander", 0.05, 0.5), ("mains", 49.9, 50.1), ("mains_60", 59.9, 60.1), ("emg", 20, 150)],
)
def test_noise_lies_in_its_band(kind, low_hz, high_hz):
    noise_T = noise.make_noise(kind, 18000, np.random.default_rng(0), 300.0)
    power_S = np.abs(np.fft.rfft(noise_T)) ** 2
    frequency_hz = np.fft.rfftfreq(18000, 1 / 300)
    inside = (frequency_hz >= low_hz - 1e-9) & (frequency_hz <= high_hz + 1e-9)
    assert power_S[inside].sum() / power_S.sum() > 0.999


def test_motion_covers_half_the_signal_in_bursts():
    noise_T = noise.make_noise("motion", 9000, np.random.default_rng(0), 300.0)
    moving_T = noise_T != 0
    assert moving_T.mean() == pytest.approx(0.5, abs=0.001)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], moving_T.astype(int), [0]])))
    assert np.diff(edges)[::2].min() >= 2 * 300 - 1


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.4, 0.6])
@pytest.mark.parametrize("fill", ["nan", "hold"])
def test_dropout_has_its_exact_share(share, fill):
    x_BT = np.random.default_rng(1).standard_normal((3, 9000)).astype(np.float32)
    lost_BT = noise.add_dropout(x_BT, share, np.random.default_rng(2), 300.0, fill=fill)
    changed_BT = np.isnan(lost_BT) if fill == "nan" else lost_BT != x_BT
    # a held block that opens the signal keeps its own first value
    assert np.abs(changed_BT.sum(axis=1) - round(share * 9000)).max() <= (0 if fill == "nan" else 1)


def test_impossible_noise_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="50 Hz"):
        noise.make_noise("mains", 3000, rng, 100.0)
    with pytest.raises(ValueError, match="emg"):
        noise.make_noise("emg", 3000, rng, 30.0)
    with pytest.raises(ValueError, match="thunder"):
        noise.make_noise("thunder", 3000, rng, 300.0)
    with pytest.raises(ValueError, match="zero"):
        noise.add_dropout(np.ones(3000), 0.1, rng, 100.0, fill="zero")


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_an_artefact_changes_its_span_of_its_channel_and_nothing_else(kind):
    artefact = Artefact(kind, "ecg", 10.0, 20.0, 0.1 if kind == "clipping" else -10.0)
    clean = recording(5, duration_s=30.0)
    made = recording(5, duration_s=30.0, artefacts=[artefact])
    np.testing.assert_array_equal(made.ppg, clean.ppg)
    np.testing.assert_array_equal(made.abp, clean.abp)
    different_T = ~((made.ecg == clean.ecg) | (np.isnan(made.ecg) & np.isnan(clean.ecg)))
    assert not different_T[:3000].any()
    assert not different_T[6000:].any()
    assert different_T[3000:6000].any()
    if kind == "clipping":
        return  # a limit within the signal's range cannot be told from a flat wave: see below
    scores = [
        measure({"ecg": one.ecg[None]}, rate_hz=300.0, length=9000, channels=("ecg",)).columns for one in (clean, made)
    ]
    assert scores[1]["ecg_waveform"][0] < scores[0]["ecg_waveform"][0]


def test_clipping_of_a_whole_recording_is_seen():
    artefacts = [Artefact(kind="clipping", channel="ecg", start_s=0.0, stop_s=30.0, strength=0.3)]
    ecg_BN = recording(5, duration_s=30.0, artefacts=artefacts).ecg[None]
    columns = measure({"ecg": ecg_BN}, rate_hz=300.0, length=9000, channels=("ecg",)).columns
    assert 0.05 < columns["ecg_clipped_frac"][0] < 0.35
    assert columns["ecg_waveform"][0] < 0.95


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="waltz"):
        recording(0, duration_s=30.0, rhythm="waltz")
    with pytest.raises(ValueError, match="thunder"):
        recording(0, duration_s=30.0, artefacts=[Artefact("thunder", "ecg", 0.0, 5.0)])
    with pytest.raises(ValueError, match="eeg"):
        recording(0, duration_s=30.0, artefacts=[Artefact("white", "eeg", 0.0, 5.0)])


def test_random_artefacts_cover_their_share():
    planted = random_artefacts(0, 3600.0, share=0.3)
    for channel in ("ppg", "ecg", "abp"):
        spans = [(one.start_s, one.stop_s) for one in planted if one.channel == channel]
        assert sum(stop - start for start, stop in spans) / 3600 == pytest.approx(0.3, abs=0.05)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
