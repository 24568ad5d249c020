"""Neighbours, clusters and scores are scikit-learn's numbers, and intervals know subjects."""

import numpy as np
import pytest

from jaxbio.evaluation import judging, neighbours
from jaxbio.evaluation.neighbours import SCORES, agree, cluster, jackknife, separate, vote
from jaxbio.evaluation.probes import subject_folds


@pytest.fixture(scope="module")
def arrays(parity_dir):
    with np.load(parity_dir / "ecg_vqvae_triplet.npz") as file:
        return {name.removeprefix("metrics/"): file[name] for name in file.files if name.startswith("metrics/")}


@pytest.mark.parametrize("count", [5, 20])
def test_votes_predictions_and_scores_are_the_references(arrays, count):
    train, label, test = (arrays[name] for name in ("train_embedding_BD", "train_label_B", "test_embedding_BD"))
    votes_NK = vote(train, label, test, classes=5, neighbours=count)
    np.testing.assert_allclose(votes_NK, arrays[f"knn{count}/probability_BK"], atol=1e-6)
    np.testing.assert_array_equal(votes_NK.argmax(1), arrays[f"knn{count}/prediction_B"])
    for name, score in SCORES.items():
        assert score(arrays["test_label_B"], votes_NK) == pytest.approx(float(arrays[f"knn{count}/{name}"]), abs=1e-6)


def test_separation_and_agreement_are_the_references(arrays):
    found = separate(arrays["test_embedding_BD"], arrays["test_label_B"])
    found |= {
        f"kmeans_{name}": value for name, value in agree(arrays["test_label_B"], arrays["kmeans_label_B"]).items()
    }
    for name, value in found.items():
        assert value == pytest.approx(float(arrays[name]), abs=1e-6), name


def blobs(spread, seed=0):
    """Three classes of ten subjects with three rows each, `spread` about their centres."""
    rng = np.random.default_rng(seed)
    subject_N = np.repeat(np.arange(30), 3)
    class_N = subject_N // 10
    return (np.eye(3, 8)[class_N] * 4 + spread * rng.normal(size=(90, 8))).astype(np.float32), class_N, subject_N


def test_clusters_are_found_where_they_are_and_not_where_they_are_not():
    near, class_N, _ = blobs(0.3)
    far, _, _ = blobs(30.0)
    assert cluster(near, class_N) == {"nmi": pytest.approx(1.0), "ari": pytest.approx(1.0)}
    assert cluster(far, class_N)["ari"] < 0.2


def test_what_is_not_defined_is_nan():
    x_ND, class_N = np.eye(3), np.zeros(3, int)
    assert all(np.isnan(value) for value in (separate(x_ND, class_N) | cluster(x_ND, class_N)).values())
    assert np.isnan(SCORES["auroc_ovr_macro"](class_N, np.eye(3)))


def test_a_jackknife_leaves_whole_subjects_out_and_widens_with_their_spread():
    _, _, subject_N = blobs(1.0)
    seen = []

    def mean_of(value_N):
        def measure(rows):
            seen.append(set(subject_N[rows]))
            left_out = set(subject_N) - seen[-1]
            assert all((subject_N[rows] != subject).all() for subject in left_out)
            return {"mean": float(value_N[rows].mean())}

        return jackknife(measure, subject_N)["mean"]

    by_subject = np.random.default_rng(0).normal(size=30)[subject_N]
    interval = mean_of(by_subject)
    assert interval.value == pytest.approx(by_subject.mean())
    deviation = by_subject[::3].std(ddof=1) / np.sqrt(30)  # of a mean over subjects
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * deviation, rel=0.5)
    assert len(seen) == neighbours.GROUPS + 1
    assert mean_of(np.ones(90)).high == pytest.approx(1.0)


def test_encoders_are_judged_side_by_side():
    good, class_N, subject_N = blobs(0.5)
    bad = np.random.default_rng(3).normal(size=good.shape).astype(np.float32)
    judged = judging.judge(
        {"good": good, "bad": bad}, class_N, 3, subject_N, subject_folds(subject_N, 3), shares=(0.05, 1.0), draws=20
    )
    for measure in ("knn5_f1_macro", "knn20_auroc_ovr_macro", "linear_balanced_accuracy", "silhouette", "nmi", "ari"):
        better, worse = judged[measure]["good"], judged[measure]["bad"]
        assert better.value > worse.value + 0.2
        assert better.low > worse.high
        assert better.low <= better.value <= better.high
    assert judged["knn5_f1_macro"]["good"].value > 0.95
    assert "knn5_f1_macro_at_5" in judged
