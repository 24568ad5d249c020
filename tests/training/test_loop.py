"""The loop, with a linear model and seeded arrays: resume, refusals, hooks. Real kills are in tests/launch."""

import dataclasses
import json
import os
import random
import signal
import time

import jax
import numpy as np
import pytest
from array_data import ArrayData, array_program, exact_values, resume_of, run

from jaxbio.config.faults import Preempted
from jaxbio.training import checkpoint, loop, writers
from jaxbio.training.nonfinite import NonFiniteError
from jaxbio.training.resume import owes_evaluation


@pytest.fixture(scope="module")
def program():
    return array_program()


@pytest.fixture(scope="module")
def uninterrupted(program, tmp_path_factory):
    """exact_values of a run of 20 steps that nothing stopped."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    result = run(program, workdir)
    assert result["step"] == 20
    return exact_values(workdir)


class _Stopped(Exception):
    pass


def stop_at(step, how):
    def before(first):
        if first == step and how == "exception":
            raise _Stopped
        if first == step:
            os.kill(os.getpid(), how)
            time.sleep(0.25)  # the thread that hears signals, on crowded cores too

    return before


def stop_after(dispatches, how):
    """Return a `before` that stops the run once it has asked for `dispatches` more."""
    left = iter(range(dispatches, -1, -1))

    def before(first):
        if next(left, None) == 0:
            stop_at(first, how)(first)

    return before


def test_every_step_is_logged_once_and_evaluated_in_time(uninterrupted):
    assert sorted(uninterrupted) == list(range(21))
    assert [step for step, values in uninterrupted.items() if "eval/loss" in values] == [0, 10, 20]
    assert {"eval/teacher_batch_spread", "eval/teacher_effective_rank"} <= uninterrupted[20].keys()


def test_only_logged_steps_and_the_last_measure_norms(tmp_path):
    program, unlogged = array_program(log__every_steps=2, train__steps=5), []

    def unlogged_step(state, batches):
        unlogged.append(int(state.step) + 1)
        return program.unlogged_step(state, batches)

    run(dataclasses.replace(program, unlogged_step=unlogged_step), tmp_path)
    assert unlogged == [1, 3]
    lines = {step: values for step, values in exact_values(tmp_path).items() if "train/loss" in values}
    assert sorted(lines) == [2, 4, 5]
    for values in lines.values():
        assert all(values[f"train/{norm}_norm"] > 0 for norm in ("grad", "param", "update"))


def test_run_stopped_twenty_times_at_random_equals_the_uninterrupted_one(program, uninterrupted, tmp_path):
    rng = random.Random(1)
    kinds = ["exception"] * 12 + [signal.SIGTERM] * 4 + [signal.SIGINT] * 4
    rng.shuffle(kinds)
    for how in kinds:
        with pytest.raises((_Stopped, Preempted)):
            run(program, tmp_path, ArrayData(program.config, before=stop_after(rng.randrange(3), how)))
    resumed_from = run(program, tmp_path)["resumed_from"]
    assert 0 < resumed_from < 20
    assert exact_values(tmp_path) == uninterrupted


@pytest.mark.parametrize("step", [0, 1, 5, 18])
def test_sigterm_at_the_edges_continues_identically(program, uninterrupted, tmp_path, step):
    with pytest.raises(Preempted, match="SIGTERM"):
        run(program, tmp_path, ArrayData(program.config, before=stop_at(step, signal.SIGTERM)))
    run(program, tmp_path)
    assert exact_values(tmp_path) == uninterrupted


def test_sigterm_saves_the_step_it_stops_at(program, tmp_path):
    with pytest.raises(Preempted, match="is saved"):
        run(program, tmp_path, ArrayData(program.config, before=stop_at(7, signal.SIGTERM)))
    (newest,) = checkpoint.list_steps(tmp_path / "checkpoints")[-1:]
    assert newest == 8  # the boundary after the dispatch that was under way


class StopInEvaluation(ArrayData):
    """Sends SIGTERM in evaluation `number`, after its first batch."""

    def __init__(self, config, number):
        super().__init__(config)
        self.left, self.batches_read = number, 0

    def held_out(self, mesh):
        self.left, self.batches_read = self.left - 1, 0
        for batch in super().held_out(mesh):
            yield batch
            self.batches_read += 1
            if self.left == 0 and self.batches_read == 1:
                stop_at(0, signal.SIGTERM)(0)


@pytest.mark.parametrize(("number", "saved"), [(1, []), (2, [5, 10]), (3, [15, 20])])
def test_evaluation_is_given_up_for_a_stop_and_made_up_for(program, uninterrupted, tmp_path, number, saved):
    data = StopInEvaluation(program.config, number)
    with pytest.raises(Preempted, match="SIGTERM"):
        run(program, tmp_path, data)
    assert data.batches_read == 1
    assert checkpoint.list_steps(tmp_path / "checkpoints") == saved
    meta = resume_of(tmp_path)
    assert meta is None or owes_evaluation(tmp_path, meta)
    run(program, tmp_path)
    assert exact_values(tmp_path) == uninterrupted
    assert not owes_evaluation(tmp_path, resume_of(tmp_path))
    run(program, tmp_path)  # a finished run started again evaluates nothing twice
    assert exact_values(tmp_path) == uninterrupted


def test_several_steps_a_dispatch_resume_identically(uninterrupted, tmp_path):
    program = array_program(train__steps_per_dispatch=5)
    (tmp_path / "whole").mkdir()
    run(program, tmp_path / "whole")
    for step, how in ((5, signal.SIGTERM), (15, "exception")):
        with pytest.raises((_Stopped, Preempted)):
            run(program, tmp_path / "stopped", ArrayData(program.config, before=stop_at(step, how)))
    run(program, tmp_path / "stopped")
    whole = exact_values(tmp_path / "whole")
    assert exact_values(tmp_path / "stopped") == whole
    for step in range(1, 21):
        values = uninterrupted[step]
        assert whole[step]["data/rows_crc32"] == values["data/rows_crc32"]
        assert whole[step]["train/loss"] == pytest.approx(values["train/loss"], rel=1e-5)


def test_restore_on_other_mesh_continues_with_the_same_rows_and_losses(program, uninterrupted, tmp_path):
    with pytest.raises(_Stopped):
        run(program, tmp_path, ArrayData(program.config, before=stop_at(6, "exception")))
    other = array_program(jax.devices()[:4], mesh__data=2, mesh__fsdp=2, mesh__rules=((".*", "fsdp"),))
    assert run(other, tmp_path)["resumed_from"] == 5
    continued = exact_values(tmp_path)
    for step in range(1, 21):
        values = uninterrupted[step]
        assert continued[step]["data/rows_crc32"] == values["data/rows_crc32"]
        assert continued[step]["train/loss"] == pytest.approx(values["train/loss"], rel=1e-5)


def test_finished_run_started_again_does_nothing(program, tmp_path):
    run(program, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    data = ArrayData(program.config)
    assert run(program, tmp_path, data)["resumed_from"] == 20
    assert data.served == []
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_non_finite_step_stops_with_a_record_and_passes_when_allowed(program, uninterrupted, tmp_path):
    data = ArrayData(program.config, poisoned=frozenset({12}))
    with pytest.raises(NonFiniteError, match="step 13") as stopped:
        run(program, tmp_path, data)
    assert "--config.train.max_nonfinite=" in str(stopped.value)
    share = f"{1 / program.config.train.batch:.0%}"
    assert f"nothing moves in {share} of its segments: leave out recordings" in str(stopped.value)
    assert checkpoint.list_steps(tmp_path / "checkpoints") == [5, 10]
    record = json.loads((tmp_path / "nonfinite" / "13.json").read_text())
    assert record["rows"] == data.rows(12).tolist()
    assert record["metrics"]["train/loss"] == "nan"
    assert np.isfinite(record["metrics"]["train/param_norm"])
    assert record["records"][0]["recording"]
    assert 13 not in exact_values(tmp_path)
    patient = dataclasses.replace(program, config=_with(program.config, "max_nonfinite", 1))
    assert run(patient, tmp_path, ArrayData(program.config, poisoned=frozenset({12})))["step"] == 20
    values = exact_values(tmp_path)
    assert values[13]["train/loss"] is None
    assert (values[13]["train/nonfinite"], values[20]["train/nonfinite"]) == (1, 1)
    assert {step: values[step] for step in range(1, 13)} == {step: uninterrupted[step] for step in range(1, 13)}


def test_non_finite_step_before_a_checkpoint_is_seen_before_it_is_saved(program, tmp_path):
    with pytest.raises(NonFiniteError, match="step 10"):
        run(program, tmp_path, ArrayData(program.config, poisoned=frozenset({9})))
    assert checkpoint.list_steps(tmp_path / "checkpoints") == [5]


def test_refused_updates_are_counted_over_resumes(program, tmp_path):
    patient = dataclasses.replace(program, config=_with(program.config, "max_nonfinite", 1))
    poisoned = frozenset({2, 13})
    with pytest.raises(_Stopped):
        run(patient, tmp_path, ArrayData(program.config, before=stop_at(7, "exception"), poisoned=poisoned))
    with pytest.raises(NonFiniteError, match="refused update 2 of at most 1"):
        run(patient, tmp_path, ArrayData(program.config, poisoned=poisoned))


def test_metrics_are_fetched_one_dispatch_late(program, tmp_path, monkeypatch):
    events = []

    def train_step(state, batches):
        events.append(f"dispatch {len([e for e in events if e.startswith('dispatch')]) + 1}")
        return program.train_step(state, batches)

    settle = loop._Run.settle

    def spy(self, dispatched):
        if dispatched is not None:
            events.append(f"fetch {dispatched.step}")
        settle(self, dispatched)

    monkeypatch.setattr(loop._Run, "settle", spy)
    run(dataclasses.replace(program, train_step=train_step), tmp_path)
    assert events[:6] == ["dispatch 1", "dispatch 2", "fetch 1", "dispatch 3", "fetch 2", "dispatch 4"]
    # checkpoint 5: everything in it has been looked at before the next step
    assert events.index("fetch 5") < events.index("dispatch 6")


def test_clock_saves_between_the_steps_of_the_period(program, tmp_path):
    hasty = dataclasses.replace(program, config=_with(program.config, "every_s", 0.0, section="checkpoint"))

    def stop(step):
        if step == 4:
            raise _Stopped

    with pytest.raises(_Stopped):
        run(hasty, tmp_path, ArrayData(program.config, before=stop))
    assert checkpoint.list_steps(tmp_path / "checkpoints") == [3, 4]


def test_checkpoint_of_the_best_metric_is_kept(program, tmp_path):
    config = _with(program.config, "best_metric", "train/distance", section="checkpoint")
    run(dataclasses.replace(program, config=config), tmp_path)
    values = exact_values(tmp_path)
    best = min((5, 10, 15, 20), key=lambda step: values[step]["train/distance"])
    assert checkpoint.list_steps(tmp_path / "checkpoints") == sorted({15, 20, best})


def test_failing_report_is_logged_and_stops_nothing(program, tmp_path, caplog):
    def report(workdir):
        raise OSError("no ink")

    assert run(program, tmp_path, report=report)["step"] == 20
    assert "no ink" in caplog.text


def test_profile_is_taken_of_a_few_dispatches_at_the_step_asked_for(program, tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: taken.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: taken.append("stop"))
    profiled = dataclasses.replace(program, config=_with(program.config, "at", 7, section="profile"))
    run(profiled, tmp_path, ArrayData(program.config, before=lambda step: taken.append(step)))
    assert [taken[i - 1] for i, event in enumerate(taken) if event in ("start", "stop")] == [6, 9]


def test_probes_are_part_of_an_evaluation(program, tmp_path):
    run(program, tmp_path, probes=[lambda state: {"probe/step": int(state.step)}])
    assert [v["eval/probe/step"] for v in exact_values(tmp_path).values() if "eval/loss" in v] == [0, 10, 20]


def test_initial_weights_are_where_a_fresh_run_starts(program, uninterrupted, tmp_path):
    def halve(params, objective_state):
        return jax.tree.map(lambda leaf: np.asarray(leaf) / 2, params), objective_state

    run(program, tmp_path, initial=halve)
    assert exact_values(tmp_path)[1]["train/param_norm"] < 0.6 * uninterrupted[1]["train/param_norm"]


def test_lines_carry_rate_wait_memory_and_time(program, tmp_path):
    run(program, tmp_path)
    line = next(r for r in writers.read_metrics(tmp_path / "metrics.jsonl") if r["step"] == 7)
    assert line["perf/pairs_per_s"] > 0
    assert line["perf/mfu"] is None  # no peak is known for a CPU
    assert {"data/wait_s", "perf/step_s", "memory/host_resident_bytes", "time/compile_s", "time/wait_s"} <= line.keys()


def test_the_record_says_at_each_start_what_a_device_holds_by_part(program, tmp_path):
    run(program, tmp_path)
    (line,) = [r for r in writers.read_metrics(tmp_path / "metrics.jsonl") if "memory/params_bytes" in r]
    assert line["step"] == 0
    held = [line[f"memory/{part}_bytes"] for part in ("params", "opt_state", "objective_state")]
    assert sum(held) == program.placement.bytes_per_device - 4  # the number of the step
    assert line["memory/resident_bytes"] == 0
    assert line["memory/temporaries_bytes"] > 0


def _with(config, field, value, section="train"):
    changed = config.copy_and_resolve_references()
    with changed.unlocked(), changed.ignore_type():
        changed[section][field] = value
    return changed
