"""The optimiser: Adam with coupled L2 (QualityFM's), AdamW and SGD, their schedules, clipping and parameter groups.

It sees gradients, parameters and the step; it knows no loss and no mesh. Groups are ordered (regex, settings) pairs
over parameter paths, first match wins; a rule that decides nothing is an error.

    optimizer = make_optimizer(config.optimizer, config.train.steps)
    updates, opt_state = optimizer.update(grads, opt_state, params, step)
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxbio.config.faults import Fault, UserError
from jaxbio.training.state import PyTree, leaf_paths

Schedule = Callable[[jax.Array], jax.Array]


class Optimizer(NamedTuple):
    """`init(params) -> opt_state`, `update(grads, opt_state, params, step) -> updates, opt_state`, and the schedules.

    The schedules go by the step of the run, not by a count of their own, so that a refused update shifts nothing.
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[..., tuple[PyTree, PyTree]]
    schedules: Mapping[str, Schedule]


@dataclass(frozen=True)
class Group:
    """What a rule of `optimizer.groups` sets: factors of learning rate and decay, an own clipping norm, frozen."""

    learning_rate: float = 1.0
    weight_decay: float = 1.0
    clip_norm: float | None = None
    frozen: bool = False


def make_optimizer(settings: Any, steps: int) -> Optimizer:
    """Return the optimiser of the section `optimizer` for a run of `steps` steps.

    Coupled L2 adds decay x parameter to the gradient before Adam sees it (the author's, and SGD's); AdamW adds it to
    the update. `init` raises UserError when a rule of `optimizer.groups` decides nothing.
    """
    rules = tuple((pattern, Group(**dict(chosen))) for pattern, chosen in settings.groups)
    learning_rate = warmup(settings.learning_rate, round(settings.warmup_frac * steps), _after_warmup(settings, steps))
    weight_decay = cosine(settings.weight_decay, settings.weight_decay_end, steps)
    decoupled = settings.name == "adamw"

    def core(groups: PyTree) -> optax.GradientTransformation:
        if settings.name == "sgd":
            transformation = optax.trace(decay=settings.momentum, nesterov=settings.nesterov)
        else:
            transformation = optax.scale_by_adam(b1=settings.b1, b2=settings.b2, eps=settings.eps)
        return optax.masked(transformation, jax.tree.map(lambda group: not group.frozen, groups))

    def init(params: PyTree) -> PyTree:
        return core(assign_groups(params, rules)).init(params)

    def update(grads: PyTree, opt_state: PyTree, params: PyTree, step: jax.Array) -> tuple[PyTree, PyTree]:
        groups = assign_groups(params, rules)
        rate, decay = learning_rate(step), weight_decay(step)
        factors = jax.tree.map(
            lambda group, decayed: group.weight_decay * decayed, groups, decay_mask(params, settings.decay_mask)
        )
        grads = jax.tree.map(lambda group, grad: jnp.zeros_like(grad) if group.frozen else grad, groups, grads)
        grads = clip(grads, groups, settings.clip_norm, settings.clip_value)
        if not decoupled:
            grads = _add_decay(grads, params, factors, decay)
        updates, opt_state = core(groups).update(grads, opt_state, params)
        if decoupled:
            updates = _add_decay(updates, params, factors, decay)
        scales = jax.tree.map(lambda group: 0.0 if group.frozen else group.learning_rate, groups)
        return jax.tree.map(lambda scale, leaf: -rate * scale * leaf, scales, updates), opt_state

    return Optimizer(init, update, {"learning_rate": learning_rate, "weight_decay": weight_decay})


def _after_warmup(settings: Any, steps: int) -> Schedule:
    if settings.schedule == "step":
        return halving(settings.learning_rate, settings.step_every)
    left = steps - round(settings.warmup_frac * steps)
    return cosine(settings.learning_rate, settings.learning_rate_end, max(left, 1))


def cosine(start: float, end: float, steps: int) -> Schedule:
    """Return the half cosine from `start` at step 0 to `end` at step `steps` (DINO's schedule)."""

    def value(step: jax.Array) -> jax.Array:
        share = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(step / steps, 0.0, 1.0)))
        return share * start + (1 - share) * end

    return value


def halving(start: float, every: int) -> Schedule:
    """Return `start`, halved after every `every` steps (SiamQuality's StepLR)."""
    return lambda step: start * 0.5 ** jnp.floor_divide(step, every)


def warmup(peak: float, steps: int, after: Schedule) -> Schedule:
    """Return a line that reaches `peak` after `steps` steps (the first step is not lost), then `after` from its 0."""
    return lambda step: jnp.where(step < steps, peak * (step + 1) / max(steps, 1), after(jnp.maximum(step - steps, 0)))


def assign_groups(params: PyTree, rules: tuple[tuple[str, Group], ...]) -> PyTree:
    """Return the `Group` of every parameter: that of the first rule found in its path, else the plain one.

    Raises UserError for the rules that decide nothing.
    """
    chosen = [_first_match(path, rules) for path in leaf_paths(params)]
    unused = [pattern for index, (pattern, _) in enumerate(rules) if index not in chosen]
    if unused:
        known = ", ".join(list(leaf_paths(params))[:8])
        raise UserError(
            *(Fault("optimizer.groups", rule, f"no parameter is left for it; paths: {known}, ...") for rule in unused)
        )
    groups = [Group() if index is None else rules[index][1] for index in chosen]
    return jax.tree.unflatten(jax.tree.structure(params), groups)


def _first_match(path: str, rules: tuple[tuple[str, Group], ...]) -> int | None:
    return next((index for index, (pattern, _) in enumerate(rules) if re.search(pattern, path)), None)


def decay_mask(params: PyTree, kind: str) -> PyTree:
    """Return which parameters decay: `all`, or of `matrices` those that are neither bias nor scale nor 1-D.

    The name decides before the rank, because the biases of scanned layers are two-dimensional.
    """
    paths = leaf_paths(params)
    masks = [kind == "all" or (leaf.ndim > 1 and not path.endswith(("bias", "scale"))) for path, leaf in paths.items()]
    return jax.tree.unflatten(jax.tree.structure(params), masks)


def _add_decay(leaves: PyTree, params: PyTree, factors: PyTree, decay: jax.Array) -> PyTree:
    return jax.tree.map(
        lambda leaf, param, factor: leaf + decay * factor * param if factor else leaf, leaves, params, factors
    )


def clip(grads: PyTree, groups: PyTree, norm: float | None, value: float | None) -> PyTree:
    """Return `grads` with entries limited to `value`, then norms: a group's own `clip_norm`, the global one elsewhere.

    A group with a norm of its own does not count in the global norm.
    """
    if value is not None:
        grads = jax.tree.map(partial(jnp.clip, min=-value, max=value), grads)
    leaves, structure = jax.tree.flatten(grads)
    own = [group if group.clip_norm is not None else None for group in jax.tree.leaves(groups)]
    for group in dict.fromkeys(own):
        limit = norm if group is None else group.clip_norm
        if limit is None:
            continue
        members = [index for index, other in enumerate(own) if other is group]
        size = optax.tree.norm([leaves[index] for index in members])
        factor = jnp.where(size > limit, limit / size, 1.0)
        for index in members:
            leaves[index] = leaves[index] * factor
    return jax.tree.unflatten(structure, leaves)
