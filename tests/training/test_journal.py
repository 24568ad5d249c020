"""What a run says of itself: a warning of collapse on the console while it goes on, from one process.

The members of these pairs share nothing, so that the best student is a constant: a large learning rate gets there
within the run, a small one stays far from it. Evaluations are at steps 0, 10 and 20.
"""

import contextlib
import dataclasses
import logging

import jax
import pytest
from array_data import SETTINGS, ArrayData, run
from linear_run import linear_config, linear_objective

from jaxbio.training.clock import Clock
from jaxbio.training.journal import Journal
from jaxbio.training.program import build_program
from jaxbio.training.writers import read_metrics


def program_at(learning_rate):
    """Return the program of the linear run at `learning_rate`; its evaluations look at the student, too."""
    objective = linear_objective()
    module, _ = objective.encoders["teacher"]
    student = (module, lambda params, state: {"params": params["encoder"]})
    watched = dataclasses.replace(objective, encoders={"student": student, **objective.encoders})
    config = linear_config(**SETTINGS, optimizer__learning_rate=learning_rate)
    return build_program(config, watched, devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def collapsing():
    return program_at(0.1)


def warnings_of(caplog):
    ours = [record for record in caplog.records if record.name.startswith("jaxbio.")]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


class _Stopped(Exception):
    pass


def stop_at_12(step):
    if step == 12:
        raise _Stopped


def test_a_student_that_collapses_is_warned_of_by_the_third_evaluation_also_after_a_resume(
    collapsing, tmp_path, caplog
):
    run(collapsing, tmp_path / "whole")
    at_the_end = [words for words in warnings_of(caplog) if "at step 20" in words]
    assert any(words.startswith("The student has collapsed: at step 20 ") for words in at_the_end)

    with pytest.raises(_Stopped):
        run(collapsing, tmp_path / "stopped", ArrayData(collapsing.config, before=stop_at_12))
    caplog.clear()
    assert run(collapsing, tmp_path / "stopped")["resumed_from"] == 10
    assert warnings_of(caplog) == at_the_end  # beside the start of the run, which the process before evaluated


def test_a_student_that_keeps_its_spread_is_not_warned_of(tmp_path, caplog):
    run(program_at(3e-3), tmp_path)
    assert warnings_of(caplog) == []
    evaluated = [record for record in read_metrics(tmp_path / "metrics.jsonl") if "eval/student_batch_spread" in record]
    assert [record["step"] for record in evaluated] == [0, 10, 20]


EVALUATED = {0: {"eval/x_batch_spread": 1.0, "eval/x_effective_rank": 9.0},
             1: {"eval/x_batch_spread": 0.0, "eval/x_effective_rank": 1.0}}  # fmt: skip


@pytest.mark.parametrize("opened", [True, False], ids=["process_0", "another"])
def test_one_process_writes_and_warns_and_all_know_the_latest_values(collapsing, tmp_path, caplog, opened):
    journal = Journal(tmp_path, collapsing, 32.0, Clock())
    with contextlib.ExitStack() as stack:
        if opened:
            journal.open(stack, restored_step=None)
        for step, values in EVALUATED.items():
            journal.write_evaluation(step, values)
        journal.advance(1)
        journal.sync()
    assert (tmp_path / "metrics.jsonl").exists() == opened
    assert len(warnings_of(caplog)) == opened
    assert journal.names() == ["eval/x_batch_spread", "eval/x_effective_rank"]
    assert (journal.value_at("eval/x_batch_spread", 1), journal.value_at("eval/x_batch_spread", 0)) == (0.0, None)
    assert journal.value_at("eval/loss", 1) is None
