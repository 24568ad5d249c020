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
from jaxbio.report.patches import Waveforms
from jaxbio.training.program import Program
from jaxbio.training.sharding import replicated
from jaxbio.training.state import State
from jaxbio.transforms.prepare_input import Input, prepare_batch

_PAIRS = 2  # that are drawn
_ROWS = 32  # that an objective sees to say what stands for a number


def make_examples_probe(program: Program, data: Any, workdir: Path) -> Callable[[State], Mapping[str, float]]:
    """Return a probe of the loop that writes `examples.npz` and measures nothing; process 0 alone writes."""
    config, objective = program.config, program.objective

    def take(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {name: array[:_ROWS] for name, array in batch.items()}

    def draw(state: State, pairs: dict[str, jax.Array]) -> Any:
        if objective.show is None:
            x_BMCT = prepare_batch(pairs, Input.of(config))
            return {"segment": x_BMCT[:, :, : len(config.data.channels)]}  # features are no signals to look at
        return objective.show(state.params, state.objective_state, pairs)

    compiled_draw = jax.jit(draw, out_shardings=replicated(program.mesh))
    pairs: dict[str, jax.Array] = {}

    def probe(state: State) -> Mapping[str, float]:
        if not pairs:
            batches = iter(data.held_out(program.mesh))
            pairs.update(jax.jit(take, out_shardings=replicated(program.mesh))(dict(next(batches))))
            if hasattr(batches, "close"):
                batches.close()
        shown = jax.device_get(compiled_draw(state, pairs))
        if jax.process_index() == 0:
            row_BM = np.asarray(pairs["row_BM"])[:_PAIRS]
            channels = Input.of(config).channels
            scores = _scores(data.store, row_BM, config.quality.variant, channels)
            write_examples(workdir, _examples(shown, config.data.rate_hz, channels, *scores))
        return {}

    return probe


def _examples(
    shown: dict[str, Any], rate_hz: float, channels: Sequence[str], score_BM: np.ndarray, score_BMC: np.ndarray
) -> Examples:
    """Return what `Objective.show` gave as a report draws it, of the first pairs."""
    segment_BMCT = shown.pop("segment")
    maps, waveforms = shown.pop("maps", {}), shown.pop("waveforms", {})
    bin_hz = rate_hz / shown.pop("curve_samples", segment_BMCT.shape[-1])
    return Examples(
        segment_BMCT[:_PAIRS],
        rate_hz,
        channels,
        {name: (target[:_PAIRS], output[:_PAIRS]) for name, (target, output) in shown.items()},
        float(bin_hz),
        score_BM,
        score_BMC,
        {name: map_BA[:_PAIRS] for name, map_BA in maps.items()},
        {name: Waveforms(**arrays) for name, arrays in waveforms.items()},
    )


def _scores(
    store: StoreView, row_BM: np.ndarray, variant: str, channels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the quality scores of rows (B, M), and those of each channel (B, M, C)."""
    score_BMC = np.stack([store.column(f"{role}_{variant}")[row_BM] for role in channels], axis=-1)
    return store.column(f"quality_{variant}")[row_BM], score_BMC
