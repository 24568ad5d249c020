"""Intervals over subjects: SciPy's where it has them, coverage by simulation, pairs, and DeLong's formula by hand."""

import numpy as np
import pytest
from scipy import stats

from jaxbio.evaluation import class_measures, number_measures
from jaxbio.evaluation.delong import compare_areas, covariance
from jaxbio.evaluation.intervals import Draws, draw
from jaxbio.evaluation.measure import Answer, Truth


def skewed(seed: int = 0, subjects: int = 60) -> tuple[Truth, Answer]:
    """One segment a subject, with a skewed error."""
    rng = np.random.default_rng(seed)
    said_N = rng.lognormal(size=subjects)
    return Truth(np.zeros(subjects), np.arange(subjects), np.ones(subjects)), Answer(said_N[:, None], said_N)


def of_areas(rng, subjects: int, segments: int) -> tuple[Truth, Answer]:
    """Two classes; a score and a class that a subject's segments share in part."""
    label_N = (np.repeat(rng.normal(size=subjects), segments) + rng.normal(size=subjects * segments) > 0).astype(int)
    own_N = np.repeat(rng.normal(size=subjects), segments) + rng.normal(size=subjects * segments)
    said_N = stats.norm.cdf(own_N + label_N)
    truth = Truth(label_N, np.repeat(np.arange(subjects), segments), np.ones(len(label_N)))
    return truth, Answer(np.stack([1 - said_N, said_N], axis=1), (said_N > 0.5).astype(int))


def test_the_interval_is_scipys_where_subjects_have_one_segment():
    truth, answer = skewed()
    found = draw(number_measures.MAE.compute, truth, [answer], Draws(truth.subject_N, draws=20_000)).interval()
    data = (answer.decision_N,)
    expected = stats.bootstrap(data, np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.03 * width)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.03 * width)
    plain = np.quantile(np.random.default_rng(2).choice(answer.decision_N, (20_000, 60)).mean(axis=1), [0.025, 0.975])
    assert found.high > plain[1] + 0.02 * width  # the correction of the skewness is there


