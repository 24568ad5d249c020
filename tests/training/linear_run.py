"""A run small enough to compile in a second: a linear model with an EMA teacher and a centre.

It has every part the trainer must treat rightly: augmentation keyed by row, batch means as aux, a teacher that mirrors
the parameters, and a centre that mirrors nothing. Signals are those of the pairs, shortened.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxbio.config import fields
from jaxbio.objectives import Objective
from jaxbio.training.optimizer import make_optimizer
from jaxbio.training.sharding import dispatch_sharding, make_mesh, place_state
from jaxbio.training.state import abstract_state
from jaxbio.training.step import init_state, make_train_step

SAMPLES = 24


class Linear(nn.Module):
    """Tokens of 4 samples of both channels, two layers: (B, C, T) -> (B, L, D)."""

    width: int = 16

    @nn.compact
    def __call__(self, x_BCT: jax.Array) -> jax.Array:
        pairs, channels, samples = x_BCT.shape
        tok_BLF = x_BCT.reshape(pairs, channels, samples // 4, 4).swapaxes(1, 2).reshape(pairs, samples // 4, -1)
        return nn.Dense(self.width, name="second")(nn.tanh(nn.Dense(self.width, name="first")(tok_BLF)))


def linear_objective(coupled: bool = False, width: int = 16) -> Objective:
    """Regress the centred teacher's tokens of the better member from the noisy worse member."""
    module = Linear(width)

    def init(key, batch):
        params = module.init(key, batch["segment_BMCT"][:, 0].astype(jnp.float32))["params"]
        tokens = jax.eval_shape(lambda: module.apply({"params": params}, batch["segment_BMCT"][:, 0] * 1.0))
        return {"encoder": params}, {"teacher": {"encoder": params}, "centre": jnp.zeros((1, *tokens.shape[1:]))}

    def noisy(key, row, x_CT):
        return x_CT + 0.1 * jax.random.normal(jax.random.fold_in(key, row), x_CT.shape)

    def loss(params, state, batch, keys, progress, train):
        x_BMCT = batch["segment_BMCT"] / 32767.0
        teacher_BLD = module.apply({"params": state["teacher"]["encoder"]}, x_BMCT[:, 0])
        worse_BCT = jax.vmap(noisy, (None, 0, 0))(keys["augment"], batch["row_BM"][:, 1], x_BMCT[:, 1])
        student_BLD = module.apply({"params": params["encoder"]}, worse_BCT)
        distance = jnp.square(student_BLD - (jax.lax.stop_gradient(teacher_BLD) - state["centre"])).mean()
        size = jnp.square(student_BLD).mean()
        return distance + 0.1 * size, (
            {"centre": teacher_BLD.mean(axis=0, keepdims=True)},
            {"distance": distance, "size": size},
        )

    def update(params, state, aux, progress):
        momentum = 0.9 + 0.1 * progress
        teacher = jax.tree.map(
            lambda old, new: momentum * old + (1 - momentum) * new, state["teacher"]["encoder"], params["encoder"]
        )
        return {"teacher": {"encoder": teacher}, "centre": 0.9 * state["centre"] + 0.1 * aux["centre"]}

    def teacher_variables(params, state):
        return {"params": state["teacher"]["encoder"]}

    return Objective(init, loss, update, {"teacher": (module, teacher_variables)}, coupled)


def linear_config(**changes: Any) -> ConfigDict:
    """Return the configuration of such a run; `changes` with two underscores for a dot."""
    settings = {
        "data.rate_hz": 1.0,
        "data.segment_s": float(SAMPLES),
        "train.batch": 32,
        "train.steps": 20,
        "optimizer.learning_rate": 1e-2,
        "optimizer.warmup_frac": 0.0,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    return fields.change(fields.defaults(), settings)


def make_batches(config: ConfigDict, steps: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return seeded arrays (steps, B, ...) as the loader delivers them."""
    rng = np.random.default_rng(seed)
    pairs, channels = config.train.batch, len(config.data.channels)
    samples = round(config.data.rate_hz * config.data.segment_s)
    segment = rng.normal(0.0, 8000.0, (steps, pairs, 2, channels, samples)).clip(-32767, 32767).astype(np.int16)
    scale = np.stack([np.zeros((steps, pairs, 2, channels)), np.full((steps, pairs, 2, channels), 1 / 32767)], -1)
    rows = rng.permutation(steps * pairs * 2).reshape(steps, pairs, 2).astype(np.uint32)
    return {"segment_BMCT": segment, "scale_BMC2": scale.astype(np.float32), "row_BM": rows}


def start(config: ConfigDict, objective: Objective, devices=None):
    """Return (mesh, optimizer, placement, state) of a run of `config` on `devices`."""
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    batch = {name: array[0] for name, array in make_batches(config, 1).items()}
    abstract = abstract_state(config, objective, optimizer, batch)
    placement = place_state(abstract, mesh, config.mesh.rules, config.mesh.moments)
    return mesh, optimizer, placement, init_state(config, objective, optimizer, placement.shardings, batch)


def run(config: ConfigDict, objective: Objective, steps: int, devices=None, batches=None):
    """Return (state, metrics) after `steps` steps in one dispatch."""
    mesh, optimizer, placement, state = start(config, objective, devices)
    step = make_train_step(config, objective, optimizer, mesh, placement.shardings)
    batches = make_batches(config, steps) if batches is None else batches
    return step(state, jax.device_put(batches, dispatch_sharding(mesh)))
