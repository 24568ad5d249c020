"""Likeness sees shape, never time: beats of several shapes find their kind, noise finds none."""

import numpy as np
import pytest

from jaxbio.signals.beats import beats_of
from jaxbio.signals.likeness import MIN_BEATS, find_likeness

HZ = 300.0


def train(shapes, kinds, interval_s, noise=0.0, seed=0):
    """Return a segment of beats of the given kinds, and the beats."""
    rng = np.random.default_rng(seed)
    time_s = 0.5 + np.concatenate([[0], np.cumsum(np.broadcast_to(interval_s, len(kinds) - 1))])
    x_T = noise * rng.standard_normal(9000)
    t_T = np.arange(9000) / HZ
    for beat_s, kind in zip(time_s, kinds):
        centre, width, sign = shapes[kind]
        x_T += sign * np.exp(-0.5 * ((t_T - beat_s - centre) / width) ** 2)
    return x_T.astype(np.float32)[None], beats_of(np.zeros(len(kinds), int), time_s, 1)


SHAPES = [(0.0, 0.015, 1), (0.05, 0.05, -1), (0.1, 0.03, 1), (-0.1, 0.02, -1)]


WINDOW = {"rate_hz": HZ, "before_s": 0.25, "after_s": 0.4, "step_s": 1 / 150}


def likeness(x_BT, beats):
    """Return the mean of the best correlations, and both for each beat."""
    best_J, next_J = find_likeness(x_BT, beats, np.ones(len(beats.row_J), bool), **WINDOW)
    return np.nanmean(best_J), best_J, next_J


@pytest.mark.parametrize("counts", [[30], [15, 15], [10, 20], [16, 14], [18, 7, 5], [15, 8, 7]])
def test_beats_of_up_to_three_shapes_find_their_kind(counts):
    kinds = np.random.default_rng(3).permutation(np.repeat(np.arange(len(counts)), counts))
    x_BT, beats = train(SHAPES, kinds, 0.9)
    _, best_J, _ = likeness(x_BT, beats)
    beside = [{kinds[k] for k in range(max(0, j - 3), min(30, j + 4)) if k != j} for j in range(30)]
    expected_J = np.array([kinds[j] in beside[j] for j in range(30)])
    assert expected_J.mean() >= 0.8
    assert (best_J[expected_J] > 0.98).all()


@pytest.mark.parametrize("kinds", [[0] * 30, [0, 1] * 15, [0, 0, 1] * 10, [0, 0, 0, 1, 1] * 6])
def test_bigeminy_trigeminy_and_couplets_are_all_alike(kinds):
    assert likeness(*train(SHAPES, kinds, 0.9))[0] > 0.98


def test_four_shapes_in_turn_do_not_all_fit():
    x_BT, beats = train(SHAPES, [k % 4 for k in range(30)], 0.9)
    assert likeness(x_BT, beats)[0] < 0.97


def test_rhythm_does_not_matter():
    rng = np.random.default_rng(1)
    regular = likeness(*train(SHAPES, [0] * 30, 0.9, noise=0.05))[0]
    irregular = likeness(*train(SHAPES, [0] * 30, rng.uniform(0.7, 1.1, 29), noise=0.05))[0]
    assert regular == pytest.approx(irregular, abs=0.01)


def test_noise_finds_no_kind():
    x_BT, beats = train(SHAPES, [0] * 30, 0.9, noise=3.0)
    assert likeness(x_BT, beats)[0] < 0.4


def test_two_that_are_alike_by_chance_are_told_from_three():
    x_BT, beats = train(SHAPES, [0] * 28 + [1] * 2, 0.9)
    _, best_J, next_J = likeness(x_BT, beats)
    assert (best_J[:27] > 0.99).all()
    assert (next_J[:27] > 0.99).all()
    assert (best_J[28:] > 0.99).all()
    assert (next_J[28:] < 0.5).all()


def test_fewer_than_three_beats_say_nothing():
    x_BT, beats = train(SHAPES, [0] * (MIN_BEATS - 1), 0.9)
    _, best_J, next_J = likeness(x_BT, beats)
    assert np.isnan(best_J).all()
    assert np.isnan(next_J).all()


def test_beats_that_are_not_usable_or_cut_by_an_end_are_left_out():
    x_BT, beats = train(SHAPES, [0] * 30, 1.0)  # from 0.5 s to 29.5 s
    usable_J = np.arange(30) != 7
    beats = beats_of(beats.row_J, beats.time_J - 0.3, 1)  # the first window now begins before the segment
    best_J, next_J = find_likeness(x_BT, beats, usable_J, **WINDOW)
    assert np.flatnonzero(np.isnan(best_J)).tolist() == [0, 7]
    assert np.flatnonzero(np.isnan(next_J)).tolist() == [0, 7]


def test_no_beats_at_all():
    beats = beats_of(np.zeros(0, int), np.zeros(0), 3)
    best_J, next_J = find_likeness(np.zeros((3, 9000), np.float32), beats, np.zeros(0, bool), **WINDOW)
    assert best_J.shape == next_J.shape == (0,)
