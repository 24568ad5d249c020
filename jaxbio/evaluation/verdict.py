"""What the numbers of an evaluation mean, in words: against what, with what interval, and how far to trust them.

print(judge(task, compared, subjects=40, unnamed=0.0, seen_known=True).text)
"""

import math
from typing import NamedTuple

from jaxbio.evaluation.comparison import CONSTANT, PRETRAINED, RANDOM, Comparison
from jaxbio.evaluation.metrics import LEVEL, Interval
from jaxbio.evaluation.tasks import Task

ERRORS = ("mae",)  # metrics of which less is better
FEW, SOME = 10, 30  # subjects: below, a bootstrap's interval is far too narrow; below, it is rough


class Verdict(NamedTuple):
    """`result`: what is read, against what, and what follows; `trust`: how far to trust it."""

    result: str
    trust: str

    @property
    def text(self) -> str:
        """All of it."""
        return f"{self.result} {self.trust}"


def judge(task: Task, compared: Comparison, *, subjects: int, unnamed: float, seen_known: bool) -> Verdict:
    """Return what is read, two things that it is compared with, what follows from both, and how far to trust it.

    They speak of the task's first metric. `subjects` were tested; of a share `unnamed` of the segments tested nobody
    knows whose they are; `seen_known` says whether it is known whom pretraining has seen.
    """
    metric = next(iter(task.metrics))
    found, gains = compared.intervals[metric], compared.gains[metric]
    sign = -1.0 if metric in ERRORS else 1.0
    unit = f" {task.unit}" if metric in ERRORS else ""
    beats = {other: _compare(gain, sign) for other, gain in gains.items()}
    always = "the commonest class" if task.classes else "the mean"
    sentences = [
        f"From the pretrained encoder's frozen features a linear model tells {task.title} with {_NAMES[metric]} "
        f"{_value(found[PRETRAINED], unit)}.",
        f"Always saying {always} of the training subjects gives {found[CONSTANT].value:.3g}{unit}: the encoder "
        f"{_say(beats[CONSTANT], gains[CONSTANT])}.",
        f"The same network at random initialisation gives {found[RANDOM].value:.3g}{unit}: pretraining has made it "
        f"{_say_of_training(beats[RANDOM], gains[RANDOM])}.",
        f"So {_conclude(beats[CONSTANT], beats[RANDOM])}.",
    ]
    trust = _trust(task, subjects, unnamed, seen_known, decided=all(beats.values()))
    return Verdict(" ".join(sentences), " ".join(trust))


_NAMES = {"mae": "a mean absolute error of", "balanced_accuracy": "a balanced accuracy (mean recall of the classes) of"}


def _value(interval: Interval, unit: str) -> str:
    if not _is_known(interval):
        return f"{interval.value:.3g}{unit} (no interval: too few subjects, or a class that few of them have)"
    return f"{interval.value:.3g}{unit} ({LEVEL:.0%} interval {interval.low:.3g} to {interval.high:.3g})"


def _compare(gain: Interval, sign: float) -> int:
    """Return 1 where pretrained is better beyond the interval of the difference, -1 where it is worse, else 0."""
    low, high = sorted((sign * gain.low, sign * gain.high))
    return int(low > 0) - int(high < 0)


def _difference(gain: Interval) -> str:
    if not _is_known(gain):
        return f"difference {gain.value:+.3g}, no interval"
    return f"difference {gain.value:+.3g}, {gain.low:+.3g} to {gain.high:+.3g}"


def _is_known(interval: Interval) -> bool:
    return math.isfinite(interval.low) and math.isfinite(interval.high)


def _say(beats: int, gain: Interval) -> str:
    words = {1: "does better", 0: "is not shown to do better or worse", -1: "does worse"}
    return f"{words[beats]} ({_difference(gain)})"


def _say_of_training(beats: int, gain: Interval) -> str:
    words = {1: "better", 0: "neither better nor worse, as far as the interval tells", -1: "worse"}
    return f"{words[beats]} ({_difference(gain)})"


def _conclude(over_constant: int, over_random: int) -> str:
    if over_constant > 0 and over_random > 0:
        return "the features tell something of it, and they owe some of that to pretraining"
    if over_constant > 0:
        return (
            "the features tell something of it, but pretraining is not shown to be why: an untrained network of this "
            + ("kind does better" if over_random < 0 else "kind may do as well")
        )
    if over_random > 0:
        return "pretraining has helped, and still the features are not shown to tell more than a constant does"
    return "nothing is shown to be in these features that a linear model could read of it"


def _trust(task: Task, subjects: int, unnamed: float, seen_known: bool, *, decided: bool) -> list[str]:
    counted = f"{subjects} subject{'' if subjects == 1 else 's'}"
    if subjects < FEW:
        size = f"only {counted}: take the intervals for far too narrow, and the sentences above for a first impression"
    elif subjects < SOME:
        size = f"{counted}: the intervals are rough, a difference near 0 is none"
    else:
        size = f"{counted}, enough for such intervals"
    said = [
        f"How far to trust it: it rests on {size}. Subjects are drawn whole, because segments of one resemble each "
        "other; no interval covers another seed of pretraining, or another hospital."
    ]
    if not decided:
        said.append("More subjects would narrow an interval that holds 0.")
    if unnamed > 0:
        said.append(
            f"The sources name no subject for {unnamed:.0%} of the segments: such a recording counts as its own, and a "
            "patient with several may be on both sides, which flatters the number (--subjects FILE.csv mends it)."
        )
    if not seen_known:
        said.append("Nor is it known whom pretraining has seen: where it has seen these subjects, the number flatters.")
    if task.labels_are:
        said.append(f"The labels are {task.labels_are}.")
    return said
