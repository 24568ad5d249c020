"""Courses: how they are measured, learnt from tokens, and evaluated from segments to pages."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.data.seen import Seen
from jaxbio.evaluation import comparison, encoders, evaluation, readouts, results, side_by_side
from jaxbio.evaluation.course_measures import COURSES
from jaxbio.evaluation.measure import Answer, Truth
from jaxbio.evaluation.tasks import Segments
from jaxbio.signals.hand_made import describe_seconds

RATE_HZ, SECONDS, SUBJECTS, EACH = 100, 10, 6, 4


def truth_of(label_NT: np.ndarray) -> Truth:
    rows = len(label_NT)
    return Truth(label_NT, np.arange(rows), np.ones(rows))


def test_measures_are_means_over_segments_of_what_numpy_computes():
    rng = np.random.default_rng(0)
    true_NT, said_NT = rng.normal(90, 20, (5, 40)), rng.normal(90, 20, (5, 40))
    weight_DN = np.array([np.ones(5), [2, 0, 1, 0, 2]])
    found = {m.name: m.compute(truth_of(true_NT), Answer(said_NT, said_NT[:, 0]), weight_DN) for m in COURSES}
    off_NT = said_NT - true_NT
    expected = {
        "mae": [np.abs(row).mean() for row in off_NT],
        "shape_mae": [np.abs(row - row.mean()).mean() for row in off_NT],
        "shape_r": [np.corrcoef(true_T, said_T)[0, 1] for true_T, said_T in zip(true_NT, said_NT)],
    }
    for name, value_N in expected.items():
        np.testing.assert_allclose(found[name], [np.average(value_N, weights=w) for w in weight_DN], rtol=1e-9)
    flat = Answer(np.full((5, 1), 90.0), np.full(5, 90.0))
    still = {m.name: m.compute(truth_of(true_NT), flat, np.ones((1, 5)))[0] for m in COURSES}
    assert still["mae"] == pytest.approx(np.abs(true_NT - 90).mean())
    assert np.isnan(still["shape_r"])


@pytest.mark.parametrize("samples", [60, 50, 61])
def test_each_token_tells_its_own_part(samples):
    """Tokens that hold the course at their ends: also where samples do not divide by them."""
    rng = np.random.default_rng(0)
    t_T, tokens = (np.arange(samples) + 0.5) / samples, 6
    phase_N1 = rng.uniform(0, 2 * np.pi, (60, 1))
    label_NT = 90 + 30 * np.sin(2 * np.pi * t_T + phase_N1)
    middle_L = (np.arange(tokens) + 0.5) / tokens
    tok_NLD = np.stack([np.sin(2 * np.pi * middle_L + phase_N1), np.cos(2 * np.pi * middle_L + phase_N1)], axis=-1)
    said = readouts.COURSE(tok_NLD[:40], label_NT[:40], np.arange(40) % 8, tok_NLD[40:], 0)
    assert said.score_NK.shape == (20, samples)
    assert np.abs(said.score_NK - label_NT[40:]).mean() < 1.5
    np.testing.assert_allclose(said.decision_N, said.score_NK.mean(axis=1))


def test_seconds_hold_what_a_filter_would_read():
    rng = np.random.default_rng(0)
    x_BCT = rng.normal(size=(3, 2, RATE_HZ * SECONDS)).cumsum(axis=-1)
    x_BCT[1, 1] = 4.0
    around_BLF = describe_seconds(x_BCT, RATE_HZ)
    assert around_BLF.shape == (3, SECONDS, 2 * 49)
    assert not around_BLF[1, :, 49:].any()
    # the end of a second's stretch is the begin of the next one's
    np.testing.assert_array_equal(around_BLF[0, 0, 25:49], around_BLF[0, 1, :24])


class _Tokens:
    """An encoder of tokens: each the pulse's mean over its tenth of the segment, or noise where it is `blind`."""

    card = SimpleNamespace(encoder="stand_in", encoder_fields={}, inputs="as it is", rate_hz=float(RATE_HZ),
                           length=RATE_HZ * SECONDS, channels=("ppg", "ecg"), crops=1, steps=3, which="encoder",
                           store_hash="made")  # fmt: skip

    def __init__(self, blind: bool = False):
        self.blind, self.variables = blind, {"params": {"blind": np.array([blind])}}

    def prepare(self, x_BCT):
        return x_BCT

    def encode(self, x_BCT):
        if self.blind:
            return np.random.default_rng(0).normal(size=(len(x_BCT), 50, 4)).astype(np.float32)
        return x_BCT[:, 0].reshape(len(x_BCT), 50, -1)


