"""What is compared with what, and that nothing leaks: a planted artefact of the subject, labels, NaN, seeds, folds."""

import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.evaluation import comparison, protocol, readouts
from jaxbio.evaluation.comparison import CONSTANT, PRETRAINED, RANDOM, Entrant
from jaxbio.evaluation.number_measures import NUMBERS
from jaxbio.evaluation.tasks import TASKS
from jaxbio.evaluation.tasks.task import Task, named

pytest.importorskip("sklearn")
ALARM, RATE = TASKS["vt_alarm"], TASKS["heart_rate"]


def artefact(seed: int, subjects: int = 60, segments: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features that tell the subject and nothing else, labels that are the subject's, and subjects."""
    rng = np.random.default_rng(seed)
    subject_N = np.repeat(np.arange(subjects), segments)
    feature_ND = rng.normal(size=(subjects, 30))[subject_N] + 0.1 * rng.normal(size=(len(subject_N), 30))
    label_N = rng.permutation(np.arange(subjects) % 2)[subject_N]
    return feature_ND, label_N.astype(float), subject_N


def area(name: str, feature_ND, label_N, subject_N, readout=readouts.LINEAR) -> float:
    splits = protocol.make_splits(name, subject_N, np.zeros(len(subject_N), bool), folds=5, label_B=label_N)
    grouped = name not in protocol.UNGROUPED
    entrants = {PRETRAINED: Entrant([feature_ND])}
    compared = comparison.compare(
        ALARM, entrants, label_N, subject_N, splits, grouped=grouped, readout=readout, only_first=True
    )
    return compared.intervals["auroc"][PRETRAINED].value


@pytest.mark.parametrize("readout", [readouts.LINEAR, readouts.KNN, readouts.BOOSTED])
def test_a_planted_artefact_of_the_subject_is_worth_nothing_but_where_splits_leak(readout):
    found = [[area(name, *artefact(seed), readout) for seed in range(2)] for name in ("cross_validate", "leaky")]
    ours, leaky = np.mean(found, axis=1)
    assert 0.4 < ours < 0.6
    assert leaky > 0.85


def test_leaky_splits_are_refused_under_any_other_name():
    feature_ND, label_N, subject_N = artefact(0)
    splits = protocol.make_splits("leaky", subject_N, np.zeros(len(subject_N), bool), folds=5)
    with pytest.raises(ValueError, match="both sides"):
        comparison.compare(ALARM, {PRETRAINED: Entrant([feature_ND])}, label_N, subject_N, splits)


def test_classes_are_spread_over_folds_and_subjects_stay_whole():
    _, label_N, subject_N = artefact(1, subjects=23)
    label_N[subject_N < 5] = np.tile([0, 1, 1], 10)  # subjects of both classes
    splits = protocol.make_splits("cross_validate", subject_N, np.zeros(len(subject_N), bool), folds=5, label_B=label_N)
    for fit, test in splits:
        assert not set(subject_N[fit]) & set(subject_N[test])
        assert 0.25 < label_N[test].mean() < 0.75


def test_time_learns_from_the_first_half_and_asks_the_second():
    subject_N = np.repeat(["a", "b"], [4, 5])
    ((fit, test),) = protocol.make_splits("time", subject_N, np.zeros(9, bool), folds=5)
    assert fit.tolist() == [0, 1, 4, 5]
    assert test.tolist() == [2, 3, 6, 7, 8]


def test_seeds_are_averaged_and_said_apart_from_the_interval():
    feature_ND, label_N, subject_N = artefact(2)
    good_ND = np.concatenate([label_N[:, None], feature_ND[:, :3]], axis=1)
    splits = protocol.make_splits("cross_validate", subject_N, np.zeros(len(subject_N), bool), folds=3)
    rng = np.random.default_rng(0)
    fresh = [rng.normal(size=(len(label_N), 4)) for _ in range(5)]
    entrants = {PRETRAINED: Entrant([good_ND]), RANDOM: Entrant(fresh)}
    compared = comparison.compare(ALARM, entrants, label_N, subject_N, splits, only_first=True)
    seeds = compared.seeds["auroc"]
    assert set(seeds) == {RANDOM}
    assert len(set(seeds[RANDOM])) == 5
    assert compared.intervals["auroc"][RANDOM].value == pytest.approx(np.mean(seeds[RANDOM]))
    assert compared.intervals["auroc"][PRETRAINED].value == 1.0
    assert compared.intervals["auroc"][CONSTANT].value == 0.5
    gain = compared.gains["auroc"][RANDOM]
    assert gain.value == pytest.approx(1 - np.mean(seeds[RANDOM]))
    assert gain.low > 0.3
    assert compared.delong == {}  # subjects have several segments


def test_delong_is_there_where_subjects_have_one_segment():
    _, label_N, subject_N = artefact(3, subjects=80, segments=1)
    rng = np.random.default_rng(1)
    entrants = {
        name: Entrant([label_N[:, None] + noise * rng.normal(size=(80, 3))])
        for name, noise in ((PRETRAINED, 1), ("other", 4))
    }
    splits = protocol.make_splits("cross_validate", subject_N, np.zeros(80, bool), folds=4)
    compared = comparison.compare(ALARM, entrants, label_N, subject_N, splits, only_first=True)
    assert compared.delong["other"].difference.value == pytest.approx(compared.gains["auroc"]["other"].value)
    assert compared.summary()["delong"]["other"]["p"] < 0.05


def test_numbers_are_read_by_every_readout_and_mase_is_one_for_the_mean():
    rng = np.random.default_rng(4)
    subject_N = np.repeat(np.arange(30), 5)
    label_N = 80 + 10 * rng.normal(size=150)
    feature_ND = np.stack([label_N + rng.normal(size=150), rng.normal(size=150)], axis=1)
    feature_ND[::7, 1] = np.nan
    splits = protocol.make_splits("cross_validate", subject_N, np.zeros(150, bool), folds=5)
    task = Task("a number", "1/min", named(*NUMBERS), ())
    entrants = {name: Entrant([feature_ND], readout) for name, readout in readouts.READOUTS.items()}
    compared = comparison.compare(task, entrants, label_N, subject_N, splits)
    for name in entrants:
        assert compared.intervals["mae"][name].value < 0.4 * compared.intervals["mae"][CONSTANT].value, name
    assert compared.intervals["mase"][CONSTANT].value == pytest.approx(1, abs=0.05)


def test_fewer_labels_are_whole_subjects():
    feature_ND, label_N, subject_N = artefact(5)
    seen = []

    def spy(fit_ND, own_N, group_N, test_MD, classes):
        seen.append((len(np.unique(group_N)), len(own_N), len(np.unique(own_N))))
        return readouts.LINEAR(fit_ND, own_N, group_N, test_MD, classes)

    splits = protocol.make_splits("cross_validate", subject_N, np.zeros(len(subject_N), bool), folds=5, label_B=label_N)
    for share, subjects in ((0.01, 2), (0.25, 12)):
        seen.clear()
        entrants = {PRETRAINED: Entrant([feature_ND])}
        comparison.compare(ALARM, entrants, label_N, subject_N, splits, readout=spy, share=share, only_first=True)
        assert seen == [(subjects, 6 * subjects, 2)] * 5


def test_probabilities_are_at_the_shares_of_training_and_decisions_weigh_classes_alike():
    rng = np.random.default_rng(6)
    label_N = (rng.random(4000) < 0.1).astype(float)
    feature_ND = (label_N + rng.normal(size=4000))[:, None]
    answer = readouts.LINEAR(feature_ND, label_N, np.arange(4000), feature_ND, 2)
    assert answer.score_NK[:, 1].mean() == pytest.approx(0.1, abs=0.01)
    recall = [np.mean(answer.decision_N[label_N == k] == k) for k in (0, 1)]
    assert recall[0] == pytest.approx(recall[1], abs=0.06)


@pytest.mark.parametrize("readout", [readouts.LINEAR, readouts.KNN, readouts.BOOSTED])
def test_a_class_that_is_not_fitted_on_gets_probability_0(readout):
    feature_ND = np.random.default_rng(7).normal(size=(40, 3))
    label_N = np.repeat([0.0, 2.0], 20)
    answer = readout(feature_ND, label_N, np.arange(40), feature_ND, 4)
    assert answer.score_NK.shape == (40, 4)
    assert not answer.score_NK[:, [1, 3]].any()
    np.testing.assert_allclose(answer.score_NK.sum(axis=1), 1)
    alone = readout(feature_ND, np.full(40, 2.0), np.arange(40), feature_ND, 4)
    assert (alone.decision_N == 2).all()


# ---- what a user may do wrong


def test_a_single_subject_and_a_single_class_are_refused():
    subject_N = np.array(["a"] * 4)
    with pytest.raises(UserError, match="--subjects"):
        comparison.check_labels(ALARM, np.array([0, 1, 0, 1.0]), subject_N, ALARM.classes)
    with pytest.raises(UserError, match=r"'true alarm'.*other labels"):
        comparison.check_labels(ALARM, np.ones(4), np.arange(4), ALARM.classes)
    with pytest.raises(UserError, match="false alarm 1, true alarm 3"):
        comparison.check_labels(ALARM, np.array([0, 1, 1, 1.0]), np.arange(4), ALARM.classes)


def test_a_class_of_a_single_subject_is_named():
    classes = ("x", "y", "z")
    label_N, subject_N = np.array([0, 0, 1, 1, 2.0]), np.arange(5)
    assert comparison.check_labels(ALARM, label_N, subject_N, classes) == ["z"]


def test_predictions_and_embeddings_that_are_no_numbers_are_refused():
    feature_ND, label_N, subject_N = artefact(8)

    def broken(fit_ND, own_N, group_N, test_MD, classes):
        answer = readouts.LINEAR(fit_ND, own_N, group_N, test_MD, classes)
        answer.score_NK[0] = np.nan
        return answer

    splits = protocol.make_splits("cross_validate", subject_N, np.zeros(len(subject_N), bool), folds=5)
    with pytest.raises(UserError, match="5 of 360 predictions are NaN"):
        comparison.compare(ALARM, {"mine": Entrant([feature_ND], broken)}, label_N, subject_N, splits)
    feature_ND[3, 2] = np.inf
    with pytest.raises(UserError, match="1 of 360 embeddings"):
        comparison.check_features("mine", feature_ND)


def test_a_fold_without_anybody_or_with_one_class_alone_is_refused():
    label_N = np.array([0, 0, 1, 1.0])
    with pytest.raises(UserError, match="fold 1 is empty"):
        protocol.check_splits([(np.arange(4), np.zeros(0, int))], label_N, ALARM.classes)
    false, true = np.array([0, 1]), np.array([2, 3])
    with pytest.raises(UserError, match="fold 1 is fitted on 'false alarm' alone"):
        protocol.check_splits([(false, true), (true, false)], label_N, ALARM.classes)
    with pytest.raises(UserError, match="all that is fitted on is 'false alarm'"):  # there are no folds of one split
        protocol.check_splits([(false, true)], label_N, ALARM.classes)


@pytest.mark.parametrize("subjects", [84, 85])
def test_grades_of_pressure_are_those_of_everybody_who_answered(subjects):
    rng, pressure = np.random.default_rng(0), TASKS["blood_pressure"]
    label_N, subject_N = 120 + 20 * rng.normal(size=subjects), np.arange(subjects)
    feature_N1 = label_N[:, None] + 2 * rng.normal(size=(subjects, 1))
    splits = protocol.make_splits("cross_validate", subject_N, np.zeros(subjects, bool), folds=5)
    compared = comparison.compare(pressure, {PRETRAINED: Entrant([feature_N1])}, label_N, subject_N, splits)
    grades = comparison.grade_answers(pressure, compared)
    assert set(grades) == {PRETRAINED, CONSTANT}
    if subjects < 85:
        assert grades[PRETRAINED].bhs == "not applicable"
    else:
        assert (grades[PRETRAINED].bhs, grades[PRETRAINED].aami, grades[CONSTANT].bhs) == ("A", "passed", "D")
    assert comparison.grade_answers(RATE, compared) == {}
