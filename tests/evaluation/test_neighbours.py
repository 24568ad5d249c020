"""Neighbours, clusters and scores are scikit-learn's numbers, and intervals know subjects."""

import numpy as np
import pytest

from jaxbio.evaluation import judging, judging_verdict, neighbours
from jaxbio.evaluation.intervals import single_values
from jaxbio.evaluation.measure import Answer, Truth
from jaxbio.evaluation.neighbours import SCORES, agree, cluster, jackknife, separate, vote
from jaxbio.evaluation.probes import subject_folds


@pytest.fixture(scope="module")
def arrays(parity_dir):
    with np.load(parity_dir / "ecg_vqvae_triplet.npz") as file:
        return {name.removeprefix("metrics/"): file[name] for name in file.files if name.startswith("metrics/")}


def truth_of(class_N):
    return Truth(class_N, np.arange(len(class_N)), np.ones(len(class_N)))


@pytest.mark.parametrize("count", [5, 20])
def test_votes_predictions_and_scores_are_the_references(arrays, count):
    train, label, test = (arrays[name] for name in ("train_embedding_BD", "train_label_B", "test_embedding_BD"))
    answer = vote(train, label, test, classes=5, neighbours=count)
    np.testing.assert_allclose(answer.score_NK, arrays[f"knn{count}/probability_BK"], atol=1e-6)
    np.testing.assert_array_equal(answer.decision_N, arrays[f"knn{count}/prediction_B"])
    truth = truth_of(arrays["test_label_B"])
    for name, measure in SCORES.items():
        (found,) = single_values(measure.compute, truth, [answer])
        assert found == pytest.approx(float(arrays[f"knn{count}/{name}"]), abs=1e-6), name


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
    answer = Answer(np.eye(3), np.arange(3))
    for name in ("auroc_ovr_weighted", "auroc_ovr_macro", "auroc_ovo_macro"):
        assert np.isnan(single_values(SCORES[name].compute, truth_of(class_N), [answer])).all(), name


def test_a_jackknife_leaves_whole_subjects_out_and_widens_with_their_spread():
    _, _, subject_N = blobs(1.0)
    seen = []

    def mean_of(value_N):
        def measure(rows):
            seen.append(set(subject_N[rows]))
            left_out = set(subject_N) - seen[-1]
            assert all((subject_N[rows] != subject).all() for subject in left_out)
            return {"mean": float(value_N[rows].mean())}

        return jackknife(measure, subject_N)["mean"].interval()

    by_subject = np.random.default_rng(0).normal(size=30)[subject_N]
    interval = mean_of(by_subject)
    assert interval.value == pytest.approx(by_subject.mean())
    deviation = by_subject[::3].std(ddof=1) / np.sqrt(30)  # of a mean over subjects
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * deviation, rel=0.5)
    assert len(seen) == neighbours.GROUPS + 1
    assert mean_of(np.ones(90)).high == pytest.approx(1.0)


SPLITS = subject_folds(blobs(1.0)[2], 3)


def judge(features, fresh_of, **how):
    _, class_N, subject_N = blobs(1.0)
    return judging.judge(features, fresh_of, class_N, 3, subject_N, SPLITS, **{"shares": (1.0,), "draws": 100, **how})


def noise(seed):
    """Features that hold nothing of the classes."""
    return blobs(0.0)[0] * 0 + np.random.default_rng(seed).normal(size=(90, 8)).astype(np.float32)


FRESH = [noise(100 + seed) for seed in range(5)]


@pytest.fixture(scope="module")
def judged():
    """An encoder that tells the classes and one that does not, each beside five fresh networks."""
    features = {"good": [blobs(0.5)[0]], "bad": [noise(3)], "fresh": FRESH}
    return judge(features, {"good": "fresh", "bad": "fresh"}, shares=(0.05, 1.0))