def made_segments() -> Segments:
    """Segments whose pressure is the pulse, louder, on a level of the subject's own."""
    rows = SUBJECTS * EACH
    subject_B = np.repeat(np.arange(SUBJECTS), EACH)
    t_T, rng = np.arange(RATE_HZ * SECONDS) / RATE_HZ, np.random.default_rng(0)
    pulse_BT = np.sin(2 * np.pi * (1.1 * t_T + rng.uniform(size=(rows, 1)))).astype(np.float32)
    label_BT = 90 + subject_B[:, None] + 20 * pulse_BT.reshape(rows, 250, 4).mean(axis=2)
    whose_B = np.array([f"csv:x/{code}" for code in subject_B])
    return Segments(
        x_BCT=np.stack([pulse_BT, rng.normal(size=pulse_BT.shape).astype(np.float32)], axis=1),
        label_BK=label_BT.astype(np.float64), fingerprint_B=np.arange(rows).astype(np.uint64),
        start_s_B=np.tile(np.arange(EACH) * 10.0, SUBJECTS), present_BC=np.ones((rows, 2), bool), subject_B=whose_B,
        source_B=np.full(rows, "csv:x"), recording_B=whose_B, subject_known_B=np.ones(rows, bool),
    )  # fmt: skip


def test_an_evaluation_of_courses_goes_from_segments_to_pages_and_side_by_side(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(comparison, "initialise_again", lambda model, seed: _Tokens(blind=True))
    nobody = Seen(np.zeros(0, np.uint64), np.zeros(0, np.uint64), True)
    loaded = encoders.Encoders(_Tokens.card, {comparison.PRETRAINED: [_Tokens()]}, nobody, ("e",))
    settings = evaluation.Settings("cross_validate", folds=3, shares=(0.5,))
    result = evaluation.evaluate("abp_waveform", loaded, made_segments(), settings, tmp_path, None)
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(result))
    errors = {who: interval[0] for who, interval in result["metrics"]["mae"].items()}
    assert set(errors) == {"pretrained", "random_initialisation", "hand_made", "constant"}
    assert errors["pretrained"] < 4 < errors["random_initialisation"]
    assert errors["hand_made"] < 4 < errors["constant"]
    assert result["metrics"]["shape_r"]["pretrained"][0] > 0.95
    assert result["metrics"]["shape_r"]["constant"] == [None] * 3
    assert "The signals around each second, read by a linear model" in result["verdict"]
    page = (tmp_path / "report.html").read_text()
    assert "pressure, mmHg" in page
    assert "10 nearest neighbours" not in page
    own = results.read_evaluation(tmp_path)
    assert own.truths[""].label_N.shape == (SUBJECTS * EACH, 250)
    both = side_by_side.compare_evaluations({"a": own}, ["pretrained", "hand_made"])
    assert both.intervals["mae"]["a: pretrained"].value == pytest.approx(errors["pretrained"], abs=1e-4)


def test_tokens_of_several_crops_tell_no_course():
    model = _Tokens()
    model.card = SimpleNamespace(**{**vars(_Tokens.card), "crops": 3})
    with pytest.raises(UserError, match="3 crops"):
        comparison.embed_tokens(model, made_segments().x_BCT)
