"""The verdict on a run: right of series whose outcome is known, and silent before there is anything to say."""

import json

import numpy as np
import pytest

from jaxbio.report.series import extend, read_series
from jaxbio.report.verdict import judge_codes, judge_run, judge_terms


def series(*, explained=(-1.5, 0.5), explainable=(1.0, 1.0), spread=(0.1, 0.09), rank=(100.0, 70.0)):
    step_N = np.arange(len(explained)) * 100
    values = {
        "eval/distill_explained": explained,
        "eval/distill_explainable": explainable,
        "eval/student_batch_spread": spread,
        "eval/student_effective_rank": rank,
    }
    return {key: (step_N, np.array(value_N, float)) for key, value_N in values.items()}


def finding(subject, **values):
    (found,) = [entry for entry in judge_run(series(**values)) if entry.subject == subject]
    return found


def test_a_run_that_learns_is_said_to_learn_with_the_number_that_shows_it():
    found = finding("distill")
    assert not found.bad
    assert "The main loss learns." in found.words
    assert "50%" in found.words
    assert "step 100" in found.words


@pytest.mark.parametrize("share", [0.0, 0.01, -0.3, -40.0])
def test_a_loss_no_better_than_a_constant_does_not_learn(share):
    found = finding("distill", explained=(-1.5, share))
    assert found.bad
    assert "does not learn" in found.words


def test_labels_are_never_nothing_to_learn():
    """Of 1 % of true alarms a constant is 0.05 nats from all there is: what is explained of that counts."""
    values = series(explained=(0.0, 0.23))
    del values["eval/distill_explainable"]
    (found,) = judge_terms(values)
    assert not found.bad
    assert "learns" in found.words


def test_a_teacher_that_says_the_same_of_every_segment_leaves_nothing_to_learn():
    found = finding("distill", explainable=(1.0, 0.001), explained=(-1.5, 0.9))
    assert found.bad
    assert "nothing to learn" in found.words


@pytest.mark.parametrize(("spread", "bad"), [(0.3, False), (0.1, False), (0.01, True)])
def test_features_are_judged_by_their_deviation_and_not_by_the_square_of_it(spread, bad):
    """Smooth L1 of standardised features that differ by 0.3 leaves a constant 0.045, and there is much to learn."""
    values = series(explainable=(spread**2 / 2,) * 2) | {"eval/teacher_spread": (np.array([0, 100]), [spread] * 2)}
    (found,) = judge_terms(values)
    assert found.bad == bad
    assert ("nothing to learn" in found.words) == bad


@pytest.mark.parametrize(
    ("values", "why"),
    [({"spread": (0.1, 0.007)}, "says nearly the same"), ({"rank": (100.0, 3.0)}, "few directions")],
)
def test_a_collapsed_encoder_is_called_so_and_why(values, why):
    found = finding("student", **values)
    assert found.bad
    assert "has collapsed" in found.words
    assert why in found.words


@pytest.mark.parametrize(("spread", "bad"), [(0.019, False), (0.008, True)])
def test_the_dip_of_the_long_recipe_is_no_collapse_and_what_collapsed_runs_keep_is(spread, bad):
    """docs/recipe.md: 19 % of the spread in a dip that passes, 8 % at the most where it does not."""
    assert finding("student", spread=(0.1, spread)).bad == bad


def test_a_loss_worse_than_a_constant_is_not_said_to_equal_it():
    words = finding("distill", explained=(-1.5, -20.99)).words
    assert "is worse than the best prediction that is the same" in words
    assert "%" not in words


def test_a_dip_from_which_an_encoder_came_back_is_no_collapse():
    found = finding("student", spread=(0.1, 0.01, 0.08), rank=(100.0, 8.0, 60.0), explained=(-1, 0.0, 0.3),
                    explainable=(1, 1, 1))  # fmt: skip
    assert not found.bad
    assert "has not collapsed" in found.words


def test_nothing_is_said_at_step_0():
    assert judge_run(series(explained=(-1.5,), explainable=(1.0,), spread=(0.1,), rank=(100.0,))) == []
    assert judge_run({}) == []


def test_evaluations_added_one_by_one_are_judged_like_those_read_from_the_record(tmp_path):
    records = [
        {"step": 0, "eval/distill_explained": -1.0, "eval/distill_explainable": 1.0, "eval/none": None},
        {"step": 100, "eval/distill_explained": 0.3, "eval/distill_explainable": 1.2, "eval/none": None},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    added = {}
    for record in records:
        extend(added, record["step"], {key: value for key, value in record.items() if key != "step"})
    read = read_series(tmp_path)
    assert added.keys() == read.keys()
    for key, (step_N, value_N) in read.items():
        np.testing.assert_array_equal(added[key][0], step_N)
        np.testing.assert_array_equal(added[key][1], value_N)
    assert judge_terms(added) == judge_terms(read)


@pytest.mark.parametrize(
    ("perplexity", "bad"),
    [((309, 13), True), ((309, 1), True), ((1.5, 1.5), True), ((309, 70), False), ((327, 340), False)],
)
def test_a_codebook_whose_codes_have_died_is_called_so(perplexity, bad):
    (found,) = judge_codes({"eval/code_perplexity": (np.array([0, 100]), np.array(perplexity, float))})
    assert found.bad == bad
    assert ("has collapsed" in found.words) == bad
    assert f"{perplexity[1]:.3g} codes" in found.words


def judge_course(course, revival_steps):
    """What each evaluation of a course {step: perplexity} says of the codebook."""
    step_N, perplexity_N = np.array(list(course)), np.array(list(course.values()), float)
    for count in range(2, len(course) + 1):
        seen = {"eval/code_perplexity": perplexity_N[:count], "eval/steps_to_revival": np.full(count, revival_steps)}
        yield judge_codes({key: (step_N[:count], value_N) for key, value_N in seen.items()})[0]


def test_a_codebook_whose_codes_have_yet_to_start_anew_has_not_collapsed():
    """docs/benchmarks.md: perplexity 2.7 at step 100 and 50.7 at step 800; revival begins at step 349."""
    course = {0: 50.0, 100: 2.7, 200: 2.6, 300: 2.6, 400: 24.0, 500: 4.0, 800: 50.7}
    found = list(judge_course(course, 349.0))
    assert not any(finding.bad or "has collapsed" in finding.words for finding in found)
    assert "Few codes are in use so far" in found[0].words
    assert "has not collapsed" in found[-1].words


@pytest.mark.parametrize(("revival_steps", "first"), [(349.0, 700), (22.0, 100), (0.0, 100)])
def test_a_codebook_that_revival_has_not_brought_back_has_collapsed(revival_steps, first):
    course = {step: 50.0 if step == 0 else 2.7 for step in range(0, 1000, 100)}
    found = dict(zip(list(course)[1:], judge_course(course, revival_steps), strict=True))
    assert [step for step, finding in found.items() if finding.bad] == list(range(first, 1000, 100))


def test_codes_are_judged_beside_the_start_of_the_run_and_only_held_out():
    assert judge_codes({"eval/code_perplexity": (np.array([0]), np.array([30.0]))}) == []
    assert judge_codes({"train/code_perplexity": (np.array([1, 2]), np.array([300.0, 1.0]))}) == []
