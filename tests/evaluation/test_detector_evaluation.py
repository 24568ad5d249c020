"""A detector is evaluated as one: by its own calibrated answers, beside a probe on the encoder within it."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, recall_score

from jaxbio.config.faults import UserError
from jaxbio.data.seen import UNKNOWN, Seen, hash_segments, hash_subjects
from jaxbio.evaluation import side_by_side
from jaxbio.evaluation.comparison import DETECTOR, PRETRAINED
from jaxbio.evaluation.detectors import answer_all
from jaxbio.evaluation.encoders import embed_all, load_encoders
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


def write_detector(path, detector, seed: int = 0, outputs: int = 2, *, inputs=INPUTS, calibrated=UNKNOWN, **fields):
    answering = detector and Answering(ENCODER, outputs, detector.answer, temperature=detector.temperature, **fields)
    module = answering or Answering(ENCODER, outputs, "classes")
    variables = jax.jit(module.init)(jax.random.key(seed), np.zeros((1, *inputs.shape), np.float32))
    origin = folder.Origin("a test", "answering")
    known = {"detector": detector, "calibrated": calibrated}
    folder.write_export(path, module, variables, inputs=inputs, origin=origin, **known)
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
    page = (tmp_path / "1" / "report.html").read_text()
    assert "Detector: whether an alarm" in page
    for drawn in (", what was decided: ", ", calibration: ", ": the answers that are farthest"):
        assert f"The detector&#x27;s own answers{drawn}" in page
    assert "Receiver operating characteristic: the detector&#x27;s own answers; pretrained; same network" in page
    assert result["segments_of_calibration"] is None
    assert "is not known (calibration.npz)" in result["who_is_tested"]
    assert "Nor is it known whom the detector was calibrated on" in result["verdict"]
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


def test_whom_a_detector_was_calibrated_on_is_neither_tested_nor_fitted_on(tmp_path, segments):
    """By name, and by a segment under another name."""
    named, hashed = hash_subjects(segments.subject_B[:9]), hash_segments(segments.fingerprint_B[9:10])
    path = write_detector(tmp_path / "detector", alarm(0.5), calibrated=Seen(np.unique(named), hashed))
    loaded = load_encoders([path], [], None)
    result = evaluate("vt_alarm", loaded, segments, Settings("cross_validate", folds=2), tmp_path, None)
    assert (result["segments_of_calibration"], result["subjects_of_calibration"]) == (12, 4)
    assert (result["segments_tested"], result["subjects_tested"], result["subjects_fitted_on"]) == (48, 16, 16)
    tested = read_evaluation(tmp_path).subject_N[""]
    assert not np.isin(tested, segments.subject_B[:12]).any()
    assert "calibrated on is left out" in result["who_is_tested"]
    everybody = Seen(np.unique(hash_subjects(segments.subject_B)), np.sort(hash_segments(segments.fingerprint_B)))
    loaded = load_encoders([write_detector(tmp_path / "all", alarm(0.5), calibrated=everybody)], [], None)
    with pytest.raises(UserError, match="a detector was calibrated on it"):
        evaluate("vt_alarm", loaded, segments, Settings("cross_validate"), tmp_path, None)


def test_a_channel_that_holds_no_signal_is_zeros_for_predict_and_for_the_evaluation(tmp_path, segments):
    inputs = Input(100.0, 1000, ("ppg", "ecg"), "unit")
    path = write_detector(tmp_path / "two", alarm(0.5), inputs=inputs)
    beats_BT, rng = segments.x_BCT[:4, 0], np.random.default_rng(0)
    half_BT = np.where(np.arange(1000) < 700, 3.3, beats_BT)
    x_BCT = np.stack([np.stack([beats_BT[0], rng.normal(size=1000)]), np.stack([beats_BT[1], half_BT[1]]),
                      np.stack([half_BT[2], beats_BT[2]]), np.stack([beats_BT[3], beats_BT[3]])])  # fmt: skip
    two = dataclasses.replace(segments.take(np.arange(4)), x_BCT=x_BCT.astype(np.float32))
    loaded = load_encoders([path], [], None)
    (said_BK,) = answer_all(loaded.detectors, two, "vt_alarm", cache=None)
    model = loaded.detectors[0]
    said = model.predict(ppg=two.x_BCT[:, 0], ecg=two.x_BCT[:, 1], rate_hz=100)
    np.testing.assert_array_equal(said.present_BC, [[True, False], [True, False], [False, True], [True, True]])
    np.testing.assert_allclose(said_BK[:, :2], said.probability_BK, atol=1e-5)
    alone = model.predict(ppg=two.x_BCT[:2, 0], rate_hz=100)
    np.testing.assert_allclose(said.probability_BK[:2], alone.probability_BK, atol=1e-5)


def test_the_encoder_within_a_detector_of_windows_sees_one_at_a_time(tmp_path, segments):
    path = write_detector(tmp_path / "windows", alarm(0.5), window=400)
    loaded = load_encoders([path], [], None)
    assert (loaded.card.length, loaded.window) == (1000, 400)
    (encoder,) = loaded.models[PRETRAINED]
    assert encoder.card.length == 400
    features = embed_all(loaded, segments.x_BCT[:3], cache=None, seed=0)
    windows_BT = (segments.x_BCT[:3, 0, 200:600], segments.x_BCT[:3, 0, 600:])
    apart = [encoder.embed(ppg=window_BT, rate_hz=100, window_s=4) for window_BT in windows_BT]
    np.testing.assert_allclose(features[PRETRAINED][0], np.mean(apart, axis=0), atol=1e-5)
    assert {own[0].shape for own in features.values()} == {(3, 8)}
    with pytest.raises(UserError, match="at least 4"):
        embed_all(loaded, segments.x_BCT[:3, :, :300], cache=None, seed=0)


def test_a_task_takes_detectors_of_the_labels_that_ask_the_same(tmp_path, segments):
    rates = dataclasses.replace(segments, label_BK=60 + 60 * segments.label_BK, classes=())
    rate = Detector("heart_rate_bpm", "numbers", may_lack_channels=True)
    loaded = load_encoders([write_detector(tmp_path / "rate", rate, outputs=1)], [], None)
    (said_B1,) = answer_all(loaded.detectors, rates, "heart_rate", cache=None)
    value_B = loaded.detectors[0].predict(ppg=segments.x_BCT[:, 0], rate_hz=100).value_B
    np.testing.assert_allclose(said_B1[:, 0], value_B, atol=1e-5)
    with pytest.raises(UserError, match="another question than respiratory_rate"):
        answer_all(loaded.detectors, rates, "respiratory_rate", cache=None)


@pytest.mark.slow
def test_a_detector_of_waveforms_answers_the_task_of_courses(tmp_path, segments):
    pressure = Detector("abp", "waveforms", may_lack_channels=True)
    path = write_detector(tmp_path / "abp", pressure, outputs=50, offset=90.0, scale=30.0)
    label_BT = 90 + 20 * segments.x_BCT[:, 0].reshape(60, 250, 4).mean(axis=2).astype(np.float64)
    courses = dataclasses.replace(segments, label_BK=label_BT, classes=())
    loaded = load_encoders([path], [], None)
    result = evaluate("abp_waveform", loaded, courses, Settings("cross_validate"), tmp_path, None)
    (answer,) = read_evaluation(tmp_path).answers[""][DETECTOR]
    waveform_BT = loaded.detectors[0].predict(ppg=segments.x_BCT[:, 0], rate_hz=100).waveform_BT
    assert answer.score_NK.shape == (60, 250)
    np.testing.assert_allclose(answer.score_NK.mean(axis=1), waveform_BT.mean(axis=1), atol=0.5)
    error = np.abs(answer.score_NK - label_BT).mean()
    assert result["metrics"]["mae"][DETECTOR][0] == pytest.approx(error, rel=1e-4)
    assert "own answers: MAE" in (tmp_path / "report.html").read_text()


def test_a_label_of_a_store_takes_detectors_of_that_label_alone(tmp_path, segments):
    yes_no = dataclasses.replace(segments, classes=("no", "yes"))
    loaded = load_encoders([write_detector(tmp_path / "smoker", alarm(0.5, "smoker", ("no", "yes")))], [], None)
    with pytest.raises(UserError, match="another question than label:af"):
        answer_all(loaded.detectors, yes_no, "label:af", cache=None)
    assert answer_all(loaded.detectors, yes_no, "label:smoker", cache=None)[0].shape == (60, 3)
