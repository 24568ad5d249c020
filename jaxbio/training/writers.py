"""Where the numbers of a run go: metrics.jsonl (the record) and the console; trackers are beside it.

A writer takes `write(step, values)`; keys are `area/name`, values numbers or None. It knows nothing of devices.

    writers = [MetricsFile(workdir / "metrics.jsonl", restored_step=120), Console(steps=42_000, start=120, batch=512)]
"""

import contextlib
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.refusals import advise
from jaxbio.data.whole_files import to_disk, whole_file

METRICS = "metrics.jsonl"
Values = Mapping[str, float | int | None]
log = logging.getLogger(__name__)

_LINE_EVERY_S = 10.0  # between lines of a console that is no terminal


class Writer(Protocol):
    """What the loop asks of a writer."""

    def write(self, step: int, values: Values) -> None: ...
    def close(self) -> None: ...


class MetricsFile:
    """The record: one JSON object a line, `step` first. Lines after `restored_step` and a torn last one are dropped.

    A value that is not finite is written as null, because JSON has no other word for it.
    """

    def __init__(self, path: Path, restored_step: int = 0):
        repair_metrics(path, restored_step)
        self._path, self._file = path, path.open("ab", buffering=0)  # no line waits to be written when it is closed

    def write(self, step: int, values: Values) -> None:
        """Write the line of `step`. Raises UserError when the disk takes none, or half of one."""
        line = json.dumps({"step": step} | {key: _number(value) for key, value in values.items()}, allow_nan=False)
        content = (line + "\n").encode()
        with self._on_disk():
            while content:  # a disk that takes half of it says why when it is asked for the rest
                content = content[self._file.write(content) :]

    def sync(self) -> None:
        """Have the lines on the disk: before a checkpoint that continues from them. Raises as `write` does."""
        with self._on_disk():
            to_disk(self._file)

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            remedy = f"{error.strerror}: {advise(error)}, then start again"
            raise UserError(Fault(str(self._path), "not written", remedy)) from error

    def close(self) -> None:
        self._file.close()


class Console:
    """A progress bar with rate and time left on a terminal; elsewhere a line every few seconds."""

    def __init__(self, steps: int, start: int, batch: float, shown: tuple[str, ...] = ("train/loss", "eval/loss")):
        self._steps, self._batch, self._shown = steps, batch, shown
        self._bar = tqdm(total=steps, initial=start, unit="step", disable=None, dynamic_ncols=True, smoothing=0.1)
        self._first: tuple[int, float] | None = None  # the first step holds what starting up took
        self._last_line = -math.inf
        self._latest: dict[str, tuple[int, float]] = {}

    def advance(self, step: int) -> None:
        """Show that `step` steps are done."""
        self._bar.update(step - self._bar.n if not self._bar.disable else 0)
        now = time.monotonic()
        self._first = self._first or (step, now)
        if self._bar.disable and (now - self._last_line > _LINE_EVERY_S or step == self._steps):
            self._last_line = now
            log.info("%s", self.describe(step, now))

    def describe(self, step: int, now: float) -> str:
        """Return the line for `step` at clock `now`: steps, values, pairs a second, time left."""
        shown = "".join(f"  {key} {text}" for key, text in self._values().items())
        first, since = self._first or (step, now)
        if step > first:
            rate = (step - first) / max(now - since, 1e-9)
            left = tqdm.format_interval((self._steps - step) / rate)
            shown += f"  {rate * self._batch:.1f} pairs/s  {left} left"
        return f"step {step}/{self._steps}{shown}"

    def write(self, step: int, values: Values) -> None:
        self._latest |= {key: (step, value) for key in self._shown if isinstance(value := values.get(key), float)}
        self._bar.set_postfix(self._values(), refresh=False)

    def _values(self) -> dict[str, str]:
        """Return the latest value of each key, with its step where that of another key is newer."""
        newest = max((step for step, _ in self._latest.values()), default=0)
        return {
            key: f"{value:.4g}" + f" (step {step})" * (step < newest) for key, (step, value) in self._latest.items()
        }

    def close(self) -> None:
        self._bar.close()


def repair_metrics(path: Path, restored_step: int) -> int:
    """Rewrite `path` without the records after `restored_step` and without a torn last line; return the number dropped.

    The new file takes the place of the old one in one rename. Raises UserError for a line within the file that is no
    record: the file is not the loop's, or was damaged.
    """
    if not path.exists():
        return 0
    lines = path.read_bytes().split(b"\n")
    kept = [line for line, record in _records(path, lines) if record["step"] <= restored_step]
    dropped = sum(1 for line in lines if line) - len(kept)
    if dropped or lines[-1]:
        with whole_file(path) as unfinished:
            unfinished.write_bytes(b"".join(line + b"\n" for line in kept))
        log.info("%s: dropped %d records after step %d", path, dropped, restored_step)
    return dropped


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of a metrics.jsonl, without a torn last line (a run may be writing it)."""
    return [record for _, record in _records(path, path.read_bytes().split(b"\n"))]


def _records(path: Path, lines: list[bytes]) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield (line, record) of every whole line; the last one ends the file and may be torn."""
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
            record["step"]
        except (ValueError, KeyError, TypeError) as error:
            fault = Fault(str(path), f"line {number}", "is no record of a run; move the file away and start again")
            raise UserError(fault) from error
        yield line, record


def _number(value: float | int | None) -> float | int | None:
    return value if value is None or math.isfinite(value) else None
