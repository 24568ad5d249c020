"""Experiment trackers: where the numbers of a run also go, beside its record, when asked (`log.trackers`).

Each is a small sink of one shape, `write(step, values)` and `close()`, whose library is imported only when it is asked
for. A tracker runs in a thread of its own behind a queue: one that cannot be reached, has no key, or fails later is
said once and then left out, while training goes on. `metrics.jsonl` holds everything that a tracker missed.

    check_installed(config.log.trackers)                                  # before anything is compiled
    sinks = [open_tracker(name, run) for name in config.log.trackers]
"""

import contextlib
import importlib.util
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.whole_files import whole_file

log = logging.getLogger(__name__)

Values = Mapping[str, float | int | None]
RUN_ID = "tracker_id"
_WAITING = 10_000  # lines that a slow tracker may be behind before lines are dropped
_CLOSE_S = 30.0  # that the end of a run waits for a tracker


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run: its folder, the project it belongs to, its configuration by dotted name, and the
    step from which it goes on (None: it starts anew).
    """

    workdir: Path
    project: str
    config: Mapping[str, Any]
    restored_step: int | None

    @property
    def name(self) -> str:
        """Name of the run: its folder's."""
        return self.workdir.resolve().name

    def id(self) -> str:
        """Return what the run is called at the tracker, the same for every start of it; kept in the workdir."""
        path = self.workdir / RUN_ID
        if self.restored_step is None or not path.exists():
            with whole_file(path) as unfinished:
                unfinished.write_text(uuid.uuid4().hex[:16])
        return path.read_text().strip()


class Sink(Protocol):
    """A tracker that is open; values are numbers, none of them missing."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class TensorBoard:
    """Event files for TensorBoard, in the workdir."""

    def __init__(self, run: TrackedRun):
        from tensorboardX import SummaryWriter

        first = 0 if run.restored_step is None else run.restored_step + 1
        self._writer = SummaryWriter(str(run.workdir / "tensorboard"), purge_step=first, flush_secs=30)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """Weights & Biases; offline with WANDB_MODE=offline."""

    def __init__(self, run: TrackedRun):
        import wandb

        if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.api.api_key:
            raise PermissionError("no key: `wandb login`, or WANDB_MODE=offline")
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.id(),
            resume="allow",
            dir=str(run.workdir),
            config=dict(run.config),
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """MLflow, at MLFLOW_TRACKING_URI."""

    def __init__(self, run: TrackedRun):
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(run.project)
        own = run.id()
        known = mlflow.search_runs(filter_string=f"tags.jaxbio_id = '{own}'", output_format="list")
        if known:
            mlflow.start_run(run_id=known[0].info.run_id)
            return
        mlflow.start_run(run_name=run.name, tags={"jaxbio_id": own})
        mlflow.log_params({name: str(value)[:500] for name, value in run.config.items()})  # MLflow's longest value

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


class Trackio:
    """Trackio, whose record lies on this machine unless a Space is named by its own settings."""

    def __init__(self, run: TrackedRun):
        import trackio

        self._trackio = trackio
        trackio.init(project=run.project, name=f"{run.name}-{run.id()}", resume="allow", config=dict(run.config))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        self._trackio.finish()


TRACKERS: dict[str, tuple[str, Callable[[TrackedRun], Sink]]] = {
    "tensorboard": ("tensorboardX", TensorBoard),
    "wandb": ("wandb", WandB),
    "mlflow": ("mlflow", MLflow),
    "trackio": ("trackio", Trackio),
}
"""By name: the library, and what opens it."""


def check_installed(names: Sequence[str]) -> None:
    """Raise UserError for each tracker whose library is not installed."""
    missing = [name for name in names if importlib.util.find_spec(TRACKERS[name][0]) is None]
    if missing:
        raise UserError(*(Fault("log.trackers", name, f"pip install {TRACKERS[name][0]}") for name in missing))


def open_tracker(name: str, run: TrackedRun) -> "Tracker":
    """Return the tracker `name` for `run`; it is opened by its own thread."""
    return Tracker(name, lambda: TRACKERS[name][1](run))


class Tracker:
    """A sink that never holds a run up: opened, written and closed by one thread; its first error is its last."""

    def __init__(self, name: str, open_sink: Callable[[], Sink]):
        self._name, self._open = name, open_sink
        self._lines: queue.Queue[tuple[int, dict[str, float]] | None] = queue.Queue(_WAITING)
        self._gave_up, self._once = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._serve, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def write(self, step: int, values: Values) -> None:
        """Hand over the values of `step` that are numbers."""
        if self._gave_up.is_set():
            return
        try:
            self._lines.put_nowait((step, {key: value for key, value in values.items() if value is not None}))
        except queue.Full:
            self._leave_out(f"is {_WAITING} lines behind")

    def close(self) -> None:
        """Wait until what was handed over is written, half a minute at most."""
        if self._gave_up.is_set():
            return
        until = time.monotonic() + _CLOSE_S
        with contextlib.suppress(queue.Full):  # then the thread is still writing at the end of the limit
            self._lines.put(None, timeout=_CLOSE_S)
        self._thread.join(max(until - time.monotonic(), 0.0))
        if self._thread.is_alive():
            self._leave_out(f"did not finish within {_CLOSE_S:g} s")

    def _serve(self) -> None:
        try:
            sink = self._open()
            while (line := self._lines.get()) is not None and not self._gave_up.is_set():
                sink.write(*line)
            sink.close()
        except BaseException as error:  # whatever a tracker's library raises, SystemExit included, is no end of a run
            self._leave_out(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no words'}")

    def _leave_out(self, why: str) -> None:
        with self._once:
            if self._gave_up.is_set():
                return
            log.warning(
                "log.trackers: %s %s; training goes on without it, metrics.jsonl has every line", self._name, why
            )
            self._gave_up.set()
