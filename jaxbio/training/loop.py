"""The loop of a run: next batch, dispatch, hooks.

Metrics are fetched one dispatch late, so that the device always has work; nothing else waits for it outside logging,
evaluation and saving. What is trained on comes as `Data`, what runs as `Program`; neither store nor model is known.

    result = train(program, data, workdir, resume=meta)
"""

import contextlib
import itertools
import logging
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from jaxbio.config import changes
from jaxbio.config.faults import Preempted
from jaxbio.training.agreement import Agreement
from jaxbio.training.checkpoint import Checkpoints, Meta
from jaxbio.training.clock import Clock
from jaxbio.training.held_out import evaluate
from jaxbio.training.journal import Journal
from jaxbio.training.nonfinite import NonFiniteUpdates, StepRows
from jaxbio.training.pace import Timer
from jaxbio.training.peers import ALONE, Peers
from jaxbio.training.profiler import Profiler
from jaxbio.training.program import Program
from jaxbio.training.reporter import Reporter
from jaxbio.training.resume import owes_evaluation
from jaxbio.training.same_start import SameData, versions
from jaxbio.training.state import State
from jaxbio.training.watch import StopRequest, Watchdog

log = logging.getLogger(__name__)

_INTERRUPT = (signal.SIGINT,)


class DispatchBatch(Protocol):
    """The batches of one dispatch: the first step (counted from 0), a checksum of rows by step, arrays (k, B, ...)."""

    @property
    def step(self) -> int: ...
    @property
    def rows_crc32(self) -> Sequence[int]: ...
    @property
    def arrays(self) -> Mapping[str, jax.Array]: ...


class Data(SameData, StepRows, Protocol):
    """What a run is trained on. `step` counts from 0: the rows of a step are a function of it."""

    @property
    def pairs_per_step(self) -> float: ...

    def batches(self, mesh: Mesh, start_step: int) -> Iterator[DispatchBatch]: ...
    def held_out(self, mesh: Mesh) -> Iterator[Mapping[str, jax.Array]]: ...


Probe = Callable[[State], Mapping[str, float]]
Report = Callable[[Path], object]
Initial = Callable[[Any, Any], tuple[Any, Any]]
Check = Callable[[], None]


@dataclass(frozen=True)
class Dispatched:
    """A dispatch whose metrics have not been fetched: `step` steps are done after it.

    `wait_s` is what the loop waited for its batches, `dispatch_s` what sending it took (all of it, where a device
    computes in the caller's thread).
    """

    step: int
    wait_s: float
    dispatch_s: float
    metrics: Mapping[str, jax.Array]
    rows_crc32: Sequence[int]


def train(
    program: Program,
    data: Data,
    workdir: Path,
    *,
    resume: Meta | None = None,
    initial: Initial | None = None,
    probes: Sequence[Probe] = (),
    report: Report | None = None,
    stop: StopRequest | None = None,
    peers: Peers = ALONE,
    checks: Sequence[Check] = (),
) -> dict[str, Any]:
    """Train until `train.steps` steps are done, from the checkpoint that `resume` describes or from the start.

    `initial(params, objective_state)` returns where a fresh run starts (weights of an export); `probes` are added to
    an evaluation; `report(workdir)` is called every `log.report_every_s`, and may fail; `stop` is already listening to
    signals (None: from now on), and is told when there is something to save; `peers` are told of an error before it is
    tidied up after; `checks` are called at every step boundary and end the run by raising. Returns a summary.

    Raises Preempted when a stop was asked for and the state is saved, NonFiniteError, UserError (checkpoint damaged,
    disk full), and EndedByPeer.
    """
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(listen()) if stop is None else stop
        run = _Run(stack, program, data, workdir, resume, probes, report, stop, peers, checks)
        with peers.telling(), program.explaining_memory(program.config, program.objective):
            run.start(resume, initial)
            run.loop()
            return run.finish()


def listen(leave: Callable[[str], None] | None = None) -> StopRequest:
    """Return what listens to signals, and calls `leave` while there is nothing to save; several processes leave SIGTERM
    to JAX's service, which tells all of them.
    """
    return StopRequest(leave=leave) if jax.process_count() == 1 else StopRequest(_INTERRUPT, leave)


