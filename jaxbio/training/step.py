"""The compiled step: the only place where objective, optimiser, mesh and random streams meet.

    step = make_train_step(config, objective, optimizer, mesh, placement.shardings)
    state, metrics = step(state, batches, seed)  # donates state; batches and metrics lead with the steps of a dispatch

`seed` is `train.seed`, an argument so that runs of any seed share one compiled program.

The same function serves training, planning, benchmarks and tests.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.batch import per_element
from jaxbio.models.layer_stack import STACK
from jaxbio.objectives import Aux, Objective
from jaxbio.training import sharding
from jaxbio.training.optimizer import Optimizer, put_back
from jaxbio.training.resident import Resident
from jaxbio.training.state import PyTree, State, new_state, stream_key
from jaxbio.transforms.per_row import rows_on
from jaxbio.transforms.prepare_input import Input, join_crops, prepare_crops

Batch = Mapping[str, jax.Array]


def init_state(
    config: ConfigDict,
    objective: Objective,
    optimizer: Optimizer,
    shardings: State,
    batch: Batch,
    frozen: Mapping[str, PyTree] = {},
) -> State:
    """Return the state at step 0, computed straight into `shardings`: no device holds a full unsharded copy.

    `batch` is the global batch of step 0 (a codebook may start from it), `frozen` the variables of the networks that
    the objective uses and does not train.
    """

    def start(seed: jax.Array, arrays: Batch, frozen: Mapping[str, PyTree]) -> State:
        return new_state(objective, optimizer, seed, arrays, frozen)

    return jax.jit(start, out_shardings=shardings)(np.uint32(config.train.seed), batch, dict(frozen))


def make_train_step(
    config: ConfigDict,
    objective: Objective,
    optimizer: Optimizer,
    mesh: Mesh,
    shardings: State,
    *,
    logged: bool = True,
    resident: Resident | None = None,
) -> Any:
    """Return the jitted `step(state, batches, seed) -> (state, metrics)`; `state` is donated, `seed` uint32.

    `batches` are arrays (steps_per_dispatch, B, ...) placed by `sharding.dispatch_sharding`; of a `resident` store they
    are its source, from which the batch of each step is drawn. A refused update leaves everything but the step as it
    was. The metrics are float32 (steps_per_dispatch,): `nonfinite`, 1 where an update was refused; train/loss,
    train/<term>, the optimiser's schedules; train/grad_norm, before clipping, of what is not frozen. For dispatches
    whose last step is `logged` also train/param_norm, of the parameters that gave the loss, and train/update_norm;
    whoever dispatches knows the step, so that no device asks the host which it is. Raises UserError when batch,
    microbatches and mesh do not go together.
    """
    microbatches, steps = config.train.microbatches, config.train.steps
    sharding.check_batch(mesh, config.train.batch, microbatches, per_element(config))
    if objective.coupled and microbatches > 1:
        raise UserError(
            Fault("train.microbatches", microbatches, "1: this objective's loss couples the rows of a batch")
        )

    def place_gradients(grads: PyTree) -> PyTree:
        placed = optimizer.moving(shardings.params)
        if config.mesh.moments != "zero":
            return placed
        return jax.tree.map(lambda leaf, where: sharding.scattered(where, leaf.shape), grads, placed)

    def one_step(state: State, batch: Batch, seed: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        progress = state.step.astype(jnp.float32) / steps
        whole = gather_fsdp(state, shardings)

        def loss_of(moving: PyTree, part: Batch, microbatch: jax.Array):
            keys = step_keys(seed, state.step, microbatch)
            params = put_back(moving, whole.params)
            return objective.loss(params, whole.objective_state, part, keys, progress, True)

        moving = optimizer.moving(whole.params)
        (loss, (aux, terms)), grads = mean_gradients(loss_of, moving, batch, microbatches, mesh)
        grads = jax.lax.with_sharding_constraint(grads, place_gradients(grads))
        norms = {"grad_norm": optax.tree.norm(grads)}
        if logged:
            norms["param_norm"] = optax.tree.norm(state.params)
        # The squares under grad_norm overflow before any moment does, and the objective's new state follows from
        # parameters and aux: with these finite the whole update is.
        accept = _all_finite((loss, norms, aux))
        params, opt_state, update_norm = optimizer.update(
            grads, state.opt_state, state.params, state.step, accept, measured=logged
        )
        if update_norm is not None:
            norms["update_norm"] = update_norm
            accept &= jnp.isfinite(update_norm)
        update_key = jax.random.fold_in(stream_key(seed, "update"), state.step)
        moved, update_terms = objective.update(params, state.objective_state, aux, update_key, progress)
        objective_state = jax.tree.map(lambda new, old: jnp.where(accept, new, old), moved, state.objective_state)
        metrics = {
            "loss": loss,
            **terms,
            **update_terms,
            **norms,
            **{name: schedule(state.step) for name, schedule in optimizer.schedules.items()},
        }
        reported = {f"train/{name}": jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
        reported["nonfinite"] = 1.0 - accept.astype(jnp.float32)
        state = State(state.step + 1, params, opt_state, objective_state)
        return jax.lax.with_sharding_constraint(state, shardings), reported

    def dispatch(state: State, batches: Any, seed: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        length = config.train.steps_per_dispatch if resident else jax.tree.leaves(batches)[0].shape[0]
        single = length == 1  # a loop of one iteration would only cost fusions
        with rows_on(mesh):
            if resident is None:
                return jax.lax.scan(
                    lambda state, batch: one_step(state, batch, seed), state, dict(batches), unroll=single
                )
            return jax.lax.scan(
                lambda state, _: one_step(state, resident.fetch(batches, state.step), seed),
                state,
                length=length,
                unroll=single,
            )

    return jax.jit(
        dispatch,
        in_shardings=(
            shardings,
            resident.shardings if resident else sharding.dispatch_sharding(mesh),
            sharding.replicated(mesh),
        ),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )


def make_eval_step(config: ConfigDict, objective: Objective, mesh: Mesh, shardings: State) -> Any:
    """Return the jitted `evaluate(state, batch, seed) -> (metrics, features, outputs)` of one held-out batch.

    Metrics are the loss and its terms without dropout and under keys that no step changes, so that two evaluations
    differ by the state alone; of cropped segments it is the loss of the middle. Features are, for each of the
    objective's encoders, float32 (B, D): the mean over tokens and crops of the better member, unaugmented; outputs are
    the objective's own, by row. All are replicated, so that every host can read them.
    """
    steps, inputs = config.train.steps, Input.of(config)

    def evaluate(state: State, batch: Batch, seed: jax.Array) -> tuple[dict[str, jax.Array], ...]:
        progress = state.step.astype(jnp.float32) / steps
        state = gather_fsdp(state, shardings)
        keys = {name: stream_key(seed, f"eval_{name}") for name in ("augment", "dropout")}
        with rows_on(mesh):
            loss, (_, terms) = objective.loss(state.params, state.objective_state, batch, keys, progress, False)
            x_BCT = prepare_crops(batch["segment_BMCT"][:, 0], batch["scale_BMC2"][:, 0], inputs)
            features = {
                name: pool(module, variables(state.params, state.objective_state), x_BCT, inputs.crops)
                for name, (module, variables) in objective.encoders.items()
            }
            outputs = {} if objective.outputs is None else objective.outputs(state.params, state.objective_state, batch)
        return {"loss": loss, **terms}, features, dict(outputs)

    return jax.jit(
        evaluate,
        in_shardings=(shardings, sharding.batch_sharding(mesh), sharding.replicated(mesh)),
        out_shardings=sharding.replicated(mesh),
    )


def seeded(step: Any, config: ConfigDict, mesh: Mesh) -> Callable[[State, Any], Any]:
    """Return a training or evaluation step as a function of state and arrays: the seed is put on the devices once."""
    seed = np.asarray(config.train.seed, np.uint32)
    placed = jax.make_array_from_callback((), sharding.replicated(mesh), lambda index: seed[index])
    return lambda state, arrays: step(state, arrays, placed)


def pool(module: nn.Module, variables: PyTree, x_BCT: jax.Array, crops: int) -> jax.Array:
    """Return the mean over tokens and crops of an encoder's output, float32 (segments, D).

    `x_BCT` are the crops of the segments as `prepare_crops` gives them.
    """
    tok_BLD: Any = module.apply(variables, x_BCT)
    return join_crops(tok_BLD.astype(jnp.float32), crops).mean(axis=1)


def step_keys(seed: int | jax.Array, step: jax.Array, microbatch: jax.Array) -> dict[str, jax.Array]:
    """Return the keys of a step: `augment` by step (the objective folds in the row), `dropout` by microbatch too."""
    return {
        "augment": jax.random.fold_in(stream_key(seed, "augment"), step),
        "dropout": jax.random.fold_in(jax.random.fold_in(stream_key(seed, "dropout"), step), microbatch),
    }


def gather_fsdp(state: State, shardings: State) -> State:
    """Return `state` with parameters and objective state whole along fsdp, as the loss wants them, but for the layers
    of a stack, which gathers them itself, one after another.

    Left to itself the partitioner splits activations by the parameters' axes instead, and ends the process on a
    convolution whose kernel is split that way (XLA's convolution_handler, jax 0.10.2). The barrier keeps it from doing
    the same by the axis of the moments where several bfloat16 steps are one dispatch: two and a half times the gathers.
    """

    def whole(path: Any, leaf: jax.Array, placed: NamedSharding) -> jax.Array:
        by_layer = STACK in jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        if by_layer and not sharding.splits(placed, 0, "fsdp"):
            return jax.lax.with_sharding_constraint(leaf, placed)
        return jax.lax.with_sharding_constraint(leaf, sharding.without_axis(placed, "fsdp"))

    parts = (state.params, state.objective_state), (shardings.params, shardings.objective_state)
    params, objective_state = jax.lax.optimization_barrier(jax.tree_util.tree_map_with_path(whole, *parts))
    return replace(state, params=params, objective_state=objective_state)


def mean_gradients(
    loss_of: Callable, params: PyTree, batch: Batch, microbatches: int, mesh: Mesh, unroll: bool = False
) -> tuple[tuple[jax.Array, Any], PyTree]:
    """Return ((loss, (aux, metrics)), gradients) of `loss_of(params, batch, microbatch)` over `microbatches` parts.

    All are means over the parts but the samples of aux, which are put together in the order of the batch. Part g holds
    the rows g, g + G, ...: a reshape and a swap that leave every row on its device, where contiguous parts would gather
    the batch on all of them.
    """
    gradient = jax.value_and_grad(loss_of, has_aux=True)
    if microbatches == 1:
        return gradient(params, batch, jnp.zeros((), jnp.int32))

    def split(array: jax.Array) -> jax.Array:
        parts = array.reshape(-1, microbatches, *array.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(parts, sharding.dispatch_sharding(mesh))

    def join(parts: jax.Array) -> jax.Array:
        rows = parts.swapaxes(0, 1).reshape(-1, *parts.shape[2:])
        return jax.lax.with_sharding_constraint(rows, sharding.batch_sharding(mesh))

    def one_part(part: tuple[jax.Array, Batch]) -> tuple[PyTree, PyTree]:
        (loss, (aux, metrics)), grads = gradient(params, part[1], part[0])
        return (loss, aux.means, metrics, grads), aux.samples

    def add(total: PyTree, part: tuple[jax.Array, Batch]) -> tuple[PyTree, PyTree]:
        means, samples = one_part(part)
        return jax.tree.map(jnp.add, total, means), samples

    parts = (jnp.arange(microbatches), jax.tree.map(split, dict(batch)))
    one = jax.tree.map(lambda array: array[0], parts)
    empty = jax.tree.map(jnp.zeros_like, jax.eval_shape(one_part, one)[0])
    total, samples = jax.lax.scan(add, empty, parts, unroll=unroll)
    loss, means, metrics, grads = jax.tree.map(lambda leaf: leaf / microbatches, total)
    return (loss, (Aux(means, jax.tree.map(join, samples)), metrics)), grads


def _all_finite(tree: PyTree) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
