"""A detector: what an export holds beside an encoder with its head, so that somebody can act upon its answers.

`detector.json` names the classes, the threshold and the temperature that were chosen on held-out subjects, and what the
detector is worth by the channels it is given. The temperature is part of the network, so that its program gives
probabilities too.

    detector = read_detector(folder, card)          # None: the export is an encoder
    decision_B = detector.decide(probability_BK, answered_B)
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.field import Field
from jaxbio.config.single_fields import wrong_value
from jaxbio.data.given_files import open_given
from jaxbio.export.card import DETECTOR, Card
from jaxbio.export.card_fields import shorten

NO_SIGNAL, ANSWERED = "no signal", "answered"
_MOST_BYTES = 2**20
_FIELDS: dict[str, Field] = {
    "label": Field("", str, "the label, or the channel, that it learnt"),
    "answer": Field("classes", str, "what it answers with", choices=("classes", "numbers", "waveforms")),
    "classes": Field((), tuple, "names of the classes, in the order of the probabilities"),
    "positive": Field(None, str, "the class that the threshold is for", optional=True),
    "threshold": Field(None, float, "probability from which it says so", optional=True, low=0.0, high=1.0),
    "sensitivity": Field(
        None, float, "share of the held-out positives that the threshold had to find", optional=True, low=0.0, high=1.0
    ),
    "temperature": Field(None, float, "divisor of the logits", optional=True, low=1e-3, high=1e3),
    "may_lack_channels": Field(False, bool, "whether it was trained on segments that lack channels"),
    "figures": Field((), tuple, "what it is worth on held-out subjects"),
}


@dataclass(frozen=True)
class Detector:
    """How answers become decisions, all of it plain JSON.

    `classes` are in the order of the probabilities, () where it answers otherwise. Of two classes, `positive` is said
    from `threshold` on, which finds at least the share `sensitivity` of the positives among the validation subjects; of
    more, the most probable is said. `may_lack_channels`: it was trained on segments of which channels were dropped, and
    may be given only some. `figures` are a table: what it is worth on each split, by the channels that it was given.
    """

    label: str
    answer: str
    classes: tuple[str, ...] = ()
    positive: str | None = None
    threshold: float | None = None
    sensitivity: float | None = None
    temperature: float | None = None
    may_lack_channels: bool = False
    figures: tuple[Mapping[str, Any], ...] = ()

    def decide(self, answer_BK: np.ndarray, answered_B: np.ndarray) -> np.ndarray:
        """Return what is said of each segment, texts (B,): a class, "answered" with numbers, or "no signal"."""
        if self.answer != "classes":
            return np.where(answered_B, ANSWERED, NO_SIGNAL)
        return np.where(answered_B, np.array(self.classes)[self.decide_codes(answer_BK)], NO_SIGNAL)

    def decide_codes(self, probability_BK: np.ndarray) -> np.ndarray:
        """Return the place (B,) of the class that is said of each segment: by the threshold, else the most probable."""
        if self.threshold is None or self.positive is None:
            return probability_BK.argmax(axis=1)
        place = self.classes.index(self.positive)
        return np.where(probability_BK[:, place] >= self.threshold, place, 1 - place)


class Prediction(NamedTuple):
    """The answers to a recording's segments.

    probability_BK: float32 (segments, classes), in the order of the detector's classes; value_B: float32 (segments,), a
        number in its label's unit; waveform_BT: float32 (segments, samples at the card's rate), in its channel's unit.
        Two of them are None; NaN where there is no signal.
    decision_B: texts, a class, "answered" with numbers, or "no signal".
    quality_B: float64, the segment's score (`jaxbio.signals.score`), 0 to 1; how far to trust an answer.
    present_BC: bool (segments, channels of the card), which channels were given and hold a signal.
    """

    probability_BK: np.ndarray | None
    value_B: np.ndarray | None
    waveform_BT: np.ndarray | None
    decision_B: np.ndarray
    quality_B: np.ndarray
    present_BC: np.ndarray


def to_bytes(detector: Detector) -> bytes:
    """Return the content of detector.json."""
    return (json.dumps(dataclasses.asdict(detector), indent=2) + "\n").encode()


def read_detector(folder: epath.PathLike, card: Card) -> Detector | None:
    """Return the detector of an export, whose files have been checked; None where the export is an encoder alone.

    Raises UserError with every fault of a file that is no detector of this card's network.
    """
    if DETECTOR not in card.files:
        return None
    path = os.path.join(folder, DETECTOR)
    with open_given(path, missing="the card lists it; copy the whole export folder") as file:
        raw = file.read(_MOST_BYTES + 1)
    try:
        stored = json.loads(raw.decode())
        wrong = sorted(_FIELDS.keys() ^ stored.keys())
    except (ValueError, RecursionError, AttributeError) as error:
        raise UserError(Fault(path, "unreadable", f"no detector ({error}); export again")) from error
    if wrong:
        raise UserError(Fault(path, shorten(f"fields {', '.join(wrong)}"), "missing or unknown; export again"))
    faults = [
        Fault(f"{path}: {name}", shorten(stored[name]), remedy)
        for name, field in _FIELDS.items()
        if (remedy := wrong_value(stored[name], field))
    ]
    if not faults:
        faults = [Fault(f"{path}: {name}", shorten(stored[name]), remedy) for name, remedy in _between(stored, card)]
    if faults:
        raise UserError(*faults)
    return Detector(**{**stored, "classes": tuple(stored["classes"]), "figures": tuple(stored["figures"])})


def _between(stored: Mapping[str, Any], card: Card) -> list[tuple[str, str]]:
    """Return (field, remedy) of what is right alone and wrong together."""
    classes, wrong = stored["classes"], []
    if not all(isinstance(name, str) for name in classes) or len(set(classes)) < len(classes):
        wrong.append(("classes", "texts, each class once"))
    elif len(classes) != (card.width if stored["answer"] == "classes" else 0):
        wrong.append(("classes", f"the network gives {card.width} numbers; export again"))
    elif stored["threshold"] is not None and (stored["positive"] not in classes or len(classes) != 2):
        wrong.append(("positive", "a threshold is for one of two classes; export again"))
    if not all(isinstance(row, Mapping) for row in stored["figures"]):
        wrong.append(("figures", "a table: a list of rows by column"))
    return wrong
