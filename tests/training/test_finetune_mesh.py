"""Fine-tuning in the real step: adapters, and the last blocks alone, give the losses of one device on any mesh."""

import jax
import numpy as np
import pytest
from linear_run import run

from jaxbio.config import fields
from jaxbio.data.batch import random_batch
from jaxbio.objectives import make_objective

STEPS = 3
SMALL = {
    "data.rate_hz": 100.0,
    "data.segment_s": 5.0,
    "data.channels": ("i", "ii", "v1"),
    "data.scaling": "physical",
    "data.labels": ("rhythm",),
    "pairs.rule": "all_segments",
    "model.width": 16,
    "model.layers": 2,
    "model.heads": 2,
    "model.feedforward": 16,
    "model.patch": 10,
    "model.head_width": 8,
    "objective.classes": ("SR", "AF"),
    "augment.drop_channel": 0.3,
    "augment.noise_prob": 0.0,
    "train.batch": 16,
    "train.steps": 10,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.1,
    "optimizer.warmup_frac": 0.0,
}
WAYS = {"adapters": {"model.adapters": "lora:4"}, "last block": {"objective.trained": "last:1"}}


def losses(way, devices=1, **changes):
    """The losses of a few steps on the same batches, from the same weights."""
    config = fields.change(fields.defaults("st_mem", "supervised"), {**SMALL, **WAYS[way], **changes})
    objective, rng = make_objective(config), np.random.default_rng(0)
    each = [random_batch(config, rng) for _ in range(STEPS)]
    for batch in each:
        batch["row_BM"] = rng.permutation(1000)[:16].astype(np.uint32)[:, None]
        batch["label_BMK"] = rng.integers(0, 2, batch["label_BMK"].shape).astype(np.float32)
    batches = {name: np.stack([batch[name] for batch in each]) for name in each[0]}
    state, metrics = run(config, objective, STEPS, jax.devices()[:devices], batches=batches)
    assert "encoder" in state.objective_state  # what stays
    return np.asarray(metrics["train/loss"])


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_eight_devices_give_the_losses_of_one(way):
    alone = losses(way)
    assert np.isfinite(alone).all()
    assert len(set(alone.tolist())) == STEPS
    shared = losses(way, 8, **{"mesh.data": 4, "mesh.fsdp": 2, "mesh.rules": ((".*", "fsdp"),)})
    np.testing.assert_allclose(shared, alone, rtol=1e-5)
