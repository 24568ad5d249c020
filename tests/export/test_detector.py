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


@pytest.mark.parametrize("text", ["", "[]", "{", "3"])
def test_what_is_no_json_is_refused(card, tmp_path, text):
    (tmp_path / DETECTOR).write_text(text)
    with pytest.raises(UserError, match=DETECTOR):
        read_detector(tmp_path, card)
