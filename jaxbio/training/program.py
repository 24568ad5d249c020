"""A run's compiled program: mesh, placement, training and evaluation step, built and compiled before the first batch.

program = build_program(config, make_objective(config))
state, metrics = program.train_step(state, batches)            # a dispatch that ends in a logged step
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxbio.config.batch_scaling import at_batch
from jaxbio.data.batch import ArraySpec, batch_spec, held_out_spec, per_element
from jaxbio.objectives import Network, Objective
from jaxbio.training import memory, performance, sharding
from jaxbio.training.compile_cache import CacheUse
from jaxbio.training.optimizer import Optimizer, make_optimizer
from jaxbio.training.resident import Resident
from jaxbio.training.sharding import Placement, place_state
from jaxbio.training.state import State, abstract_state
from jaxbio.training.step import Batch, init_state, make_eval_step, make_train_step, seeded

log = logging.getLogger(__name__)

PlanData = Callable[[Mesh], Resident | None]


@dataclass(frozen=True)
class Layout:
    """Where a run's state lies: mesh, optimizer, the table of placement, and the state as shapes with shardings; and
    its data, where the devices hold them.
    """

    mesh: Mesh
    optimizer: Optimizer
    placement: Placement
    abstract: State
    resident: Resident | None = None

    def explaining_memory(self, config: ConfigDict, objective: Objective) -> AbstractContextManager[None]:
        """Return the context in which want of memory is the user's fault, with what to lower."""
        state_bytes, memory_bytes = self.placement.bytes_per_device, performance.memory_of(self.mesh.local_devices)
        resident_bytes = self.resident.bytes_per_device if self.resident else 0
        return memory.explaining_memory(
            config, self.mesh.shape, objective.coupled, state_bytes, resident_bytes, memory_bytes
        )


@dataclass(frozen=True, kw_only=True)
class Program(Layout):
    """What runs on the devices: the layout of a run, and the steps that are compiled for it.

    `train_step`, which takes the arrays of a dispatch, is for dispatches that end in a logged step; `unlogged_step` is
    the same without the norms that only a log line has, and the same program where every dispatch is logged. `networks`
    are those that the objective uses and does not train, by name. `flops` are those of the model for one step (None:
    unknown), `temporaries_bytes` what the training step holds of a device beside its arguments and results (None: the
    compiler does not say), `compile_s` the seconds that compilation took.
    """

    config: ConfigDict
    objective: Objective
    networks: Mapping[str, Network]
    train_step: Any
    unlogged_step: Any
    eval_step: Any
    flops: float | None
    temporaries_bytes: int | None
    compile_s: float

    @property
    def bytes_by_part(self) -> dict[str, int | None]:
        """Bytes that one device holds: parts of the state, data that lie at the devices, temporaries of a step."""
        resident_bytes = self.resident.bytes_per_device if self.resident else 0
        return self.placement.bytes_by_part | {"resident": resident_bytes, "temporaries": self.temporaries_bytes}

    def init(self, batches: Mapping[str, Any]) -> State:
        """Return the state at step 0; `batches` are the arrays of the first dispatch."""
        first = first_batch(batches, self.mesh, self.resident)
        frozen = {name: network.variables for name, network in self.networks.items()}
        return init_state(self.config, self.objective, self.optimizer, self.placement.shardings, first, frozen)


def first_batch(arrays: Mapping[str, Any], mesh: Mesh, resident: Resident | None) -> Batch:
    """Return the global batch of step 0 from the arrays of the first dispatch."""

    def first(arrays: Mapping[str, Any]) -> Batch:
        if resident is not None:
            return resident.fetch(arrays, jnp.zeros((), jnp.int32))
        return {name: array[0] for name, array in arrays.items()}

    return jax.jit(first, out_shardings=sharding.batch_sharding(mesh))(dict(arrays))


