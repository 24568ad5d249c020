"""Linear probes find what is planted, on subjects they have not seen."""

import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.evaluation import metrics, probes, protocol

SUBJECTS = np.repeat([f"s{k:02d}" for k in range(12)], np.arange(4, 16))


def _planted(width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return features (N, width) on unequal scales with a large offset of each subject, and what is read from them."""
    rng = np.random.default_rng(0)
    signal_N = rng.normal(size=len(SUBJECTS))
    feature_ND = rng.normal(size=(len(SUBJECTS), width))
    feature_ND[:, 3] = 0.001 * (signal_N + 0.1 * rng.normal(size=len(SUBJECTS)))
    feature_ND[:, 7] = 1000.0
    return feature_ND, signal_N


def test_no_subject_is_in_two_folds_and_every_row_is_tested_once():
    splits = probes.subject_folds(SUBJECTS, 5)
    assert len(splits) == 5
    tested = np.concatenate([test for _, test in splits])
    np.testing.assert_array_equal(np.sort(tested), np.arange(len(SUBJECTS)))
    for fit, test in splits:
        assert not set(SUBJECTS[fit]) & set(SUBJECTS[test])
        assert len(fit) + len(test) == len(SUBJECTS)
    sizes = [len(test) for _, test in splits]
    assert max(sizes) - min(sizes) <= 15  # the largest subject


def test_folds_are_at_most_the_subjects():
    assert len(probes.subject_folds(np.array(["a", "b", "b", "c"]), 10)) == 3


@pytest.mark.parametrize("subjects", [[], ["only"]])
def test_fewer_than_two_subjects_are_refused(subjects):
    with pytest.raises(UserError, match="name two"):
        probes.subject_folds(np.array(subjects, str), 5)


def test_split_with_a_subject_on_both_sides_is_refused():
    feature_ND, label_N = _planted()
    wrong = [(np.arange(0, 50), np.arange(49, len(SUBJECTS)))]
    with pytest.raises(ValueError, match="both sides"):
        probes.predict_held_out(feature_ND, label_N, SUBJECTS, wrong, probes.NUMBERS)


def test_planted_number_is_recovered_and_noise_is_not():
    pytest.importorskip("sklearn")
    feature_ND, label_N = _planted()
    label_N = 70.0 + 10.0 * label_N
    splits = probes.subject_folds(SUBJECTS, 3)
    predicted_N = probes.predict_held_out(feature_ND, label_N, SUBJECTS, splits, probes.NUMBERS)
    assert metrics.r2(label_N, predicted_N) > 0.9
    noise_ND = np.random.default_rng(1).normal(size=feature_ND.shape)
    blind_N = probes.predict_held_out(noise_ND, label_N, SUBJECTS, splits, probes.NUMBERS)
    assert metrics.r2(label_N, blind_N) < 0.2


def test_planted_class_is_recovered_though_rare():
    pytest.importorskip("sklearn")
    feature_ND, signal_N = _planted(width=8)
    label_N = np.digitize(signal_N, [1.0])
    splits = probes.subject_folds(SUBJECTS, 3)
    predicted_N = probes.predict_held_out(feature_ND, label_N, SUBJECTS, splits, probes.CLASSES)
    constant_N = probes.predict_constant(label_N, SUBJECTS, splits, probes.CLASSES)
    assert metrics.balanced_accuracy(label_N, predicted_N) > 0.85
    assert metrics.balanced_accuracy(label_N, constant_N) == 0.5


def test_constant_is_of_the_training_part_alone():
    label_N = np.where(SUBJECTS == "s00", 1000.0, 1.0)
    splits = [(np.flatnonzero(SUBJECTS != "s00"), np.flatnonzero(SUBJECTS == "s00"))]
    constant_N = probes.predict_constant(label_N, SUBJECTS, splits, probes.NUMBERS)
    np.testing.assert_array_equal(constant_N, np.ones(4))


def test_one_class_in_training_is_what_is_predicted():
    feature_ND, _ = _planted()
    splits = [(np.arange(4, len(SUBJECTS)), np.arange(4))]
    label_N = (SUBJECTS == "s00").astype(int)
    predicted_N = probes.predict_held_out(feature_ND, label_N, SUBJECTS, splits, probes.CLASSES)
    np.testing.assert_array_equal(predicted_N, np.zeros(4))


def test_missing_extra_names_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    with pytest.raises(UserError, match=r"pip install 'jaxbio\[evaluate\]'"):
        probes.check_installed()


def test_transfer_fits_on_seen_and_tests_on_unseen_subjects():
    seen_B = SUBJECTS < "s08"
    ((fit, test),) = protocol.make_splits("transfer", SUBJECTS, seen_B, folds=5)
    assert set(SUBJECTS[fit]) == {f"s{k:02d}" for k in range(8)}
    assert set(SUBJECTS[test]) == {"s08", "s09", "s10", "s11"}


def test_cross_validation_uses_nobody_whom_pretraining_has_seen():
    seen_B = SUBJECTS < "s08"
    splits = protocol.make_splits("cross_validate", SUBJECTS, seen_B, folds=5)
    assert len(splits) == 4
    for fit, test in splits:
        assert not seen_B[fit].any()
        assert not seen_B[test].any()
        assert not set(SUBJECTS[fit]) & set(SUBJECTS[test])
    np.testing.assert_array_equal(probes.tested_rows(splits), np.flatnonzero(~seen_B))


@pytest.mark.parametrize(
    ("name", "seen", "said"),
    [("transfer", False, "cross_validate"), ("transfer", True, "seen every subject")],
)
def test_protocol_without_anybody_to_fit_or_test_is_refused(name, seen, said):
    with pytest.raises(UserError, match=said):
        protocol.make_splits(name, SUBJECTS, np.full(len(SUBJECTS), seen), folds=5)


class _Table:
    """A store's table, as far as find_seen reads it."""

    def column(self, name: str) -> np.ndarray:
        rows = {"split": ["train", "test"], "source": ["csv:a", "csv:a"], "recording": ["r1", "r3"]}
        return np.array(rows[name], object)


def test_subject_counts_as_seen_by_any_of_its_recordings():
    subject_B, recording_B = np.array(["p1", "p1", "p2", "p3"]), np.array(["r1", "r2", "r3", "r4"])
    seen_B = protocol.find_seen(_Table(), np.full(4, "csv:a"), recording_B, subject_B)
    np.testing.assert_array_equal(seen_B, [True, True, False, False])
    assert not protocol.find_seen(_Table(), np.full(4, "csv:b"), recording_B, subject_B).any()


def test_nearly_collinear_float32_features_are_read_without_warning(recwarn):
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    label_N = rng.normal(size=len(SUBJECTS))
    feature_ND = (label_N[:, None] + 0.05 * rng.normal(size=(len(SUBJECTS), 3000))).astype(np.float32)
    splits = probes.subject_folds(SUBJECTS, 3)
    predicted_N = probes.predict_held_out(feature_ND, label_N, SUBJECTS, splits, probes.NUMBERS)
    assert metrics.r2(label_N, predicted_N) > 0.9
    assert not [warning for warning in recwarn if "ill-conditioned" in str(warning.message).lower()]


def test_a_feature_that_hardly_varies_in_a_few_subjects_does_not_throw_a_line_off():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    feature_ND, label_N = rng.normal(size=(len(SUBJECTS), 3)), 80 + 10 * rng.normal(size=len(SUBJECTS))
    few = SUBJECTS < "s02"
    feature_ND[few, 1] = 1e-6 * rng.normal(size=few.sum())
    splits = [(np.flatnonzero(few), np.flatnonzero(~few))]
    predicted_N = probes.predict_held_out(feature_ND, label_N, SUBJECTS, splits, probes.NUMBERS)
    assert np.abs(predicted_N - 80).max() < 60
