"""The published score against its formulas written out one beat, one segment at a time, in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from jaxbio.signals import author
from jaxbio.signals.beats import beats_of
from jaxbio.signals.synthetic import add_noise, recording

HZ = 300.0


def ecg_by_the_letter(time_s, low_bpm=40.0, high_bpm=120.0):
    """The published score of beats at `time_s`."""
    n = len(time_s)
    if n < 20:
        return 0.0
    rr = np.diff(time_s)
    hr = 60.0 / rr
    bad = []
    for k in range(n - 1):
        wrong = not low_bpm <= hr[k] <= high_bpm
        if k:
            wrong |= abs(rr[k] - rr[k - 1]) > 0.5 or abs(hr[k] - hr[k - 1]) / hr[k - 1] > 0.30
        bad.append(wrong)
    turned = [k for k in range(1, n - 2) if bad[k - 1] and not bad[k] and bad[k + 1]]
    for k in turned:
        bad[k] = True
    return (n - 1 - sum(bad)) / n


def ppg_by_the_letter(x):
    """The published score of a PPG, with SciPy's own detrend, Welch and peaks."""
    x = signal.detrend(x)
    z = (x - x.mean()) / x.std()
    frequency, power = signal.welch(z, fs=HZ, nperseg=256)

    def total(low, high):
        return power[(frequency >= low) & (frequency <= high)].sum()

    def sigma(v):
        return 1 / (1 + np.exp(-v))

    snr = 10 * np.log10(total(0.5, 5) / (total(5, 25) + 1e-10))
    share = np.histogram(z, bins=20)[0] / len(z)
    share = share[share > 0]
    terms = {
        "author_snr": sigma(0.5 * (snr - 5)),
        "author_perf": np.clip(10 * (x.max() - x.min()) / x.mean(), 0, 1),
        "author_skew": sigma(5 * (abs(np.mean(z**3)) - 1)),
        "author_rel": np.clip(2 * total(0.5, 5) / total(0.1, 50), 0, 1),
        "author_ent": 1 + np.sum(share * np.log(share)) / np.log(20),
    }
    peaks, _ = signal.find_peaks(z, distance=HZ / 2, prominence=0.5)
    raw = np.clip(0.2 * sum(terms.values()), 0, 1)
    return terms | {"author": 0.0 if len(peaks) < 2 else np.clip((raw - 0.5) / 0.3, 0, 1)}


def beats_of_rows(rows):
    row_J = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return beats_of(row_J, np.concatenate([*rows, []]), len(rows))