class _Run:
    """The parts of a running training, and one method for each thing the loop does."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        program: Program,
        data: Data,
        workdir: Path,
        resume: Meta | None,
        probes: Sequence[Probe],
        report: Report | None,
        stop: StopRequest,
        peers: Peers,
        checks: Sequence[Check],
    ):
        config = program.config
        self.config, self.program, self.data, self.workdir = config, program, data, workdir
        self.probes, self.done = probes, resume.step if resume else 0
        self.checks = (peers.check, *checks)
        self.clock = Clock(resume.clock if resume else None)
        self.clock.add("compile", program.compile_s)
        self.saved_step, self.saved_at = self.done, time.monotonic()
        self.resumed_from = self.done if resume else None
        self.pending: Dispatched | None = None
        self.main = jax.process_index() == 0
        self.journal = Journal(workdir, program, data.pairs_per_step, self.clock)
        self.nonfinite = NonFiniteUpdates(
            data,
            workdir,
            at_most=config.train.max_nonfinite,
            before=resume.nonfinite if resume else 0,
            writes=self.main,
        )
        self.agreement, self.alone = Agreement(peers, Timer(self.clock)), peers.alone
        self.checkpoints = Checkpoints(
            workdir / "checkpoints",
            keep=config.checkpoint.keep,
            keep_every_steps=config.checkpoint.keep_every_steps,
            best_metric=config.checkpoint.best_metric,
        )
        stack.push(self._close_checkpoints)
        self.report = Reporter(report if self.main else None, workdir, config.log.report_every_s)
        stack.push(self._close_report)
        self.profiler = Profiler(
            workdir / "profile", config.profile.at if self.main else None, config.profile.dispatches
        )
        stack.callback(self.profiler.close)
        self.watchdog = stack.enter_context(Watchdog(config.train.stall_s, workdir / "stalls.txt"))
        self.stop, self.stack = stop, stack

    def start(self, resume: Meta | None, initial: Initial | None) -> None:
        """Make or restore the state and open the stream of batches at its step; evaluate a state that was made."""
        self.batches = self.data.batches(self.program.mesh, self.done)
        self.stack.callback(_close, self.batches)
        if resume is not None:
            self.state, _ = self.checkpoints.restore(self.program.abstract, resume.step)
            log.info("resumed from checkpoint %d", resume.step)
            self._open_journal()  # not before: it drops the records after the step that was restored
            if owes_evaluation(self.workdir, resume):
                self.evaluate()
            return
        self._open_journal()
        first = next(self.batches)
        self.batches = itertools.chain([first], self.batches)
        self.state = self.program.init(first.arrays)
        if initial is not None:
            params, objective_state = initial(self.state.params, self.state.objective_state)
            started = State(self.state.step, params, self.state.opt_state, objective_state)
            self.state = jax.device_put(started, self.program.placement.shardings)
        log.info("evaluating what the run starts from")
        self.evaluate()

    def loop(self) -> None:
        """Dispatch until all steps are done."""
        config, boundary = self.config, 0
        if self.done < config.train.steps:
            self.journal.write_start(self.done)
        self.journal.lap.start()
        while self.done < config.train.steps:
            boundary += 1
            for check in self.checks:
                check()
            decision = self.agreement.at_boundary(boundary, save=self._save_is_due(), stop=self.stop.asked)
            if decision.stop:
                self.leave()
            if decision.save:
                self.save()
            self.dispatch()
            self.stop.start_saving()
            if self._is_evaluated():
                self.evaluate()
            if self.done % config.checkpoint.every_steps == 0:
                self.save()
            self.checkpoints.poll()
            self.report.poll()

    def dispatch(self) -> None:
        """Send the next batches to the device; then read the metrics of the dispatch before."""
        self.profiler.before(self.done, self.config.train.steps_per_dispatch)
        with self.clock.part("wait") as wait:
            batch = next(self.batches)
        if batch.step != self.done:
            raise RuntimeError(f"the stream of batches is at step {batch.step}, the run at {self.done}")
        logged = self._is_logged(self.done + len(batch.rows_crc32))
        train_step = self.program.train_step if logged else self.program.unlogged_step
        with self.clock.part("step") as step:
            self.state, metrics = train_step(self.state, dict(batch.arrays))
        self.done += len(batch.rows_crc32)
        earlier, self.pending = (
            self.pending,
            Dispatched(self.done, wait.seconds, step.seconds, metrics, batch.rows_crc32),
        )
        self.settle(earlier)
        self.watchdog.beat(f"step {self.done + 1}")

    def settle(self, dispatched: Dispatched | None) -> None:
        """Read the metrics of a dispatch: refuse to go on after non-finite updates, log the steps that are due."""
        if dispatched is None:
            return
        with self.clock.part("step") as fetch:
            metrics = jax.device_get(dispatched.metrics)
        self.journal.lap.add(len(dispatched.rows_crc32), dispatched.wait_s, dispatched.dispatch_s + fetch.seconds)
        first = dispatched.step - len(dispatched.rows_crc32)
        for place, rows_crc32 in enumerate(dispatched.rows_crc32):
            values = {name: float(value[place]) for name, value in metrics.items()}
            step = first + place + 1
            if values.pop("nonfinite"):
                self.nonfinite.add(step, rows_crc32, values, saved_step=self.saved_step)
            if self._is_logged(step):
                counted = {"train/nonfinite": self.nonfinite.count, "data/rows_crc32": rows_crc32}
                self.journal.write_step(step, values | counted)
        self.journal.advance(dispatched.step)

    def _is_logged(self, step: int) -> bool:
        return step % self.config.log.every_steps == 0 or step == self.config.train.steps

    def settle_all(self) -> None:
        """Read the metrics of every dispatch so far."""
        earlier, self.pending = self.pending, None
        self.settle(earlier)

    def evaluate(self) -> None:
        """Write the held-out loss, the collapse monitors and the probes; give it up where a stop is asked for."""
        self.settle_all()
        with self.clock.part("eval"), contextlib.closing(self._held_out()) as batches:
            values = evaluate(self.program, self.state, batches)
            for probe in self.probes:
                self._leave_evaluation()
                values |= {f"eval/{name}": value for name, value in probe(self.state).items()}
        self.journal.write_evaluation(self.done, values)

    def _held_out(self) -> Generator[Mapping[str, jax.Array], None, None]:
        for batch in self.data.held_out(self.program.mesh):
            self._leave_evaluation()
            yield batch

    def _leave_evaluation(self) -> None:
        """Leave where a stop is asked for; several processes, which must do the same, leave at a step boundary, and so
        does a run that keeps its best checkpoint: one that was saved without its value would never be that.
        """
        if self.alone and self.stop.asked and self.config.checkpoint.best_metric is None:
            self.leave()

    def _is_evaluated(self) -> bool:
        return self.done % self.config.eval.every_steps == 0 or self.done == self.config.train.steps

    def save(self) -> None:
        """Start saving the state, once the flags of every step in it have been read."""
        self.settle_all()
        if self.done == self.saved_step:
            return
        with self.clock.part("checkpoint"):
            self.journal.sync()
            self.checkpoints.save(self.state, self._meta())
        self.saved_step, self.saved_at = self.done, time.monotonic()

    def leave(self) -> None:
        """Save, wait until it is whole, and end as preempted."""
        self.save()
        with self.clock.part("checkpoint"):
            self.checkpoints.wait()
        state = f"step {self.done} of {self.config.train.steps} is saved" if self.saved_step else "no step was done"
        raise Preempted(f"{self.stop.name or 'the cluster'} asked for it; {state}; start me again")

    def finish(self) -> dict[str, Any]:
        """Save the last state; return what the run came to."""
        self.settle_all()
        self.save()
        with self.clock.part("checkpoint"):
            self.checkpoints.wait()
        came_to = {"workdir": str(self.workdir), "step": self.done, "resumed_from": self.resumed_from}
        return came_to | self.journal.summary()

    def _close_checkpoints(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the background; an error of it is logged, not raised, where another is on its way."""
        try:
            self.checkpoints.close()
        except Exception:
            if kind is None:
                raise
            log.exception("the last checkpoint could not be finished")

    def _close_report(self, kind: type[BaseException] | None, *_: object) -> None:
        """Draw the last version, which takes seconds, unless somebody waits for the run to stop."""
        self.report.close(last=kind is None or not issubclass(kind, Preempted))

    def _meta(self) -> Meta:
        metric, names = self.config.checkpoint.best_metric, self.journal.names()
        if metric is not None and metric not in names:
            log.warning("checkpoint.best_metric = %s is not among %s", metric, ", ".join(names))
        return Meta(
            step=self.done,
            config=changes.to_plain(self.config),
            store_hash=self.data.store_hash,
            index_hash=self.data.index_hash,
            label_hashes=dict(self.data.label_hashes),
            clock=dict(self.clock.totals),
            versions=dict(versions()),
            nonfinite=self.nonfinite.count,
            frozen={name: dict(network.card) for name, network in self.program.networks.items()},
            evaluation_due=self._is_evaluated() and self.journal.value_at("eval/loss", self.done) is None,
            # a value of an earlier step says nothing of this state
            best=None if metric is None else self.journal.value_at(metric, self.done),
        )

    def _save_is_due(self) -> bool:
        every_s = self.config.checkpoint.every_s
        return every_s is not None and time.monotonic() - self.saved_at >= every_s and self.done > self.saved_step

    def _open_journal(self) -> None:
        if self.main:
            self.journal.open(self.stack, self.resumed_from)


def _close(stream: object) -> None:
    """End a stream of batches that has threads to end."""
    if hasattr(stream, "close"):
        stream.close()
