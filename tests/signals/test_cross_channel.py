"""Pulses follow the R peaks of their own heart, at any delay and in any rhythm, and not those of another."""

import numpy as np
import pytest

from jaxbio.signals import cross_channel
from jaxbio.signals.beats import beats_of
from jaxbio.signals.segments import measure
from jaxbio.signals.synthetic import RHYTHMS, recording


def beats(*times_s):
    row_J = np.repeat(np.arange(len(times_s)), [len(time_s) for time_s in times_s])
    return beats_of(row_J, np.concatenate(times_s), len(times_s))


def follow_frac(pulses, r_peaks):
    return cross_channel.follow_frac(pulses, r_peaks, np.zeros((len(pulses.count_B), 300), bool))


def both(ppg_of, ecg_of, cross_channel):
    raw = {"ppg": ppg_of.ppg[None], "ecg": ecg_of.ecg[None]}
    return measure(raw, rate_hz=300.0, length=9000, channels=("ppg", "ecg"), cross_channel=cross_channel).columns


@pytest.mark.parametrize("delay_s", [-0.05, 0.25, 0.9, 1.4])
def test_any_constant_delay_is_followed(delay_s):
    r_s = np.cumsum(np.random.default_rng(0).uniform(0.7, 1.0, 34))
    assert follow_frac(beats(r_s + delay_s), beats(r_s))[0] == pytest.approx(1.0, abs=0.06)


def test_delays_may_vary_by_a_tenth_of_a_second_as_fibrillation_makes_them():
    rng = np.random.default_rng(1)
    r_s = np.cumsum(rng.uniform(0.45, 1.2, 36))
    assert follow_frac(beats(r_s + 0.3 + rng.uniform(-0.11, 0.11, 36)), beats(r_s))[0] > 0.9


def test_beats_without_a_pulse_are_no_fault_of_the_pulses():
    r_s = np.arange(0.5, 29, 0.6)
    assert follow_frac(beats(r_s[::3] + 0.3), beats(r_s))[0] == 1.0


def test_pulses_of_another_rate_follow_by_chance_alone():
    r_s, other_s = np.arange(0.5, 29, 0.8), np.arange(0.4, 29, 0.67)
    assert follow_frac(beats(other_s, r_s + 0.3), beats(r_s, r_s)).round(1).tolist() == pytest.approx(
        [0.0, 1.0], abs=0.2
    )


def test_too_few_beats_say_nothing():
    none = beats_of(np.zeros(0, int), np.zeros(0), 2)
    few = beats(np.arange(4.0), np.arange(30.0))
    assert np.isnan(follow_frac(few, none)).all()
    assert np.isnan(follow_frac(few, few)).tolist() == [True, False]


def test_r_peaks_so_fast_that_every_pulse_lies_near_one_say_nothing():
    slow_s, fast_s = np.arange(0.5, 29, 0.4), np.arange(0.5, 29, 0.3)
    assert np.isnan(follow_frac(beats(slow_s, fast_s), beats(slow_s, fast_s))).tolist() == [False, True]


@pytest.mark.parametrize("rate_bpm", [75, 120, 158, 180, 200])
@pytest.mark.parametrize(("loss", "lost_s"), [("gap", 4), ("gap", 6), ("noise", 12)])
def test_the_score_of_clean_pulses_stays_where_a_part_of_the_ecg_is_lost(rate_bpm, loss, lost_s):
    made = recording(4, duration_s=30.0, heart_rate_bpm=rate_bpm)
    lost = slice(3000, 3000 + 300 * lost_s)
    made.ecg[lost] = np.nan if loss == "gap" else np.random.default_rng(0).normal(size=300 * lost_s)
    assert both(made, made, "on")["ppg_waveform"] == both(made, made, "off")["ppg_waveform"] > 0.95


def test_the_score_of_pulses_of_another_falls_where_a_part_of_the_ecg_is_lost():
    own, other = recording(5, duration_s=30.0, heart_rate_bpm=70.0), recording(6, duration_s=30.0, heart_rate_bpm=101.0)
    own.ecg[3000:4500] = np.nan
    assert both(other, own, "on")["ppg_waveform"][0] < 0.5 * both(other, own, "off")["ppg_waveform"][0]


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_the_score_of_pulses_of_this_heart_stays(rhythm):
    made = recording(5, duration_s=30.0, rhythm=rhythm)
    off, on = both(made, made, "off"), both(made, made, "on")
    assert "ppg_follows" not in off
    assert on["ppg_follows"][0] > 0.85  # the first pulse may follow a beat before the segment
    assert on["ppg_waveform"] == off["ppg_waveform"]
    assert on["ecg_waveform"] == off["ecg_waveform"]


def test_the_score_of_pulses_of_another_falls():
    own, other = recording(5, duration_s=30.0, heart_rate_bpm=70.0), recording(6, duration_s=30.0, heart_rate_bpm=101.0)
    on = both(other, own, "on")
    assert on["ppg_waveform"][0] < 0.5 * both(other, own, "off")["ppg_waveform"][0]
    assert on["ecg_waveform"][0] > 0.95


def test_it_is_off_where_only_one_channel_is_there():
    made = recording(5, duration_s=30.0)
    found = measure({"ppg": made.ppg[None]}, rate_hz=300.0, length=9000, channels=("ppg",), cross_channel="on").columns
    assert "ppg_follows" not in found