def test_draws_are_the_same_whenever_they_are_asked_for_and_take_subjects_whole():
    subject_N = np.repeat(np.array(["b", "a", "c"]), [2, 3, 1])
    draws = Draws(subject_N, draws=50)
    first, again = (np.concatenate(list(draws.bootstrap())) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for subject in "abc":
        assert (np.ptp(first[:, subject_N == subject], axis=1) == 0).all()
    assert (first[:, [0, 2, 5]].sum(axis=1) == 3).all()
    left_out = np.concatenate(list(draws.left_out()))
    assert sorted(map(tuple, left_out)) == [(0, 0, 1, 1, 1, 1), (1, 1, 0, 0, 0, 1), (1, 1, 1, 1, 1, 0)]


def test_a_paired_difference_is_narrower_than_either_interval():
    truth, answer = skewed()
    said_N = answer.decision_N + 0.1
    draws = Draws(truth.subject_N)
    one, other = (
        draw(number_measures.MAE.compute, truth, [a], draws) for a in (answer, Answer(said_N[:, None], said_N))
    )
    gain = other.minus(one).interval()
    assert tuple(gain) == pytest.approx((0.1, 0.1, 0.1))
    assert one.interval().high - one.interval().low > 0.3


def test_intervals_over_subjects_cover_and_those_over_segments_do_not():
    rng = np.random.default_rng(1)
    hits, naive_hits, trials, subject_N = 0, 0, 100, np.repeat(np.arange(20), 8)
    truth = Truth(np.zeros(160), subject_N, np.ones(160))
    for trial in range(trials):
        error_N = (np.sqrt(np.pi / 2) * 0.8 * np.abs(rng.normal(size=20)))[subject_N]  # 0.8 on average
        answer, compute = Answer(error_N[:, None], error_N), number_measures.MAE.compute
        by_subject = draw(compute, truth, [answer], Draws(subject_N, draws=200, seed=trial)).interval()
        by_segment = draw(compute, truth, [answer], Draws(np.arange(160), draws=200, seed=trial)).interval()
        hits += by_subject.low <= 0.8 <= by_subject.high
        naive_hits += by_segment.low <= 0.8 <= by_segment.high
    assert hits >= 82  # 95 % nominal, of 20 subjects about 92
    assert naive_hits <= 70


@pytest.mark.parametrize(
    "measure", [class_measures.BALANCED_ACCURACY, class_measures.MACRO_F1, class_measures.WEIGHTED_F1]
)
def test_draws_without_a_rare_class_do_not_change_what_is_measured(measure):
    label_N, subject_N = np.zeros(40, int), np.repeat(np.arange(10), 4)
    label_N[:4] = 1
    truth = Truth(label_N, subject_N, np.ones(40))
    always_rare, draws = Answer(np.eye(2)[np.ones(40, int)], np.ones(40, int)), Draws(subject_N, draws=200)
    drawn = draw(measure.compute, truth, [always_rare], draws)
    lacks_D = np.concatenate(list(draws.bootstrap()))[:, 0] == 0
    assert 0 < lacks_D.sum() < 100
    np.testing.assert_array_equal(np.isnan(drawn.draw_D), lacks_D)


def test_several_answers_are_measured_by_their_mean():
    truth, answer = skewed()
    twice = Answer(2 * answer.score_NK, 2 * answer.decision_N)
    compute = number_measures.MAE.compute
    found = draw(compute, truth, [answer, twice], Draws(truth.subject_N)).interval()
    single = draw(compute, truth, [answer], Draws(truth.subject_N)).interval()
    assert tuple(found) == pytest.approx(tuple(1.5 * np.array(single)))


def test_where_too_few_draws_have_both_classes_there_is_no_interval():
    label_N = np.array([1] + [0] * 9)
    truth = Truth(label_N, np.arange(10), np.ones(10))
    answer = Answer(np.linspace(0, 1, 20).reshape(10, 2), label_N)
    some = draw(class_measures.AUROC.compute, truth, [answer], Draws(truth.subject_N)).interval()
    assert np.isfinite(some.low)  # 65 % of the draws have the one positive
    single = Truth(label_N, np.repeat([0, 1], [1, 9]), np.ones(10))
    none = draw(class_measures.AUROC.compute, single, [answer], Draws(single.subject_N, draws=400, seed=1)).interval()
    assert np.isfinite(none.value)
    assert none.low != none.low or none.low == none.high


def test_delong_is_the_formula_by_hand():
    rng = np.random.default_rng(6)
    label_N = (rng.random(40) < 0.4).astype(int)
    scores_MN = np.round(label_N + rng.normal(size=(2, 40)), 1)  # with ties
    wins_MPQ = np.stack([_wins(scores_N[label_N == 1], scores_N[label_N == 0]) for scores_N in scores_MN])
    area_M, spread_MM = covariance(label_N, scores_MN)
    np.testing.assert_allclose(area_M, wins_MPQ.mean(axis=(1, 2)), atol=1e-12)
    by_P, by_Q = wins_MPQ.mean(axis=2), wins_MPQ.mean(axis=1)
    expected_MM = np.cov(by_P) / by_P.shape[1] + np.cov(by_Q) / by_Q.shape[1]
    np.testing.assert_allclose(spread_MM, expected_MM, atol=1e-12)


def _wins(above_P: np.ndarray, below_Q: np.ndarray) -> np.ndarray:
    return (above_P[:, None] > below_Q) + 0.5 * (above_P[:, None] == below_Q)


def test_delong_and_the_bootstrap_agree():
    rng = np.random.default_rng(7)
    truth, answer = of_areas(rng, 200, 1)
    said_N = stats.norm.cdf(truth.label_N + 1.5 * rng.normal(size=200))
    other = Answer(np.stack([1 - said_N, said_N], axis=1), truth.label_N)
    found = compare_areas(truth.label_N == 1, answer.score_NK[:, 1], said_N)
    compute, draws = class_measures.AUROC.compute, Draws(truth.subject_N, draws=4000)
    drawn = draw(compute, truth, [answer], draws).minus(draw(compute, truth, [other], draws)).interval()
    assert tuple(found.difference) == pytest.approx(tuple(drawn), abs=0.01)
    same = compare_areas(truth.label_N == 1, said_N, said_N)
    assert same.p == 1.0
    assert tuple(same.difference) == (0.0, 0.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["auroc", "mae"])
def test_95_percent_intervals_of_200_subjects_cover_95_percent(measure):
    """1,000 draws; the truth is that of a population so large that it hardly varies."""
    rng = np.random.default_rng(8)
    trials, segments = 1000, 3

    def sample(subjects: int) -> tuple[Truth, Answer]:
        if measure == "auroc":
            return of_areas(rng, subjects, segments)
        error_N = np.repeat(rng.gamma(2.0, size=subjects), segments) * np.abs(rng.normal(size=subjects * segments))
        truth = Truth(np.zeros(len(error_N)), np.repeat(np.arange(subjects), segments), np.ones(len(error_N)))
        return truth, Answer(error_N[:, None], error_N)

    compute = {"auroc": class_measures.AUROC.compute, "mae": number_measures.MAE.compute}[measure]
    truth, answer = sample(1_000_000)
    aim = float(compute(truth, answer, np.ones((1, len(truth.label_N))))[0])
    hits = 0
    for trial in range(trials):
        truth, answer = sample(200)
        found = draw(compute, truth, [answer], Draws(truth.subject_N, draws=1000, seed=trial)).interval()
        hits += found.low <= aim <= found.high
    assert 0.93 <= hits / trials <= 0.97
