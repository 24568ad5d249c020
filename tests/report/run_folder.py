"""A run's folder with records and examples, for tests of its page."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from jaxbio.config import changes, fields
from jaxbio.config.resolve import resolve
from jaxbio.report.examples import Examples


def write_run(workdir: Path, records: Iterable[dict]) -> Path:
    """Write the configuration and the record of a run; return its folder."""
    workdir.mkdir(exist_ok=True)
    config = resolve(fields.change(fields.defaults(), {"train.steps": 1000, "train.batch": 64}))
    (workdir / "config.json").write_text(json.dumps(changes.to_plain(config)))
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return workdir


def records(steps: int = 700) -> Iterator[dict]:
    """Yield the lines of so many steps, with an evaluation every 100."""
    for step in range(1, steps + 1):
        yield {
            "step": step,
            "train/loss": 10 / step,
            "train/amplitude": 0.5,
            "train/learning_rate": 1e-4,
            "train/learning_rate_group_1": 1e-5,
            "train/ema_momentum": 0.996,
            "train/grad_norm": 3.0,
            "perf/pairs_per_s": 123.4,
            "perf/mfu": None,
            "data/wait_s": 0.001,
            "time/step_s": 0.5 * step,
            "time/compile_s": 20.0,
            "time/starts": 2.0,
            "memory/host_resident_bytes": 3 * 2**30,
        }
        if step % 100 == 0:
            yield {"step": step, "eval/loss": 9 / step, "eval/teacher_batch_spread": 0.4, "eval/teacher_entropy": 2.0}


def examples() -> Examples:
    """Return three pairs, the worse member of which lacks its ECG, with curves of noise."""
    rng = np.random.default_rng(0)
    curves = {name: (rng.normal(size=(3, 2, 512)), rng.normal(size=(3, 2, 512))) for name in ("amplitude", "phase")}
    segment_BMCT = rng.uniform(-1, 1, (3, 2, 2, 9000)).astype(np.float32)
    score_BM = np.tile([1.0, 0.25], (3, 1))
    score_BMC = np.tile([[1.0, 1.0], [0.5, np.nan]], (3, 1, 1))
    return Examples(segment_BMCT, 300.0, ("ppg", "ecg"), curves, 1 / 30, score_BM, score_BMC)
