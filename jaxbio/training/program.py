"""A run's compiled program: mesh, placement, training and evaluation step, built and compiled before the first batch.

program = build_program(config, make_objective(config))
state, metrics = program.train_step(state, batches)
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxbio.objectives import Objective
from jaxbio.training import sharding
from jaxbio.training.optimizer import Optimizer, make_optimizer
from jaxbio.training.sharding import Placement, place_state
from jaxbio.training.state import State, abstract_state, batch_shapes
from jaxbio.training.step import Batch, init_state, make_eval_step, make_train_step

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Program:
    """What runs on the devices: `abstract` is the state as shapes with shardings, the two steps are compiled.

    `flops` are those of the model for one step (None: unknown), `compile_s` the seconds that compilation took.
    """

    config: ConfigDict
    objective: Objective
    optimizer: Optimizer
    mesh: Mesh
    placement: Placement
    abstract: State
    train_step: Any
    eval_step: Any
    flops: float | None
    compile_s: float

    def init(self, batches: Batch) -> State:
        """Return the state at step 0; `batches` are those of the first dispatch."""
        first = jax.jit(
            lambda arrays: {name: array[0] for name, array in arrays.items()},
            out_shardings=sharding.batch_sharding(self.mesh),
        )(dict(batches))
        return init_state(self.config, self.objective, self.optimizer, self.placement.shardings, first)


def build_program(
    config: ConfigDict,
    objective: Objective,
    *,
    devices: Sequence[jax.Device] | None = None,
    flops: float | None = None,
) -> Program:
    """Return the compiled program of `config` on `devices` (None: all).

    Raises UserError when mesh, rules, optimizer groups or batch do not go with the model or the devices.
    """
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    log.info("devices: %d x %s, mesh %s", mesh.devices.size, mesh.devices.flat[0].device_kind, dict(mesh.shape))
    sharding.check_batch(mesh, config.train.batch, config.train.microbatches)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    shapes = batch_shapes(config)
    abstract = abstract_state(config, objective, optimizer, shapes)
    placement = place_state(abstract, mesh, config.mesh.rules, config.mesh.moments)
    abstract = jax.tree.map(
        lambda leaf, placed: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed),
        abstract,
        placement.shardings,
    )
    log.info("parameters and their placement:\n%s", placement.table())
    started = time.monotonic()
    batch = _placed(shapes, sharding.batch_sharding(mesh))
    dispatch = {
        name: jax.ShapeDtypeStruct((config.train.steps_per_dispatch, *shape.shape), shape.dtype)
        for name, shape in shapes.items()
    }
    train_step = make_train_step(config, objective, optimizer, mesh, placement.shardings)
    eval_step = make_eval_step(config, objective, mesh, placement.shardings)
    train_step = train_step.lower(abstract, _placed(dispatch, sharding.dispatch_sharding(mesh))).compile()
    eval_step = eval_step.lower(abstract, batch).compile()
    compile_s = time.monotonic() - started
    planned = "unknown" if flops is None else f"{flops / 1e9:.2f} GFLOP"
    log.info("compiled in %.1f s; a step of %d pairs: %s", compile_s, config.train.batch, planned)
    return Program(config, objective, optimizer, mesh, placement, abstract, train_step, eval_step, flops, compile_s)


def _placed(shapes: dict[str, jax.ShapeDtypeStruct], placed: jax.sharding.Sharding) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed) for name, leaf in shapes.items()}
