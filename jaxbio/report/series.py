"""The record of a run as curves: every key of its metrics.jsonl by step.

step_N, value_N = read_series(workdir)["train/loss"]
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Series = dict[str, tuple[np.ndarray, np.ndarray]]


def read_series(workdir: os.PathLike | str) -> Series:
    """Return every key of `metrics.jsonl` as (step_N, value_N), in the order in which keys first appear.

    Values that are no finite numbers are left out, and so is a torn last line of a run that is being written.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    path = Path(workdir) / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        for key, value in record.items():
            if key != "step" and _is_finite(value):
                found.setdefault(key, []).append((record["step"], value))
    return {key: (np.array([s for s, _ in pairs]), np.array([v for _, v in pairs])) for key, pairs in found.items()}


def extend(series: Series, step: int, values: Mapping[str, float | int | None]) -> None:
    """Add the values of `step` to `series` in place, those that are finite numbers."""
    for key, value in values.items():
        if value is not None and _is_finite(value):
            step_N, value_N = series.get(key, (np.zeros(0, int), np.zeros(0)))
            series[key] = np.append(step_N, step), np.append(value_N, value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
