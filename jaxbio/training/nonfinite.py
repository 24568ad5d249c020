"""The updates of a run that the step refused, because loss or gradient was not finite: their number over all starts,
the rows behind each, and the end of the run where there are too many.

    refused = NonFiniteUpdates(data, workdir, at_most=0, before=0, writes=True)
    refused.add(step, rows_crc32, values, saved_step=100)
"""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxbio.data.whole_files import whole_file

log = logging.getLogger(__name__)


class NonFiniteError(FloatingPointError):
    """More updates than `train.max_nonfinite` were not finite. The last checkpoint is from before them."""


class StepRows(Protocol):
    """What says which rows a step (counted from 0) was made of, and what they are."""

    def rows(self, step: int) -> np.ndarray: ...
    def describe(self, rows: np.ndarray) -> list[dict[str, Any]]: ...


class NonFiniteUpdates:
    """Counts refused updates from those `before` this start; `writes` tells whether this process records them."""

    def __init__(self, data: StepRows, workdir: Path, *, at_most: int, before: int, writes: bool):
        self._data, self._folder = data, workdir / "nonfinite"
        self._at_most, self._writes = at_most, writes
        self.count = before

    def add(self, step: int, rows_crc32: int, values: Mapping[str, float], *, saved_step: int) -> None:
        """Count the update of `step` (counted from 1) and log its rows; `saved_step` is the last checkpoint's.

        Raises NonFiniteError when there were too many, after writing `nonfinite/<step>.json`.
        """
        self.count += 1
        rows = self._data.rows(step - 1)
        log.error("step %d: the update was not finite and was refused; rows %s", step, rows.tolist())
        if self.count <= self._at_most:
            return
        path = self._folder / f"{step}.json"
        if self._writes:
            self._write(path, step, rows_crc32, rows, values)
        raise NonFiniteError(
            f"step {step}: loss or gradient is not finite{_tell_still(values)}, refused update {self.count} of at most "
            f"{self._at_most}. Rows, records and norms: {path}. The last checkpoint is step {saved_step}; "
            f"go on over such steps with --config.train.max_nonfinite={self.count + 9}"
        )

    def _write(self, path: Path, step: int, rows_crc32: int, rows: np.ndarray, values: Mapping[str, float]) -> None:
        record = {
            "step": step,
            "rows_crc32": rows_crc32,
            "rows": rows.tolist(),
            "metrics": {name: value if math.isfinite(value) else str(value) for name, value in values.items()},
            "records": self._data.describe(np.unique(rows)),
        }
        path.parent.mkdir(exist_ok=True)
        with whole_file(path) as unfinished:
            unfinished.write_text(json.dumps(record, indent=1))


def _tell_still(values: Mapping[str, float]) -> str:
    """Return the words for how much of a refused step's batch stands still, where its objective says so."""
    still = values.get("train/still", 0.0)
    remedy = "leave out recordings that stand still, or what is cropped or filtered to nothing"
    return f" (nothing moves in {still:.0%} of its segments: {remedy})" if still else ""
