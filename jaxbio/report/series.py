"""The record of a run as curves: every key of its metrics.jsonl by step.

step_N, value_N = read_series(workdir)["train/loss"]

record = Record(workdir)                    # of a run that goes on
record.read()                               # reads only what has been written since the last time
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Series = dict[str, tuple[np.ndarray, np.ndarray]]


class Record:
    """The record of a run that is read on from where the last reading ended, as a page that is drawn anew needs it."""

    def __init__(self, workdir: os.PathLike | str):
        self._path = Path(workdir) / "metrics.jsonl"
        self._start_over(None)

    def read(self) -> Series:
        """Return the series of everything that the record holds by now.

        A last line that is not whole yet is left to the next reading. A record that was replaced, as at a resume, or
        that has become shorter is read from its start.
        """
        if not self._path.is_file():
            self._start_over(None)
            return {}
        with self._path.open("rb") as file:
            opened = os.fstat(file.fileno())
            if opened.st_ino != self._inode or opened.st_size < self._position:
                self._start_over(opened.st_ino)
            file.seek(self._position)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._position += len(whole) + len(newline)
        for line in whole.splitlines():
            self._add(line)
        return {
            key: (np.array([step for step, _ in pairs]), np.array([value for _, value in pairs]))
            for key, pairs in self._found.items()
        }

    def _start_over(self, inode: int | None) -> None:
        self._inode, self._position = inode, 0
        self._found: dict[str, list[tuple[int, float]]] = {}

    def _add(self, line: bytes) -> None:
        try:
            record = json.loads(line)
        except ValueError:  # torn when a run was killed; a run that goes on from there takes it out
            return
        for key, value in record.items():
            if key != "step" and _is_finite(value):
                self._found.setdefault(key, []).append((record["step"], value))


def read_series(workdir: os.PathLike | str) -> Series:
    """Return every key of `metrics.jsonl` as (step_N, value_N), in the order in which keys first appear.

    Values that are no finite numbers are left out, and so is a torn last line of a run that is being written.
    """
    return Record(workdir).read()


def extend(series: Series, step: int, values: Mapping[str, float | int | None]) -> None:
    """Add the values of `step` to `series` in place, those that are finite numbers."""
    for key, value in values.items():
        if value is not None and _is_finite(value):
            step_N, value_N = series.get(key, (np.zeros(0, int), np.zeros(0)))
            series[key] = np.append(step_N, step), np.append(value_N, value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
