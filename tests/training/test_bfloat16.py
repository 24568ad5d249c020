"""bfloat16 beside float32: a step of every family from the same state, the same batch and the same random draws."""

import jax
import numpy as np
import pytest
from family_steps import STEPS, family, with_weights

from jaxbio.config import fields
from jaxbio.data.batch import random_batch
from jaxbio.objectives import make_objective
from jaxbio.training.program import lay_out, lower_train_step
from jaxbio.training.step import init_state, seeded


@pytest.mark.gpu
@pytest.mark.parametrize("name", STEPS)
def test_a_step_in_bfloat16_has_float32s_loss_within_two_percent_and_gradient_norm_within_five(name):
    config, shapes = family(name)
    networks = with_weights(shapes)
    batch = random_batch(config, np.random.default_rng(0))
    exact = first_metrics(config, networks, batch)
    near = first_metrics(fields.change(config, {"precision.compute": "bfloat16"}), networks, batch)
    # The floor: SiamQuality's loss is a mean of cosines, near 0 at the start.
    assert near["train/loss"] == pytest.approx(exact["train/loss"], rel=2e-2, abs=1e-3)
    assert near["train/grad_norm"] == pytest.approx(exact["train/grad_norm"], rel=5e-2)
    assert near != exact


def first_metrics(config, networks, batch):
    """Return the numbers of the first training step of `config`, from the seed's own state."""
    objective = make_objective(config, networks)
    layout = lay_out(config, objective, jax.devices()[:1])
    frozen = {name: network.variables for name, network in networks.items()}
    state = init_state(config, objective, layout.optimizer, layout.placement.shardings, batch, frozen)
    compiled = seeded(lower_train_step(config, objective, layout).compile(), config, layout.mesh)
    _, metrics = compiled(state, {key: array[None] for key, array in batch.items()})
    return {name: float(value[0]) for name, value in metrics.items()}
