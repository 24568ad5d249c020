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
from jaxbio.data.batch import batch_spec, random_batch
from jaxbio.objectives import Aux, Objective
from jaxbio.training.optimizer import make_optimizer
from jaxbio.training.sharding import dispatch_sharding, make_mesh, place_state
from jaxbio.training.state import abstract_state
from jaxbio.training.step import init_state, make_train_step, seeded

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

    def init(key, batch, frozen):
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
            Aux({"centre": teacher_BLD.mean(axis=0, keepdims=True)}),
            {"distance": distance, "size": size},
        )

    def update(params, state, aux, key, progress):
        momentum = 0.9 + 0.1 * progress
        teacher = jax.tree.map(
            lambda old, new: momentum * old + (1 - momentum) * new, state["teacher"]["encoder"], params["encoder"]
        )
        return {"teacher": {"encoder": teacher}, "centre": 0.9 * state["centre"] + 0.1 * aux.means["centre"]}, {}

    def teacher_variables(params, state):
        return {"params": state["teacher"]["encoder"]}

    return Objective(init, loss, update, {"teacher": (module, teacher_variables)}, coupled=coupled)


def linear_config(**changes: Any) -> ConfigDict:
    """Return the configuration of such a run; `changes` with two underscores for a dot."""
    settings = {
        "data.rate_hz": 1.0,
        "data.segment_s": float(SAMPLES),
        "train.batch": 32,
        "train.steps": 20,
        "log.every_steps": 1,
        "optimizer.learning_rate": 1e-2,
        "optimizer.warmup_frac": 0.0,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    return fields.change(fields.defaults(), settings)


def make_batches(config: ConfigDict, steps: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return seeded arrays (steps, B, ...) as the loader delivers them; a step's do not depend on how many follow."""
    each = [_make_batch(config, np.random.default_rng([seed, step])) for step in range(steps)]
    return {name: np.stack([batch[name] for batch in each]) for name in each[0]}


def _make_batch(config: ConfigDict, rng: np.random.Generator) -> dict[str, np.ndarray]:
    spec = batch_spec(config)
    segment, row = (spec[name].shape for name in ("segment_BMCT", "row_BM"))
    drawn = {
        "segment_BMCT": rng.normal(0.0, 8000.0, segment).clip(-32767, 32767),
        "row_BM": rng.permutation(10 * row[0])[: row[0] * row[1]].reshape(row),
    }
    return random_batch(config, rng) | {name: array.astype(spec[name].dtype) for name, array in drawn.items()}


def start(config: ConfigDict, objective: Objective, devices=None, frozen=None):
    """Return (mesh, optimizer, placement, state) of a run of `config` on `devices`; `frozen` weights by name."""
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    batch = {name: array[0] for name, array in make_batches(config, 1).items()}
    abstract = abstract_state(objective, optimizer, batch)
    placement = place_state(abstract, mesh, config.mesh.rules, config.mesh.moments)
    return (
        mesh,
        optimizer,
        placement,
        init_state(config, objective, optimizer, placement.shardings, batch, frozen or {}),
    )


def walk(config: ConfigDict, objective: Objective, steps: int, devices=None, logged: bool = True):
    """Yield (state, metrics) after each of `steps` dispatches of one step; states are copies on the host."""
    mesh, optimizer, placement, state = start(config, objective, devices)
    step = seeded(make_train_step(config, objective, optimizer, mesh, placement.shardings, logged=logged), config, mesh)
    yield from walk_with(step, state, jax.device_put(make_batches(config, steps), dispatch_sharding(mesh)))


def walk_with(step, state, batches):
    """Yield (state, metrics) after each dispatch of one of `batches`, as `walk` does."""
    for index in range(len(batches["row_BM"])):
        state, metrics = step(state, {name: array[index : index + 1] for name, array in batches.items()})
        yield jax.tree.map(np.array, state), {name: float(values[0]) for name, values in metrics.items()}


def run(config: ConfigDict, objective: Objective, steps: int, devices=None, batches=None):
    """Return (state, metrics) after `steps` steps in one dispatch."""
    mesh, optimizer, placement, state = start(config, objective, devices)
    step = seeded(make_train_step(config, objective, optimizer, mesh, placement.shardings), config, mesh)
    batches = make_batches(config, steps) if batches is None else batches
    return step(state, jax.device_put(batches, dispatch_sharding(mesh)))