def build_program(
    config: ConfigDict,
    objective: Objective,
    *,
    networks: Mapping[str, Network] = {},
    devices: Sequence[jax.Device] | None = None,
    flops: float | None = None,
    plan_data: PlanData | None = None,
) -> Program:
    """Return the compiled program of `config` on `devices` (None: all); `networks` are those `objective` was made with.

    `plan_data(mesh)` says how the devices hold the data of the run, or None where they do not. Raises UserError when
    mesh, rules, optimizer groups or batch do not go with the model or the devices, and when these do not hold the data.
    """
    layout = lay_out(config, objective, devices, plan_data)
    if layout.resident is not None:
        layout.resident.check_fits(layout.placement.bytes_per_device, performance.memory_of(layout.mesh.local_devices))

    started = time.monotonic()
    with CacheUse() as use, layout.explaining_memory(config, objective):
        compiled = lower_train_step(config, objective, layout).compile()
        train_step = unlogged_step = seeded(compiled, config, layout.mesh)
        if config.log.every_steps > config.train.steps_per_dispatch:
            unlogged = lower_train_step(config, objective, layout, logged=False).compile()
            unlogged_step = seeded(unlogged, config, layout.mesh)
        eval_step = seeded(lower_eval_step(config, objective, layout).compile(), config, layout.mesh)
    compile_s = time.monotonic() - started
    planned = "unknown" if flops is None else f"{flops / 1e9:.2f} GFLOP"
    log.info("compiled in %.1f s (%s); a step of %d pairs: %s", compile_s, use.summary(), config.train.batch, planned)
    stated = compiled.memory_analysis()
    return Program(
        **vars(layout),
        config=config,
        objective=objective,
        networks=networks,
        train_step=train_step,
        unlogged_step=unlogged_step,
        eval_step=eval_step,
        flops=flops,
        temporaries_bytes=None if stated is None else stated.temp_size_in_bytes,
        compile_s=compile_s,
    )


def lay_out(
    config: ConfigDict,
    objective: Objective,
    devices: Sequence[jax.Device] | None = None,
    plan_data: PlanData | None = None,
) -> Layout:
    """Return where the state of `config` lies on `devices` (None: all); they may be described rather than there.

    Raises UserError as `build_program` does, but for want of memory.
    """
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    log.info("devices: %d x %s, mesh %s", mesh.devices.size, mesh.devices.flat[0].device_kind, dict(mesh.shape))
    sharding.check_batch(mesh, config.train.batch, config.train.microbatches, per_element(config))
    optimizer = make_optimizer(at_batch(config).optimizer, config.train.steps, objective.rate_scale)
    abstract = abstract_state(objective, optimizer, batch_spec(config))
    placement = place_state(abstract, mesh, config.mesh.rules, config.mesh.moments)
    abstract = jax.tree.map(
        lambda leaf, placed: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed),
        abstract,
        placement.shardings,
    )
    log.info("parameters and their placement:\n%s", placement.table())
    return Layout(mesh, optimizer, placement, abstract, None if plan_data is None else plan_data(mesh))


def lower_train_step(config: ConfigDict, objective: Objective, layout: Layout, *, logged: bool = True) -> Any:
    """Return the training step lowered for the devices of `layout`, to be compiled; see `make_train_step`."""
    mesh, resident = layout.mesh, layout.resident
    dispatch: Mapping[str, Any] = (
        abstract_batch(config, sharding.dispatch_sharding(mesh), (config.train.steps_per_dispatch,))
        if resident is None
        else resident.abstract
    )
    step = make_train_step(
        config, objective, layout.optimizer, mesh, layout.placement.shardings, logged=logged, resident=resident
    )
    return step.lower(layout.abstract, dispatch, _abstract_seed(mesh))


def lower_eval_step(config: ConfigDict, objective: Objective, layout: Layout) -> Any:
    """Return the evaluation step lowered for the devices of `layout`, to be compiled."""
    batch = _abstract(held_out_spec(config), sharding.batch_sharding(layout.mesh))
    step = make_eval_step(config, objective, layout.mesh, layout.placement.shardings)
    return step.lower(layout.abstract, batch, _abstract_seed(layout.mesh))


def _abstract_seed(mesh: Mesh) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), np.uint32, sharding=sharding.replicated(mesh))


def abstract_batch(
    config: ConfigDict, placed: jax.sharding.Sharding | None = None, lead: tuple[int, ...] = ()
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return one global batch as shapes, `placed` where that is said; `lead` are axes before the batch's own."""
    return _abstract(batch_spec(config), placed, lead)


def _abstract(
    spec: Mapping[str, ArraySpec], placed: jax.sharding.Sharding | None, lead: tuple[int, ...] = ()
) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct((*lead, *array.shape), array.dtype, sharding=placed) for name, array in spec.items()
    }
