"""A detector is evaluated as one: by its own calibrated answers, beside a probe on the encoder within it."""

import json

import jax
import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, recall_score

from jaxbio.config.faults import UserError
from jaxbio.evaluation import side_by_side
from jaxbio.evaluation.comparison import DETECTOR, PRETRAINED
from jaxbio.evaluation.detectors import answer_all
from jaxbio.evaluation.encoders import load_encoders
from jaxbio.evaluation.evaluation import Settings, evaluate
from jaxbio.evaluation.results import read_evaluation
from jaxbio.evaluation.tasks import Segments
from jaxbio.export import folder
from jaxbio.export.detector import Detector
from jaxbio.models import ENCODERS
from jaxbio.models.answering import Answering
from jaxbio.transforms.prepare_input import Input

INPUTS = Input(100.0, 1000, ("ppg",), "unit")
ENCODER = ENCODERS["ecg_jepa"](8, 1, 2, 8)
NAMES = ("false", "true")


def write_detector(path, detector, seed: int = 0, outputs: int = 2):
    answering = Answering(ENCODER, outputs, detector.answer, temperature=detector.temperature) if detector else None
    module = answering or Answering(ENCODER, outputs, "classes")
    variables = jax.jit(module.init)(jax.random.key(seed), np.zeros((1, 1, 1000), np.float32))
    origin = folder.Origin("a test", "answering")
    folder.write_export(path, module, variables, inputs=INPUTS, origin=origin, detector=detector)
    return str(path)


def alarm(threshold: float, label: str = "vt_alarm", classes: tuple[str, ...] = NAMES) -> Detector:
    return Detector(label, "classes", classes, classes[1], threshold, 0.95, 0.2, True)


@pytest.fixture(scope="module")
def segments():
    """Sixty segments of twenty subjects, beats of two rates."""
    rng = np.random.default_rng(0)
    label_N, t_T = np.arange(60) // 3 % 2, np.arange(1000) / 100
    x_BT = np.sin(2 * np.pi * (1 + label_N[:, None]) * t_T) + 0.3 * rng.normal(size=(60, 1000))
    subject_N = np.array([f"s/{row // 3}" for row in range(60)])
    marks = (np.arange(60, dtype=np.uint64), 10.0 * np.arange(60), np.ones((60, 1), bool), subject_N)
    told = (np.full(60, "s"), np.full(60, "r"), np.ones(60, bool))
    x_BCT = x_BT[:, None].astype(np.float32)
    return Segments(x_BCT, label_N[:, None].astype(float), *marks, *told, ("false alarm", "true alarm"))


@pytest.fixture(scope="module")
def detectors(tmp_path_factory, segments):
    """Two detectors of two seeds, whose thresholds lie among their probabilities."""
    root = tmp_path_factory.mktemp("detectors")
    paths = []
    for seed in (0, 1):
        path = write_detector(root / f"draft{seed}", alarm(0.5), seed)
        (said_BK,) = answer_all(load_encoders([path], [], None).detectors, segments, "vt_alarm", cache=None)
        paths.append(write_detector(root / f"seed{seed}", alarm(float(np.median(said_BK[:, 1]))), seed))
    return paths


def test_a_detector_answers_itself_with_its_temperature_and_its_threshold(detectors, segments, tmp_path):
    folders = []
    for number, path in enumerate(detectors):
        loaded = load_encoders([path], [], None)
        result = evaluate("vt_alarm", loaded, segments, Settings("cross_validate"), tmp_path / str(number), None)
        folders.append(str(tmp_path / str(number)))
    assert result["which"] == "detector"
    assert "The detector itself" in result["verdict"]
    assert "the detector&#x27;s own answers" in (tmp_path / "1" / "report.html").read_text()
    model = loaded.detectors[0]
    said = model.predict(ppg=segments.x_BCT[:, 0], rate_hz=100)
    true_N, decided_N = segments.label_BK[:, 0], said.decision_B == "true"
    assert 0 < decided_N.mean() < 1
    metrics = {name: by_entrant[DETECTOR][0] for name, by_entrant in result["metrics"].items()}
    assert metrics["brier"] == pytest.approx(brier_score_loss(true_N, said.probability_BK[:, 1]), abs=1e-5)
    assert metrics["sensitivity"] == pytest.approx(recall_score(true_N, decided_N), abs=1e-5)
    assert metrics["specificity"] == pytest.approx(recall_score(1 - true_N, ~decided_N), abs=1e-5)
    assert set(result["other_ways"]["10 nearest neighbours"]) >= {PRETRAINED}
    assert DETECTOR not in result["other_ways"]["10 nearest neighbours"]
    # beside it the encoder within it, whose features are read by a probe
    (encoder,) = loaded.models[PRETRAINED]
    assert encoder.card.width == 8
    x_BCT = encoder.prepare(segments.x_BCT[:2])
    own = model.card.encoder_fields["encoder"]["encoder"]
    assert (encoder.card.encoder, encoder.card.which) == (own, "encoder")
    variables = {"params": model.variables["params"]["encoder"]}
    np.testing.assert_allclose(encoder.encode(x_BCT), ENCODER.apply(variables, x_BCT), atol=1e-4)
    compared = side_by_side.compare_evaluations({name: read_evaluation(name) for name in folders}, [DETECTOR])
    assert compared.intervals["auroc"].keys() == {*folders}
    assert json.loads((tmp_path / "0" / "results.json").read_text())["classes"] == ["false alarm", "true alarm"]


def test_classes_are_matched_by_their_names_whatever_their_order(tmp_path, segments):
    path = write_detector(tmp_path / "turned", alarm(0.5, "another", ("true alarm", "false alarm")))
    loaded = load_encoders([path], [], None)
    (said_BK,) = answer_all(loaded.detectors, segments, "vt_alarm", cache=None)
    said = loaded.detectors[0].predict(ppg=segments.x_BCT[:, 0], rate_hz=100)
    np.testing.assert_allclose(said_BK[:, :2], said.probability_BK[:, ::-1], atol=1e-5)
    np.testing.assert_array_equal(said_BK[:, 2] == 1, said.decision_B == "true alarm")


def test_a_detector_of_another_question_and_a_network_that_is_none_are_refused(tmp_path, segments):
    other = load_encoders([write_detector(tmp_path / "af", alarm(0.5, "af", ("no", "yes")))], [], None)
    with pytest.raises(UserError, match=r"another question than vt_alarm.*--which encoder"):
        answer_all(other.detectors, segments, "vt_alarm", cache=None)
    with pytest.raises(UserError, match="--which encoder"):
        load_encoders([write_detector(tmp_path / "none", None)], [], None)