@pytest.mark.parametrize(
    ("intervals_s", "expected"),
    [
        (np.full(30, 0.8), 30 / 31),  # regular: all but the first beat
        (np.full(18, 0.8), 0.0),  # 19 beats are too few
        (np.full(30, 0.45), 0.0),  # 133 a minute
        (np.full(25, 1.55), 0.0),  # 39 a minute
        (np.tile([0.6, 1.2], 15), 1 / 31),  # bigeminy: every beat but the first jumps
    ],
)
def test_ecg_score_on_hand_made_beats(intervals_s, expected):
    beats = beats_of_rows([np.concatenate([[0.3], 0.3 + np.cumsum(intervals_s)])])
    assert author.ecg_score(beats)[0] == pytest.approx(expected, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_ecg_score_is_the_fact_sheets_for_any_beats(seed, rows):
    rng = np.random.default_rng(seed)
    times = [np.cumsum(rng.uniform(*rng.choice([(0.3, 1.7), (0.7, 0.9)]), rng.integers(0, 60))) for _ in range(rows)]
    expected_B = [ecg_by_the_letter(time_s) for time_s in times]
    np.testing.assert_allclose(author.ecg_score(beats_of_rows(times)), expected_B, rtol=0, atol=1e-12)


def test_one_good_beat_between_two_bad_ones_is_bad():
    intervals_s = np.full(30, 0.8)
    intervals_s[[10, 14]] = 0.45  # bad, and so is the one after each
    lone = intervals_s.copy()
    lone[12] = 0.45  # now 11 and 13 are bad by the jump: nothing good is left from 10 to 15
    for case in (intervals_s, lone):
        time_s = np.concatenate([[0.0], np.cumsum(case)])
        assert author.ecg_score(beats_of_rows([time_s]))[0] == pytest.approx(ecg_by_the_letter(time_s))


def test_other_rates_can_be_accepted():
    beats = beats_of_rows([np.arange(60) * 0.45])
    assert author.ecg_score(beats, (40.0, 180.0))[0] == pytest.approx(59 / 60)


@pytest.mark.parametrize("kind", ["clean", "noisy", "stepped", "sine", "ramp"])
def test_ppg_score_is_the_fact_sheets_to_1e_9(kind):
    rng = np.random.default_rng(4)
    made = np.stack([recording(seed, duration_s=30.0, rhythm="af").ppg for seed in range(3)]).astype(np.float64)
    t_T = np.arange(9000) / HZ
    x_BT = {
        "clean": made,
        "noisy": add_noise(made, "white", 0.0, rng, HZ),
        "stepped": np.round(made * 40),
        "sine": np.sin(2 * np.pi * np.array([[0.7], [1.3], [4.0]]) * t_T) + 0.2 * np.sin(2 * np.pi * 7 * t_T) + 0.1,
        "ramp": 3 * t_T + np.cumsum(rng.standard_normal((3, 9000)), axis=1),
    }[kind]
    found = author.ppg_score(x_BT, HZ)
    for row, x_T in enumerate(x_BT):
        expected = ppg_by_the_letter(x_T)
        # the perfusion term is the sign of a rounding error: compare the sum with ours in its place
        assert found["author_perf"][row] in (0.0, 1.0)
        raw = 0.2 * sum(expected[name] for name in expected if name not in ("author", "author_perf"))
        score = np.clip((np.clip(raw + 0.2 * found["author_perf"][row], 0, 1) - 0.5) / 0.3, 0, 1)
        for name in ("author_snr", "author_skew", "author_rel", "author_ent"):
            assert found[name][row] == pytest.approx(expected[name], abs=1e-9), name
        peaks, _ = signal.find_peaks(signal.detrend(x_T) / x_T.std(), distance=HZ / 2, prominence=0.5)
        assert found["author"][row] == pytest.approx(score if len(peaks) >= 2 else 0.0, abs=1e-9)


def test_perfusion_is_no_coin_toss():
    # a detrended signal has no mean to speak of: its sign is that of rounding errors, another for every copy
    x_BT = np.random.default_rng(0).standard_normal((40, 9000))
    for copy_BT in (x_BT, x_BT.astype(np.float32), x_BT + 1e-9):
        assert author.ppg_score(copy_BT, HZ)["author_perf"].tolist() == [1.0] * 40
    assert author.ppg_score(np.zeros((1, 9000)), HZ)["author_perf"].tolist() == [0.0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_gate_never_differs_from_the_search_for_peaks(seed):
    rng = np.random.default_rng(seed)
    x_BT = np.cumsum(rng.standard_normal((8, 3000)), axis=1) * rng.uniform(0, 0.2, (8, 1))
    x_BT += rng.uniform(0, 1, (8, 1)) * np.sin(2 * np.pi * rng.uniform(0.03, 3, (8, 1)) * np.arange(3000) / HZ)
    if seed % 2:
        x_BT = np.round(x_BT * 4) / 4
    expected_B = [len(signal.find_peaks(x_T, distance=HZ / 2, prominence=0.5)[0]) >= 2 for x_T in x_BT]
    sure_B = author._surely_has_two_peaks(x_BT, HZ)
    assert not (sure_B & ~np.array(expected_B)).any()
    np.testing.assert_array_equal(author._has_two_peaks(x_BT, HZ), expected_B)


def test_the_quick_gate_decides_most_segments():
    x_BT = np.stack([recording(seed, duration_s=30.0).ppg for seed in range(10)])
    z_BT = (x_BT - x_BT.mean(axis=1, keepdims=True)) / x_BT.std(axis=1, keepdims=True)
    assert author._surely_has_two_peaks(z_BT, HZ).mean() >= 0.9


def test_constant_signal_scores_nothing():
    found = author.ppg_score(np.zeros((1, 9000)), HZ)
    assert found["author"][0] == 0.0
    assert all(np.isfinite(value_B).all() for value_B in found.values())
