"""What a detector says of answers, and which files of one are refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.export import folder
from jaxbio.export.card import DETECTOR, read_card
from jaxbio.export.detector import Detector, read_detector, to_bytes
from jaxbio.export.pretrained import Pretrained

ALARM = Detector("alarm", "classes", ("false", "true"), "true", 0.3, 0.95, 1.4, True, ({"split": "test"},))
PROBABILITY_BK = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])


def test_decisions_follow_threshold_or_largest_probability_and_no_signal_before_both():
    heard_B = np.array([True, True, False])
    assert ALARM.decide(PROBABILITY_BK, heard_B).tolist() == ["false", "true", "no signal"]
    turned = dataclasses.replace(ALARM, positive="false", threshold=0.7)
    assert turned.decide(PROBABILITY_BK, heard_B).tolist() == ["false", "true", "no signal"]
    largest = dataclasses.replace(ALARM, positive=None, threshold=None)
    assert largest.decide(PROBABILITY_BK, heard_B).tolist() == ["false", "false", "no signal"]
    number = Detector("rate", "numbers")
    assert number.decide(PROBABILITY_BK[:, :1], heard_B).tolist() == ["answered", "answered", "no signal"]


@pytest.fixture
def card(export_folder):
    return dataclasses.replace(read_card(export_folder), width=2, files={DETECTOR: {}})


def test_a_detector_is_read_as_it_was_written_and_an_encoder_has_none(card, tmp_path):
    (tmp_path / DETECTOR).write_bytes(to_bytes(ALARM))
    assert read_detector(tmp_path, card) == ALARM
    assert read_detector(tmp_path, dataclasses.replace(card, files={})) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"temperature": 0.0}, "temperature"),
        ({"classes": ["false", "true", "maybe"]}, "classes"),
        ({"classes": ["true", "true"]}, "classes"),
        ({"positive": "maybe"}, "positive"),
        ({"answer": "poems"}, "answer"),
        ({"figures": [3]}, "figures"),
        ({"more": 1}, "more"),
    ],
)
def test_a_file_that_is_no_detector_of_this_network_is_refused(card, tmp_path, change, says):
    (tmp_path / DETECTOR).write_text(json.dumps(dataclasses.asdict(ALARM) | change))
    with pytest.raises(UserError, match=says):
        read_detector(tmp_path, card)


def test_a_network_whose_answers_are_no_numbers_decides_nothing(export_folder):
    card, module, variables = folder.read_export(export_folder)
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), variables)
    model = Pretrained(card, module, broken, Detector("rate", "numbers", may_lack_channels=True))
    ppg = np.sin(np.arange(9000) / 40)
    with pytest.raises(UserError, match="1 of 1 answers are NaN"):
        model.predict(ppg=ppg, rate_hz=300)
    assert model.predict(ppg=np.ones(9000), rate_hz=300).decision_B.tolist() == ["no signal"]


@pytest.fixture
def detect(export_folder):
    """A function that makes a detector of the small encoder, whose one number means nothing."""
    card, module, variables = folder.read_export(export_folder)
    return lambda may_lack: Pretrained(card, module, variables, Detector("rate", "numbers", may_lack_channels=may_lack))


T_T = np.arange(9000) / 300
BEATS_T = np.sin(2 * np.pi * T_T)


def _dither(level, step):
    return level + step * np.random.default_rng(0).integers(0, 2, 9000)


NO_SIGNALS = {
    "constant": np.full(9000, 3.3),
    "the last bit of counts": _dither(2048, 1),
    "the last bit in mV": _dither(0.0, 0.0049),
    "the last bit without unit, its mean subtracted": _dither(-0.5, 1.0),
    "a flat line with noise": 3.3 + 1e-4 * np.random.default_rng(0).normal(size=9000),
    "noise that is left of a flat line": 1e-6 * np.random.default_rng(0).normal(size=9000),
    "flat for most of the segment": np.where(T_T < 20, _dither(2048, 1), np.round(2048 + 500 * BEATS_T)),
}


@pytest.mark.parametrize("x_T", NO_SIGNALS.values(), ids=NO_SIGNALS)
def test_a_flat_line_of_any_kind_is_answered_no_signal(detect, x_T):
    said = detect(True).predict(ppg=x_T, ecg=x_T, rate_hz=300)
    assert said.decision_B.tolist() == ["no signal"]
    assert not said.present_BC.any()
    assert np.isnan(said.value_B).all()
    one = detect(True).predict(ppg=BEATS_T, ecg=x_T, rate_hz=300)
    assert one.decision_B.tolist() == ["answered"]
    assert one.present_BC.tolist() == [[True, False]]


def test_weak_and_coarse_signals_are_answered(detect):
    coarse, weak = np.round(8 * BEATS_T), 100_000 + np.round(20 * BEATS_T)  # 4 bits; pulses of 0.04 % of the level
    said = detect(True).predict(ppg=weak, ecg=coarse, rate_hz=300)
    assert said.decision_B.tolist() == ["answered"]
    assert said.present_BC.all()


def test_a_channel_in_its_last_bits_embeds_as_one_that_is_not_given(detect):
    alone = detect(True).embed_segments(ppg=BEATS_T, rate_hz=300)
    beside = detect(True).embed_segments(ppg=BEATS_T, ecg=_dither(2048, 1), rate_hz=300)
    np.testing.assert_array_equal(beside.vector_BD, alone.vector_BD)
    np.testing.assert_array_equal(beside.present_BC, [[True, False]])


def test_a_detector_that_needs_its_channels_refuses_or_says_no_signal_where_one_lacks(detect):
    with pytest.raises(UserError, match=r"ecg.*trained with all its channels"):
        detect(False).predict(ppg=BEATS_T, rate_hz=300)
    both = detect(False).predict(ppg=BEATS_T, ecg=BEATS_T, rate_hz=300)
    assert both.decision_B.tolist() == ["answered"]
    for flat_T in (np.full(9000, 3.3), _dither(2048, 1)):
        said = detect(False).predict(ppg=BEATS_T, ecg=flat_T, rate_hz=300)
        assert said.decision_B.tolist() == ["no signal"]
        assert np.isnan(said.value_B).all()
        assert said.present_BC.tolist() == [[True, False]]


@pytest.mark.parametrize("text", ["", "[]", "{", "3"])
def test_what_is_no_json_is_refused(card, tmp_path, text):
    (tmp_path / DETECTOR).write_text(text)
    with pytest.raises(UserError, match=DETECTOR):
        read_detector(tmp_path, card)
