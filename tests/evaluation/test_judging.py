"""The tool that judges embeddings: a store with a label in, intervals by leads and encoders out."""

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest

import jaxbio
from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.config.roles import LEADS
from jaxbio.data.labels import Label, write_labels
from jaxbio.data.store import open_store
from jaxbio.evaluation import judging, judging_report
from jaxbio.export import folder
from jaxbio.export.pretrained import Pretrained, load_pretrained
from jaxbio.models import ENCODERS
from jaxbio.report import page
from jaxbio.transforms.prepare_input import Input
from tools import add_labels, judge

CHANGES = {
    "data.rate_hz": 100.0,
    "data.segment_s": 5.0,
    "data.channels": LEADS,
    "data.scaling": "physical",
    "pairs.rule": "all_segments",
    "prepare.split": (0.4, 0.3, 0.3),
}
SUBJECTS = 24


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Folders of a store with a label, two classes of another rate and one class of a single subject, and an export."""
    out = tmp_path_factory.mktemp("judged")
    config = fields.change(fields.defaults("ecg_jepa", "feature_prediction"), CHANGES)
    rng, time_T = np.random.default_rng(0), np.arange(1000) / 100
    names = [f"r{number}" for number in range(SUBJECTS)]
    kinds = ["slow" if number % 2 else "fast" for number in range(SUBJECTS - 1)] + ["odd"]
    beats = {"slow": 1.0, "fast": 0.5, "odd": 0.7}
    signals = {
        lead: [
            gain * np.exp(-((time_T % beats[kind] - 0.3) ** 2) / 0.001) + 0.01 * rng.normal(size=1000)
            for kind, gain in zip(kinds, rng.uniform(0.5, 1.5, SUBJECTS))
        ]
        for lead in LEADS
    }
    jaxbio.store_from_arrays(str(out / "store"), rate_hz=100.0, config=config, names=names, subjects=names, **signals)
    with (out / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["source", "recording", "pace"], *(["arrays", name, kind] for name, kind in zip(names, kinds))]
        )
    add_labels.main(["--store", str(out / "store"), "--labels", str(out / "labels.csv")])
    module, inputs = ENCODERS["ecg_jepa"](8, 1, 2, 16, 50), Input.of(config)
    variables = jax.jit(module.init)(jax.random.key(0), np.ones((1, *inputs.shape), np.float32))
    folder.write_export(out / "export", module, variables, inputs=inputs, origin=folder.Origin("a test", "student"))
    return out


@pytest.fixture(scope="module")
def result(judged):
    flags = ["--export", str(judged / "export"), "--store", str(judged / "store"), "--label", "pace", "--shares", "1.0"]
    return judge.main([*flags, "--leads", "all", "--leads", "i", "--out", str(judged / "out")])


@pytest.mark.slow
def test_each_set_of_leads_is_judged_and_the_class_of_one_subject_named(judged, result):
    assert json.loads((judged / "out" / "metrics.json").read_text()) == result
    assert result["classes_left_out"] == ["odd"]
    assert sum(result["tested_by_class"].values()) > 0
    assert result["leads"]["i"]["channels"][str(judged / "export")] == ["i"]
    measures = result["leads"]["all"]["measures"]
    wanted = {"knn5_f1_macro", "knn20_auroc_ovr_macro", "linear_balanced_accuracy", "silhouette", "nmi"}
    assert wanted <= measures.keys()
    assert set(measures["ari"]) == {str(judged / "export"), f"random_initialisation of {judged / 'export'}"}
    assert result["leads"]["i"]["measures"] != measures


@pytest.mark.slow
def test_an_encoder_stands_beside_five_fresh_networks_and_a_verdict_says_what_follows(judged, result):
    own, fresh = str(judged / "export"), f"random_initialisation of {judged / 'export'}"
    assert result["fresh_networks"] == {own: fresh}
    for found in result["leads"].values():
        values = found["seeds"]["linear_balanced_accuracy"]
        assert values.keys() == {fresh}
        assert len(values[fresh]) == 5
        assert found["measures"]["linear_balanced_accuracy"][fresh][0] == pytest.approx(
            np.mean(values[fresh]), abs=1e-4
        )
        assert found["minus_fresh"]["linear_balanced_accuracy"].keys() == {own}
        value = found["measures"]["knn5_f1_macro"][own][0]
        asked = "By 5 nearest neighbours pace is told with a macro F1 (mean over the classes) of"
        assert found["verdict"][own].startswith(f"{asked} {value:.3g} ")
        assert f"(5 seeds: {min(values[fresh]):.3g} to {max(values[fresh]):.3g})" in found["verdict"][own]
    assert f"{result['subjects_tested']} subjects" in result["trust"]
    assert "4 differences are asked about" in result["trust"]


@pytest.mark.slow
def test_the_page_stands_alone_with_tables_intervals_and_maps(judged, result):
    text = (judged / "out" / "report.html").read_text()
    assert result["report"] == str(judged / "out" / "report.html")
    assert text.count("<svg") == 8  # two encoders, two choices of leads, by class and by subject
    for said in ("knn5_f1_macro", "silhouette", "random_initialisation", "by subject", "slow", " to ", "; 5 seeds"):
        assert said in text
    for said in (result["trust"], *result["leads"]["i"]["verdict"].values()):
        assert page.escape(said) in text
    assert "src=" not in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_a_map_is_the_principal_components_of_what_it_shows():
    rng = np.random.default_rng(0)
    feature_ND = rng.normal(size=(50, 3)) * (5.0, 1.0, 0.01) + 7.0
    place_N2, shares = judging_report.project(feature_ND)
    np.testing.assert_allclose(np.abs(np.corrcoef(place_N2[:, 0], feature_ND[:, 0])[0, 1]), 1, atol=1e-2)
    np.testing.assert_allclose(place_N2.var(axis=0) / feature_ND.var(axis=0).sum(), shares)
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert judging_report.project(np.ones((3, 1)))[1] == (0.0, 0.0)


@pytest.mark.slow
def test_nobody_whom_the_encoder_may_have_learnt_from_is_tested(judged, result):
    store = open_store(judged / "store")
    labelled = judging.read_labelled(store, "pace")
    trained = set(labelled.subject_N[store.column("split")[labelled.row_N] == "train"])
    assert result["subjects_tested"] == len(set(labelled.subject_N) - trained)


@pytest.fixture(scope="module")
def labelled(judged):
    """Labelled segments, which of them are of the train split, and a function from a protocol, a seed and their classes
    to the splits.
    """
    store = open_store(judged / "store")
    read = judging.read_labelled(store, "pace")

    def split(protocol, seed, class_N):
        flags = ["--export", str(judged / "export"), "--store", str(judged / "store"), "--label", "pace", "--out", "x"]
        flags = judge.parse_flags([*flags, "--protocol", protocol, "--folds", "2", "--seed", str(seed)])
        return judge.split_rows(flags, store, dataclasses.replace(read, class_N=class_N))

    return read, store.column("split")[read.row_N] == "train", split


def test_a_rare_class_is_in_every_fold(labelled):
    read, seen_N, split = labelled
    rare_N = np.isin(read.subject_N, np.unique(read.subject_N[~seen_N])[:2]).astype(int)
    for seed in range(8):
        splits = split("cross_validate", seed, rare_N)
        assert [set(rare_N[test]) for _, test in splits] == [{0, 1}] * 2


def test_nothing_to_tell_apart_is_refused(labelled):
    read, seen_N, split = labelled
    with pytest.raises(UserError, match="all that is fitted on") as caught:
        split("transfer", 0, (~seen_N).astype(int))
    assert caught.value.faults[0].field == "--store"
    with pytest.raises(UserError, match="all that is tested"):
        split("transfer", 0, seen_N & (read.class_N == 0))


@pytest.mark.slow
def test_an_encoder_of_a_ppg_and_an_ecg_is_judged_by_all_its_channels(tmp_path):
    config = fields.change(fields.defaults("resnet1d", "supervised"), {**CHANGES, "data.channels": ("ppg", "ecg")})
    rng, names = np.random.default_rng(0), [f"r{number}" for number in range(16)]
    signals = {role: rng.normal(size=(16, 1000)) for role in ("ppg", "ecg")}
    store = jaxbio.store_from_arrays(
        str(tmp_path / "store"), rate_hz=100.0, config=config, names=names, subjects=names, **signals
    )
    write_labels(store, [Label("kind", (np.arange(store.rows) // 2 % 2).astype(np.float32), ("one", "other"))])
    module, inputs = ENCODERS["resnet1d"](18, (1, 1, 1, 1)), Input.of(config)
    variables = jax.jit(module.init)(jax.random.key(0), np.ones((1, *inputs.shape), np.float32))
    folder.write_export(
        tmp_path / "export", module, variables, inputs=inputs, origin=folder.Origin("a test", "encoder")
    )
    flags = ["--export", str(tmp_path / "export"), "--store", str(store.path), "--label", "kind", "--shares", "1.0"]
    found = judge.main([*flags, "--out", str(tmp_path / "out")])["leads"]["all"]
    assert found["channels"][str(tmp_path / "export")] == ["ppg", "ecg"]
    assert found["measures"]["silhouette"].keys() == found["channels"].keys()


@pytest.fixture(scope="module")
def wider(judged, tmp_path_factory):
    """An export of another network for the same input."""
    out, card = tmp_path_factory.mktemp("wider") / "export", load_pretrained(judged / "export", check=False).card
    module = ENCODERS["ecg_jepa"](12, 1, 2, 16, 50)
    variables = jax.jit(module.init)(jax.random.key(0), np.ones((1, *card.inputs.shape), np.float32))
    folder.write_export(out, module, variables, inputs=card.inputs, origin=folder.Origin("a test", "student"))
    return out


def test_encoders_of_one_network_share_their_fresh_networks(judged, wider):
    one, other = (load_pretrained(where, check=False) for where in (judged / "export", wider))
    fresh, fresh_of = judging.draw_beside({"a": [one], "b": [other], "c": [one, one]}, seed=0)
    assert fresh_of == {
        "a": "random_initialisation of a",
        "b": "random_initialisation of b",
        "c": "random_initialisation of a",
    }
    assert {name: len(own) for name, own in fresh.items()} == {fresh_of["a"]: 5, fresh_of["b"]: 5}


def test_five_fresh_networks_differ_and_embed_as_networks_of_their_own(judged):
    model = load_pretrained(judged / "export", check=False)
    fresh, _ = judging.draw_beside({"a": [model]}, seed=0)
    (five,) = fresh.values()
    x_T = np.random.default_rng(0).normal(size=500)
    vectors = [each.embed(ii=x_T, rate_hz=100.0) for each in (model, *five)]
    assert len({vector.tobytes() for vector in vectors}) == 6
    alone = Pretrained(model.card, folder.make_encoder(model.card), five[0].variables)
    np.testing.assert_array_equal(alone.embed(ii=x_T, rate_hz=100.0), vectors[1])


def test_seeds_of_one_recipe_are_of_one_network(judged, wider):
    one, other = str(judged / "export"), str(wider)
    assert [len(own) for own in judge.load_models([(one, one), (other,)]).values()] == [2, 1]
    with pytest.raises(UserError, match="no seed of one recipe: give it its own --export") as caught:
        judge.load_models([(one, other)])
    assert caught.value.faults[0].value == other


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--label", "nothing"], "no such label"),
        (["--label", "i_waveform"], "a label of classes"),
        (["--leads", "v9"], "one of all, limb, i, ii"),
        (["--shares", "1.5"], "at most 1"),
        (["--folds", "1"], "at least 2"),
    ],
)
def test_a_wrong_flag_is_named(judged, changes, words):
    flags = ["--export", str(judged / "export"), "--store", str(judged / "store"), "--out", str(judged / "bad")]
    label = [] if "--label" in changes else ["--label", "pace"]
    with pytest.raises(UserError, match=words):
        judge.main([*flags, *label, *changes])


def test_a_store_without_the_encoders_channels_is_refused(judged):
    model, store = load_pretrained(judged / "export", check=False), open_store(judged / "store")
    with pytest.raises(UserError, match="none of ppg"):
        judging.embed_rows(model, store, np.arange(2), ("ppg",))
