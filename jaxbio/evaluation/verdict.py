"""What the numbers of an evaluation mean, in words: against what, with what interval, and how far to trust them.

print(judge(task, compared, subjects=40, unnamed=0.0, seen_known=True).text)
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxbio.evaluation.comparison import (
    CONSTANT,
    DETECTOR,
    HAND_MADE,
    HAND_MADE_BOOSTED,
    OWN_START,
    PRETRAINED,
    RANDOM,
    Comparison,
)
from jaxbio.evaluation.metrics import LEVEL, Interval
from jaxbio.evaluation.tasks import Task

FEW, SOME = 10, 30  # subjects: below, a bootstrap's interval is far too narrow; below, it is rough


class Verdict(NamedTuple):
    """`result`: what is read, against what, and what follows; `trust`: how far to trust it."""

    result: str
    trust: str

    @property
    def text(self) -> str:
        """All of it."""
        return f"{self.result} {self.trust}"


def judge(
    task: Task,
    compared: Comparison,
    *,
    subjects: int,
    unnamed: float,
    seen_known: bool,
    calibration_known: bool = True,
    target: str = "",
    leaky: bool = False,
) -> Verdict:
    """Return what is read, what it is compared with, what follows from all of it, and how far to trust it.

    They speak of the task's first metric, of `target` where there are several. `subjects` were tested; of a share
    `unnamed` of the segments tested nobody knows whose they are; `seen_known` says whether it is known whom pretraining
    has seen, `calibration_known` whom a detector was calibrated on; `leaky` that subjects were on both sides.
    """
    metric = next(iter(task.metrics))
    found, gains = compared.intervals[metric], compared.gains[metric]
    sign = float(task.metrics[metric].better)
    unit = f" {task.unit}" if task.metrics[metric].in_unit else ""
    beats = {other: _compare(gain, sign) for other, gain in gains.items()}
    seeds = compared.seeds.get(metric, {})
    beats[RANDOM], beside_fresh = tell_training(
        found[PRETRAINED], found[RANDOM], gains[RANDOM], seeds.get(RANDOM, ()), sign, unit
    )
    always = "the mean" if task.metrics[metric].in_unit else "the commonest class"
    asked = f"{task.title} ({target})" if target else task.title
    sentences = [
        f"From the pretrained encoder's frozen features a linear model tells {asked} with "
        f"{tell_value(metric, found[PRETRAINED], seeds.get(PRETRAINED, ()), unit)}.",
        f"Always saying {always} of the training subjects gives {found[CONSTANT].value:.3g}{unit}: the encoder "
        f"{_say(beats[CONSTANT], gains[CONSTANT])}.",
        beside_fresh,
    ]
    if OWN_START in found:
        sentences.append(
            f"What the run started from gives {found[OWN_START].value:.3g}{unit}{_seeds(seeds.get(OWN_START, ()))}: "
            f"since then it has become {_say_of_training(beats[OWN_START], gains[OWN_START])}."
        )
    for other in found:
        if other.startswith(f"{PRETRAINED}_"):
            sentences.append(
                f"Its run's {other.removeprefix(f'{PRETRAINED}_')} encoder gives {found[other].value:.3g}{unit}"
                f"{_seeds(seeds.get(other, ()))}: beside it the encoder {_say(beats[other], gains[other])}."
            )
    if DETECTOR in found:
        sentences.append(
            f"The detector itself, as it was exported and fitted to nothing here, has {_value(found[DETECTOR], unit)}"
            f"{_seeds(seeds.get(DETECTOR, ()))}: beside it the linear model on its encoder "
            f"{_say(beats[DETECTOR], gains[DETECTOR])}."
        )
    by_hand = [name for name in (HAND_MADE, HAND_MADE_BOOSTED) if name in found]
    best = max(by_hand, key=lambda name: sign * found[name].value, default=None)
    if best is not None:
        kind = "boosted trees" if best == HAND_MADE_BOOSTED else "a linear model"
        what = "The signals around each second" if task.course_hz else "Hand-made features"
        sentences.append(
            f"{what}, read by {kind}, give {found[best].value:.3g}{unit}: the encoder {_say(beats[best], gains[best])}."
        )
    untrained = min(beats[name] for name in (RANDOM, OWN_START) if name in beats)
    sentences.append(f"So {_conclude(beats[CONSTANT], untrained, beats[best] if best else None)}.")
    trust = tell_trust(subjects, unnamed, seen_known, decided=all(beats.values()), labels_are=task.labels_are)
    if not calibration_known:
        trust.append(
            "Nor is it known whom the detector was calibrated on: where it was on these subjects, its number flatters."
        )
    if leaky:
        trust.insert(
            0, "Subjects are on both sides of the splits: these numbers flatter every answer, and show no more."
        )
    return Verdict(" ".join(sentences), " ".join(trust))


def tell_value(metric: str, found: Interval, seeds: Sequence[float] = (), unit: str = "") -> str:
    """Return a metric's value in words, with its interval and how far seeds lie apart, which no interval over subjects
    holds.
    """
    return f"{_NAMES[metric]} {_value(found, unit)}{_seeds(seeds)}"


def tell_training(
    own: Interval, fresh: Interval, gain: Interval, seeds: Sequence[float], sign: float = 1.0, unit: str = ""
) -> tuple[int, str]:
    """Return whether an encoder is better (1) or worse (-1) than fresh networks, or neither is shown (0); and so in
    words. `seeds` are the values of the single fresh networks; `sign` is -1 where less is better.

    Where one of them does as well, their mean is beaten on these subjects, and pretraining is not shown to be why.
    """
    beats, besides = _compare(gain, sign), ""
    if beats > 0 and seeds:
        reached = any(sign * value >= sign * own.value for value in seeds)
        beats, besides = (0, "; a single seed does as well") if reached else (1, "; no single seed does as well")
    return beats, (
        f"The same network at random initialisation gives {fresh.value:.3g}{unit}{_seeds(seeds)}: pretraining has made "
        f"it {_say_of_training(beats, gain)}{besides}."
    )


_NAMES = {
    "mae": "a mean absolute error of",
    "balanced_accuracy": "a balanced accuracy (mean recall of the classes) of",
    "macro_f1": "a macro F1 (mean over the classes) of",
    "auroc": "an AUROC of",
    "accuracy": "an accuracy of",
}


def _seeds(values: Sequence[float]) -> str:
    return f" ({len(values)} seeds: {min(values):.3g} to {max(values):.3g})" if values else ""


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
    words = {1: "better", 0: "neither better nor worse, as far as interval and seeds tell", -1: "worse"}
    return f"{words[beats]} ({_difference(gain)})"


def _conclude(over_constant: int, over_random: int, over_hand_made: int | None) -> str:
    if over_constant > 0 and over_random > 0:
        said = "the features tell something of it, and they owe some of that to pretraining"
    elif over_constant > 0:
        said = (
            "the features tell something of it, but pretraining is not shown to be why: an untrained network of this "
            + ("kind does better" if over_random < 0 else "kind may do as well")
        )
    elif over_random > 0:
        said = "pretraining has helped, and still the features are not shown to tell more than a constant does"
    else:
        said = "nothing is shown to be in these features that a linear model could read of it"
    if over_hand_made is None:
        return said
    beside = {1: "they beat", 0: "they are not shown to beat", -1: "they fall short of"}
    return f"{said}; {beside[over_hand_made]} what is measured by hand"


def tell_trust(
    subjects: int, unnamed: float, seen_known: bool, *, decided: bool, labels_are: str | None = None
) -> list[str]:
    """Return how far to trust numbers, in sentences: `decided` says that every difference asked about is beyond 0,
    `labels_are` where labels come from; the rest as in `judge`.
    """
    counted = f"{subjects} subject{'' if subjects == 1 else 's'}"
    if subjects < FEW:
        size = f"only {counted}: take the intervals for far too narrow, and the sentences above for a first impression"
    elif subjects < SOME:
        size = f"{counted}: the intervals are rough, a difference near 0 is none"
    else:
        size = f"{counted}, enough for such intervals"
    said = [
        f"How far to trust it: it rests on {size}. Subjects are drawn whole, because segments of one resemble each "
        "other; no interval covers another seed of pretraining, another hospital, or other folds and few labels than "
        "those that one seed has drawn (--seed)."
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
    if labels_are:
        said.append(f"The labels are {labels_are}.")
    return said
