"""The 12-lead objectives in the real step: any mesh and any number of microbatches give the same losses."""

import jax
import numpy as np
import pytest
from linear_run import run

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.data.batch import random_batch
from jaxbio.objectives import make_objective

LEADS = ("i", "ii", "v1")
SMALL = {"model.width": 16, "model.layers": 1, "model.heads": 2, "model.feedforward": 16, "model.patch": 10}
HEAD = {"model.head_width": 8}
DECODER = {"objective.decoder_width": 8, "objective.decoder_layers": 1, "objective.decoder_heads": 1}
FAMILIES = {
    "patch_reconstruction": ("st_mem", {**HEAD, **DECODER}),
    "feature_prediction": (
        "ecg_jepa",
        {"objective.predictor_width": 8, "objective.predictor_layers": 1, "objective.predictor_heads": 2},
    ),
    "code_reconstruction": ("vq_vae", {**HEAD, **DECODER, "model.latent": 4, "model.codes": 8}),
    "label_triplets": ("st_mem", {**HEAD, "data.labels": ("rhythm",), "objective.head_width": 4}),
}
STEPS = 2


def make(objective, **changes):
    model, own = FAMILIES[objective]
    run_of = {
        "data.rate_hz": 100.0,
        "data.segment_s": 5.0,
        "data.channels": LEADS,
        "data.scaling": "physical",
        "pairs.rule": "all_segments",
        "train.batch": 16,
        "train.steps": 10,
        "augment.noise_prob": 0.0,
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 1e-3,
        "optimizer.warmup_frac": 0.0,
    }
    config = fields.change(fields.defaults(model, objective), {**run_of, **SMALL, **own, **changes})
    return config, make_objective(config)


def losses(objective, devices=1, **changes):
    """The losses of a few steps on the same batches."""
    config, made = make(objective, **changes)
    rng = np.random.default_rng(0)
    each = [random_batch(config, rng) for _ in range(STEPS)]
    for batch in each:
        batch["row_BM"] = rng.permutation(1000)[:16].astype(np.uint32)[:, None]
    batches = {name: np.stack([batch[name] for batch in each]) for name in each[0]}
    _, metrics = run(config, made, STEPS, jax.devices()[:devices], batches=batches)
    return np.asarray(metrics["train/loss"])


@pytest.mark.slow
@pytest.mark.parametrize("objective", FAMILIES)
def test_eight_devices_give_the_losses_of_one(objective):
    alone = losses(objective)
    assert np.isfinite(alone).all()
    assert alone[0] != alone[1]
    shared = losses(objective, 8, **{"mesh.data": 4, "mesh.fsdp": 2, "mesh.rules": ((".*", "fsdp"),)})
    np.testing.assert_allclose(shared, alone, rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["patch_reconstruction", "feature_prediction", "code_reconstruction"])
def test_microbatches_give_the_losses_of_the_whole_batch(objective):
    own = {"model.drop_path": 0.0} if objective == "feature_prediction" else {}  # keyed by microbatch, as dropout is
    np.testing.assert_allclose(
        losses(objective, **own, **{"train.microbatches": 4}), losses(objective, **own), rtol=2e-5
    )


def test_triplets_refuse_microbatches():
    with pytest.raises(UserError, match="couples the rows"):
        losses("label_triplets", **{"train.microbatches": 4})