MEASURES = ("knn5_f1_macro", "knn20_auroc_ovr_macro", "linear_balanced_accuracy", "silhouette", "nmi", "ari")


@pytest.mark.parametrize("measure", MEASURES)
def test_encoders_are_judged_side_by_side_and_beside_fresh_networks(judged, measure):
    better, worse = judged.intervals[measure]["good"], judged.intervals[measure]["bad"]
    assert better.value > worse.value + 0.2
    assert better.low > worse.high
    assert better.low <= better.value <= better.high
    assert judged.gains[measure]["good"].low > 0
    assert judged.gains[measure]["bad"].low < 0.1
    assert judged.intervals["knn5_f1_macro"]["good"].value > 0.95
    assert f"{MEASURES[0]}_at_5" in judged.gains


@pytest.mark.parametrize("measure", MEASURES)
def test_fresh_networks_differ_and_are_measured_by_their_mean(judged, measure):
    seeds = judged.seeds[measure]["fresh"]
    assert len(set(seeds)) == 5
    assert "good" not in judged.seeds[measure]
    assert judged.intervals[measure]["fresh"].value == pytest.approx(np.mean(seeds))
    gain = judged.gains[measure]["good"]
    assert gain.value == pytest.approx(judged.intervals[measure]["good"].value - np.mean(seeds))


def test_a_difference_is_paired():
    """An encoder that is its own fresh network differs by nothing, however much subjects differ."""
    own = blobs(3.0)[0]
    found = judge({"own": [own], "fresh": [own, own]}, {"own": "fresh"})
    for measure in MEASURES:
        assert tuple(found.gains[measure]["own"]) == pytest.approx((0, 0, 0), abs=1e-9), measure
        assert found.intervals[measure]["own"].high > found.intervals[measure]["own"].low, measure


def test_seeds_of_an_encoder_are_averaged_and_stand_apart():
    own = [blobs(2.0, seed)[0] for seed in range(2)]
    found = judge({"own": own, "first": own[:1], "second": own[1:]}, {"own": "second"})
    for measure, by in found.intervals.items():
        single = [by["first"].value, by["second"].value]
        assert found.seeds[measure] == {"own": pytest.approx(single)}, measure
        assert by["own"].value == pytest.approx(np.mean(single)), measure
        assert found.gains[measure]["own"].value == pytest.approx((single[0] - single[1]) / 2), measure


def said_of(judged, encoder):
    return judging_verdict.tell_encoder(judged, encoder, "fresh", label="rhythm", share=1.0)


def test_features_that_hold_the_class_are_said_to_beat_fresh_networks_and_others_not(judged):
    good, bad = said_of(judged, "good"), said_of(judged, "bad")
    assert good.beats == (1, 1)
    assert good.text.count("pretraining has made it better") == 2
    assert good.text.count("; no single seed does as well.") == 2
    assert "By 5 nearest neighbours rhythm is told with a macro F1" in good.text
    assert "By a linear probe rhythm is told with a balanced accuracy" in good.text
    assert 1 not in bad.beats
    assert "made it better" not in bad.text


def test_where_one_fresh_network_does_as_well_training_is_not_said_to_be_why():
    own = blobs(0.5)[0]
    said = said_of(judge({"own": [own], "fresh": [*FRESH[:4], own]}, {"own": "fresh"}), "own")
    assert said.beats == (0, 0)
    assert said.text.count("; a single seed does as well.") == 2


def test_trust_rests_on_the_subjects_and_on_how_much_is_asked(judged):
    said = [said_of(judged, "good"), said_of(judged, "bad")]
    trust = judging_verdict.tell_trust(said, subjects=8, unnamed=0.0, seen_known=True)
    assert "only 8 subjects" in trust
    assert "More subjects would narrow" in trust
    assert "4 differences are asked about" in trust
    assert "More subjects" not in judging_verdict.tell_trust(said[:1], subjects=8, unnamed=0.0, seen_known=True)
