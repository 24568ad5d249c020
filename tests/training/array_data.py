"""What the loop trains on in its tests: seeded arrays instead of a store, a stream that can be made to fail.

Rows and signals of a step are a function of the step, as the real order's are.
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from linear_run import linear_config, linear_objective, make_batches
from ml_collections import ConfigDict

from jaxbio.objectives import Objective
from jaxbio.training.loop import train
from jaxbio.training.program import Program, build_program
from jaxbio.training.sharding import batch_sharding, dispatch_sharding
from jaxbio.training.writers import read_metrics


@dataclass(frozen=True)
class ArrayBatch:
    step: int
    rows_crc32: tuple[int, ...]
    arrays: Mapping[str, jax.Array]


@dataclass
class ArrayData:
    """`before(step)` is called before the dispatch that starts at `step` is handed out; `poisoned` steps hold a NaN."""

    config: ConfigDict
    before: Callable[[int], None] = lambda step: None
    poisoned: frozenset[int] = frozenset()
    store_hash: str = "store"
    index_hash: str = "index"
    label_hashes: Mapping[str, str] = field(default_factory=dict)
    served: list[int] = field(default_factory=list)

    @property
    def pairs_per_step(self) -> float:
        return float(self.config.train.batch)

    def step_arrays(self, step: int) -> dict[str, np.ndarray]:
        return {name: array[0] for name, array in make_batches(self.config, 1, seed=step).items()}

    def rows(self, step: int) -> np.ndarray:
        return self.step_arrays(step)["row_BM"]

    def describe(self, rows: np.ndarray) -> list[dict[str, Any]]:
        return [{"row": int(row), "recording": f"r{row}"} for row in rows]

    def batches(self, mesh, start_step: int) -> Iterator[ArrayBatch]:
        width = self.config.train.steps_per_dispatch
        for first in range(start_step, self.config.train.steps, width):
            self.before(first)
            self.served.append(first)
            steps = [self.step_arrays(step) for step in range(first, first + width)]
            for place, arrays in enumerate(steps):
                if first + place in self.poisoned:
                    arrays["scale_BMC2"][0] = np.nan
            stacked = {name: np.stack([arrays[name] for arrays in steps]) for name in steps[0]}
            crc = tuple(zlib.crc32(arrays["row_BM"].astype("<u4").tobytes()) for arrays in steps)
            yield ArrayBatch(first, crc, jax.device_put(stacked, dispatch_sharding(mesh)))

    def held_out(self, mesh) -> Iterator[Mapping[str, jax.Array]]:
        for number in range(2):
            yield jax.device_put(self.step_arrays(10_000 + number), batch_sharding(mesh))


SETTINGS = {
    "log__every_steps": 1,
    "eval__every_steps": 10,
    "checkpoint__every_steps": 5,
    "checkpoint__every_s": None,
    "checkpoint__keep": 2,
}


def poisonable(objective: Objective) -> Objective:
    """Return `objective` with a loss that is NaN where the scales of its batch are, and their share as `still`."""

    def loss(params, state, batch, keys, progress, train):
        value, (aux, terms) = objective.loss(params, state, batch, keys, progress, train)
        still = jnp.isnan(batch["scale_BMC2"]).any((1, 2, 3)).mean()
        return value + 0.0 * batch["scale_BMC2"].sum(), (aux, {**terms, "still": still})

    return dataclasses.replace(objective, loss=loss)


def array_program(devices=None, **changes: Any) -> Program:
    """Return the program of the linear run; two devices unless told otherwise: Orbax takes its time for each."""
    devices = jax.devices()[:2] if devices is None else devices
    return build_program(linear_config(**(SETTINGS | changes)), poisonable(linear_objective()), devices=devices)


def resume_of(workdir: Path):
    """Return the meta of the newest checkpoint, as the launcher would hand it in; None where there is none."""
    from jaxbio.training.checkpoint import list_steps, read_meta

    steps = list_steps(workdir / "checkpoints")
    return read_meta(workdir / "checkpoints", steps[-1]) if steps else None


def run(program: Program, workdir: Path, data: ArrayData | None = None, **options: Any) -> dict[str, Any]:
    workdir.mkdir(exist_ok=True)
    data = data or ArrayData(program.config)
    return train(program, data, workdir, resume=resume_of(workdir), **options)


def exact_values(workdir: Path) -> dict[int, dict[str, Any]]:
    """Return what must not differ between an interrupted and an uninterrupted run, by step; eval/* apart."""
    found: dict[int, dict[str, Any]] = {}
    for record in read_metrics(workdir / "metrics.jsonl"):
        kept = {key: value for key, value in record.items() if key.startswith(("train/", "eval/", "data/rows"))}
        assert not kept.keys() & found.get(record["step"], {}).keys(), f"step {record['step']} is written twice"
        found.setdefault(record["step"], {}).update(kept)
    return found
