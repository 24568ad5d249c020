"""Pairs for people to look at, written beside each evaluation: always the same held-out ones.

probes = [make_examples_probe(program, data, workdir)]      # for training.loop.train
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxbio.data.store import StoreView
from jaxbio.report.examples import Examples, write_examples
from jaxbio.training.program import Program
from jaxbio.training.sharding import replicated
from jaxbio.training.state import State
from jaxbio.transforms.prepare_input import Input, prepare_batch

_PAIRS = 2


def make_examples_probe(program: Program, data: Any, workdir: Path) -> Callable[[State], Mapping[str, float]]:
    """Return a probe of the loop that writes `examples.npz` and measures nothing; process 0 alone writes."""
    config, objective = program.config, program.objective

    def take(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {name: array[:_PAIRS] for name, array in batch.items()}

    def draw(state: State, pairs: dict[str, jax.Array]) -> Any:
        if objective.show is None:
            return {"segment": prepare_batch(pairs, Input.of(config))}
        return objective.show(state.params, state.objective_state, pairs)

    compiled_draw = jax.jit(draw, out_shardings=replicated(program.mesh))
    pairs: dict[str, jax.Array] = {}

    def probe(state: State) -> Mapping[str, float]:
        if not pairs:
            batches = iter(data.held_out(program.mesh))
            pairs.update(jax.jit(take, out_shardings=replicated(program.mesh))(dict(next(batches))))
            if hasattr(batches, "close"):
                batches.close()
        curves = jax.device_get(compiled_draw(state, pairs))
        segment_BMCT = curves.pop("segment")
        if jax.process_index() == 0:
            rate_hz, channels = config.data.rate_hz, config.data.channels
            scores = _scores(data.store, np.asarray(pairs["row_BM"]), config.quality.variant, channels)
            bin_hz = rate_hz / segment_BMCT.shape[-1]
            write_examples(workdir, Examples(segment_BMCT, rate_hz, channels, curves, bin_hz, *scores))
        return {}

    return probe


def _scores(
    store: StoreView, row_BM: np.ndarray, variant: str, channels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the quality scores of rows (B, M), and those of each channel (B, M, C)."""
    score_BMC = np.stack([store.column(f"{role}_{variant}")[row_BM] for role in channels], axis=-1)
    return store.column(f"quality_{variant}")[row_BM], score_BMC
