"""The template fit sees shape, never time: several shapes fit, noise does not."""

import numpy as np
import pytest

from jaxbio.signals.beats import beats_of
from jaxbio.signals.templates import MIN_BEATS, fit_templates, mean_fit

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


def rho(x_BT, beats):
    usable_J = np.ones(len(beats.row_J), bool)
    fit_J = fit_templates(x_BT, beats, usable_J, rate_hz=HZ, before_s=0.25, after_s=0.4, step_s=1 / 150)
    return mean_fit(fit_J, beats)[0], fit_J


@pytest.mark.parametrize("counts", [[30], [15, 15], [10, 20], [16, 14], [18, 7, 5], [15, 8, 7]])
def test_up_to_three_shapes_fit(counts):
    kinds = np.random.default_rng(3).permutation(np.repeat(np.arange(len(counts)), counts))
    x_BT, beats = train(SHAPES, kinds, 0.9)
    assert rho(x_BT, beats)[0] > 0.98


def test_four_shapes_do_not_all_fit():
    x_BT, beats = train(SHAPES, [k % 4 for k in range(30)], 0.9)
    assert rho(x_BT, beats)[0] < 0.97


def test_rhythm_does_not_matter():
    rng = np.random.default_rng(1)
    regular = rho(*train(SHAPES, [0] * 30, 0.9, noise=0.05))[0]
    irregular = rho(*train(SHAPES, [0] * 30, rng.uniform(0.7, 1.1, 29), noise=0.05))[0]
    assert regular == pytest.approx(irregular, abs=0.01)


def test_noise_fits_no_template():
    x_BT, beats = train(SHAPES, [0] * 30, 0.9, noise=3.0)
    assert rho(x_BT, beats)[0] < 0.4


def test_a_rare_shape_of_two_beats_has_no_template_of_its_own():
    x_BT, beats = train(SHAPES, [0] * 28 + [1] * 2, 0.9)
    _, fit_J = rho(x_BT, beats)
    assert (fit_J[:27] > 0.99).all()
    assert (fit_J[28:] < 0.5).all()


def test_fewer_than_five_beats_score_zero():
    x_BT, beats = train(SHAPES, [0] * (MIN_BEATS - 1), 0.9)
    assert rho(x_BT, beats)[0] == 0.0


def test_beats_that_are_not_usable_or_cut_by_an_end_are_left_out():
    x_BT, beats = train(SHAPES, [0] * 30, 1.0)  # from 0.5 s to 29.5 s
    usable_J = np.arange(30) != 7
    beats = beats_of(beats.row_J, beats.time_J - 0.3, 1)  # the first window now begins before the segment
    fit_J = fit_templates(x_BT, beats, usable_J, rate_hz=HZ, before_s=0.25, after_s=0.4, step_s=1 / 150)
    assert np.flatnonzero(np.isnan(fit_J)).tolist() == [0, 7]


def test_no_beats_at_all():
    beats = beats_of(np.zeros(0, int), np.zeros(0), 3)
    fit_J = fit_templates(
        np.zeros((3, 9000), np.float32), beats, np.zeros(0, bool), rate_hz=HZ, before_s=0.2, after_s=0.4, step_s=0.01
    )
    assert mean_fit(fit_J, beats).tolist() == [0, 0, 0]
