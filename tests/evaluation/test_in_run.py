"""Probes while a run goes on: the same rows each time, read from the store's labels, whatever the devices."""

import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from linear_run import linear_objective
from prepared import prepare, small_config, write_archive

from jaxbio.config.faults import UserError
from jaxbio.data.labels import Label, write_labels
from jaxbio.data.splits import SPLITS
from jaxbio.evaluation import probes
from jaxbio.evaluation.in_run import choose_questions, make_probe
from jaxbio.training.program import build_program

TASKS = ("heart_rate", "quality_class")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in_run")
    return prepare(write_archive(folder / "archive", 12, minutes=3.2), folder / "store")


def config_of(**changes):
    return small_config(**{"train__batch": 8, "eval__tasks": TASKS, "mesh__moments": "like_params"} | changes)


def measured(store, devices, **changes):
    """What a probe says of the state a run starts from, and that state with its program."""
    config = config_of(**changes)
    program = build_program(config, linear_objective(), devices=jax.devices()[:devices])
    rows = np.zeros((8, 2), np.int64)
    batch = {
        "segment_BMCT": store.read(rows.ravel()).reshape(8, 2, 2, -1),
        "scale_BMC2": store.scale_NC2[rows],
        "row_BM": rows.astype(np.uint32),
    }
    state = program.init({name: array[None] for name, array in batch.items()})
    return make_probe(program, store, choose_questions(store, config))(state), program, state


def test_a_probe_says_what_the_features_by_hand_say(store):
    values, program, state = measured(store, 1)
    questions = choose_questions(store, config_of())
    row_N = np.concatenate([questions.fit_rows, questions.test_rows])
    assert set(store.column("split")[questions.fit_rows]) == {SPLITS[0]}
    assert set(store.column("split")[questions.test_rows]) == {SPLITS[1]}
    module, variables = program.objective.encoders["teacher"]
    x_NCT = store.read(row_N).astype(np.float32) / 32767
    feature_ND = np.asarray(module.apply(variables(state.params, state.objective_state), x_NCT)).mean(axis=1)
    fit, test = np.split(np.arange(len(row_N)), [len(questions.fit_rows)])
    bpm_N, subject_N = store.column("heart_rate_bpm")[row_N], store.codes("subject")[0][row_N]
    answer_N = probes.predict_held_out(feature_ND, bpm_N, subject_N, [(fit, test)], probes.NUMBERS)
    assert values["probe_heart_rate_mae_teacher"] == pytest.approx(np.abs(answer_N - bpm_N[test]).mean(), rel=1e-3)
    constant = np.abs(bpm_N[fit].mean() - bpm_N[test]).mean()
    assert values["probe_heart_rate_mae_constant"] == pytest.approx(constant, rel=1e-6)
    assert 0 < values["probe_quality_class_balanced_accuracy_teacher"] <= 1
    assert len(values) == 4


def test_eight_devices_and_a_batch_that_does_not_divide_the_rows_say_the_same(store):
    one, eight = measured(store, 1, train__batch=16)[0], measured(store, 8)[0]
    assert one == pytest.approx(eight, rel=1e-3)


def test_a_frozen_state_is_measured_the_same_again(store):
    values, program, state = measured(store, 1)
    again = make_probe(program, store, choose_questions(store, config_of()))
    assert again(state) == values
    assert again(replace(state, step=state.step + 1)) == values


def test_what_cannot_be_asked_is_refused_together(store):
    with pytest.raises(UserError) as caught:
        choose_questions(store, config_of(eval__tasks=("mood", "weather", "heart_rate")))
    assert [fault.value for fault in caught.value.faults] == ["mood", "weather"]
    assert "quality_score" in str(caught.value)


def test_added_labels_are_asked_about_as_numbers_or_classes(store):
    bpm_R = store.column("heart_rate_bpm").astype(np.float32)
    fast_R = (bpm_R > np.median(bpm_R)).astype(np.float32)
    pace = Label("pace", 1 - fast_R, ("fast", "slow"))
    write_labels(store, [Label("bpm", bpm_R), Label("fast", fast_R), pace])
    tasks = ("fast", "pace", "bpm", "heart_rate")
    values, *_ = measured(store, 1, eval__tasks=tasks)
    assert values["probe_bpm_mae_teacher"] == values["probe_heart_rate_mae_teacher"]
    assert values["probe_fast_balanced_accuracy_teacher"] == values["probe_pace_balanced_accuracy_teacher"]
    assert values["probe_fast_balanced_accuracy_constant"] == 0.5
    shutil.rmtree(store.path / "labels")
    with pytest.raises(UserError, match="no such task"):
        choose_questions(store, config_of(eval__tasks=tasks))


def test_no_tasks_ask_nothing(store):
    assert choose_questions(store, config_of(eval__tasks=())).by_task == {}
