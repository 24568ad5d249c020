"""What an evaluation says of its numbers: true to the intervals, with baseline and trust."""

import math

import pytest

from jaxbio.evaluation.comparison import CONSTANT, PRETRAINED, RANDOM, Comparison
from jaxbio.evaluation.metrics import Interval
from jaxbio.evaluation.tasks import TASKS
from jaxbio.evaluation.verdict import judge

VALUES = {PRETRAINED: Interval(8.4, 6.72, 10.4), RANDOM: Interval(6.57, 5.1, 8.2), CONSTANT: Interval(10.2, 7.3, 13.1)}


def gain(better: int, sign: float) -> Interval:
    """A difference whose interval is all for the pretrained encoder (1), all against it (-1), or holds 0 (0)."""
    return Interval(sign * better, *sorted((sign * better - 0.5, sign * better + 0.5)))


def verdict(task: str, over_constant: int = 1, over_random: int = 1, **known):
    task = TASKS[task]
    metric = next(iter(task.metrics))
    sign = -1.0 if metric == "mae" else 1.0
    gains = {RANDOM: gain(over_random, sign), CONSTANT: gain(over_constant, sign)}
    compared = Comparison(None, {}, {metric: VALUES}, {metric: gains})
    return judge(task, compared, **{"subjects": 40, "unnamed": 0.0, "seen_known": True, **known})


@pytest.mark.parametrize("task", ["heart_rate", "quality_class"])
@pytest.mark.parametrize(
    ("over_constant", "over_random", "said"),
    [
        (1, 1, "tell something of it, and they owe some of that to pretraining"),
        (
            1,
            0,
            "tell something of it, but pretraining is not shown to be why: an untrained network of this kind may do",
        ),
        (1, -1, "an untrained network of this kind does better"),
        (0, 1, "pretraining has helped, and still the features are not shown to tell more than a constant"),
        (-1, 1, "pretraining has helped, and still the features are not shown to tell more than a constant"),
        (0, 0, "nothing is shown to be in these features"),
        (-1, -1, "nothing is shown to be in these features"),
    ],
)
def test_the_conclusion_follows_from_both_intervals(task, over_constant, over_random, said):
    """Whether less is better (an error) or more."""
    result = verdict(task, over_constant, over_random).result
    assert said in result
    assert {1: "the encoder does better", 0: "not shown to do better or worse", -1: "the encoder does worse"}[
        over_constant
    ] in result
    assert {1: "made it better", 0: "neither better nor worse", -1: "made it worse"}[over_random] in result


def test_the_number_comes_with_unit_interval_and_baselines():
    result = verdict("heart_rate").result
    assert "a mean absolute error of 8.4 beats/min (95% interval 6.72 to 10.4)" in result
    assert "the mean of the training subjects gives 10.2 beats/min" in result
    assert "(difference -1, -1.5 to -0.5)" in result
    assert "random initialisation gives 6.57 beats/min" in result
    assert "the commonest class" in verdict("quality_class").result


@pytest.mark.parametrize(
    ("known", "said", "unsaid"),
    [
        ({"subjects": 1}, "only 1 subject:", "enough for such intervals"),
        ({"subjects": 9}, "only 9 subjects:", "rough"),
        ({"subjects": 10}, "10 subjects: the intervals are rough", "only"),
        ({"subjects": 30}, "30 subjects, enough", "rough"),
        ({"unnamed": 0.25}, "name no subject for 25% of the segments", "whom pretraining has seen"),
        ({"seen_known": False}, "known whom pretraining has seen", "name no subject"),
    ],
)
def test_how_far_to_trust_it_depends_on_what_is_known(known, said, unsaid):
    trust = verdict("heart_rate", **known).trust
    assert said in trust
    assert unsaid not in trust


def test_own_labels_are_said_to_be_so():
    assert "The labels are jaxbio's own score" in verdict("quality_score").trust
    assert all(task.labels_are for task in TASKS.values())


def test_an_interval_that_is_not_defined_decides_nothing():
    task, nan = TASKS["heart_rate"], math.nan
    unknown = {name: Interval(1.0, nan, nan) for name in VALUES}
    gains = {name: Interval(-1.0, nan, nan) for name in (RANDOM, CONSTANT)}
    compared = Comparison(None, {}, {"mae": unknown}, {"mae": gains})
    result = judge(task, compared, subjects=1, unnamed=0.0, seen_known=True).result
    assert "no interval" in result
    assert "nothing is shown to be in these features" in result
    assert "nan" not in result


def test_the_other_encoder_of_a_run_is_named_beside_the_first():
    task, other = TASKS["heart_rate"], f"{PRETRAINED}_student"
    gains = {name: gain(1, -1.0) for name in (RANDOM, CONSTANT)} | {other: gain(-1, -1.0)}
    compared = Comparison(None, {}, {"mae": {**VALUES, other: Interval(7.5, 6.0, 9.0)}}, {"mae": gains})
    result = judge(task, compared, subjects=40, unnamed=0.0, seen_known=True).result
    assert "Its run's student encoder gives 7.5 beats/min: beside it the encoder does worse" in result
