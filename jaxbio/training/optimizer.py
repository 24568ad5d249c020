"""The optimiser: Adam with coupled L2 (QualityFM's), AdamW and SGD, their schedules, clipping and parameter groups.

It sees gradients, parameters and the step; it knows no loss and no mesh. Groups are ordered (regex, settings) pairs
over parameter paths, first match wins; a rule that decides nothing is an error.

    optimizer = make_optimizer(config.optimizer, config.train.steps)
    params, opt_state, update_norm = optimizer.update(grads, opt_state, params, step, accept, measured)
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
    """An update rule with its schedules, which go by the step of the run, so that a refused update shifts nothing.

    init(params) -> opt_state
    update(grads, opt_state, params, step, accept, measured) -> params, opt_state, update_norm: where `accept` is false
        or the update is not finite, parameters stay, and so do the moments where `accept` is false; `update_norm` is
        NaN where it is not `measured`, because it costs as much as the update.
    schedules: name -> function of the step, reported as metrics
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[..., tuple[PyTree, PyTree, jax.Array]]
    schedules: Mapping[str, Schedule]


class Moments(NamedTuple):
    """How a rule remembers gradients: `init(params)`, `remember(grads, moments, accept)`, `direction(grads, moments)`.

    The direction is made from what was remembered, not beside it: one pass over each array, all of them in place.
    """

    init: Callable[[PyTree], Any]
    remember: Callable[[PyTree, Any, jax.Array], Any]
    direction: Callable[[PyTree, Any], PyTree]


@dataclass(frozen=True, eq=False)
class Group:
    """What a rule of `optimizer.groups` sets: factors of learning rate and decay, an own clipping norm, frozen.

    Two rules of equal settings stay two groups.
    """

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
    if settings.name == "sgd":
        moments = momentum(settings.momentum, settings.nesterov)
    else:
        moments = adam(settings.b1, settings.b2, settings.eps)

    def init(params: PyTree) -> PyTree:
        return moments.init(without_frozen(params, assign_groups(params, rules)))

    def update(grads, opt_state, params, step, accept, measured):
        every_group = assign_groups(params, rules)
        groups, moving, grads = (without_frozen(tree, every_group) for tree in (every_group, params, grads))
        rate, decay = learning_rate(step), weight_decay(step)
        factors = jax.tree.map(
            lambda group, decayed: group.weight_decay * decayed, groups, decay_mask(moving, settings.decay_mask)
        )
        grads = clip(grads, groups, settings.clip_norm, settings.clip_value)
        if not decoupled:
            grads = _add_decay(grads, moving, factors, decay)
        opt_state = moments.remember(grads, opt_state, accept)

        def updates(moving: PyTree, opt_state: PyTree, grads: PyTree) -> PyTree:
            direction = moments.direction(grads, opt_state)
            if decoupled:
                direction = _add_decay(direction, moving, factors, decay)
            return jax.tree.map(lambda group, leaf: -rate * group.learning_rate * leaf, groups, direction)

        norm = jax.lax.cond(
            measured,
            lambda *trees: optax.tree.norm(updates(*trees)),
            lambda *_: jnp.zeros((), jnp.float32),
            *(moving, opt_state, grads),
        )
        accept &= jnp.isfinite(norm)  # it also orders the norm before the parameters change in place: no copy of them
        moved = jax.tree.map(
            lambda param, change: jnp.where(accept, param + change, param),
            moving,
            updates(moving, opt_state, grads),
        )
        return _with_frozen(moved, params, every_group), opt_state, jnp.where(measured, norm, jnp.nan)

    return Optimizer(init, update, {"learning_rate": learning_rate, "weight_decay": weight_decay})


def adam(b1: float, b2: float, eps: float) -> Moments:
    """Return Adam's moments with bias correction (Kingma and Ba 2015, algorithm 1)."""

    def init(params: PyTree) -> optax.ScaleByAdamState:
        mu, nu = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), mu, nu)

    def remember(grads: PyTree, moments: optax.ScaleByAdamState, accept: jax.Array) -> optax.ScaleByAdamState:
        def mean(decay: float, old: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.where(accept, decay * old + (1 - decay) * new, old)

        return optax.ScaleByAdamState(
            moments.count + accept,
            jax.tree.map(lambda old, grad: mean(b1, old, grad), moments.mu, grads),
            jax.tree.map(lambda old, grad: mean(b2, old, grad * grad), moments.nu, grads),
        )

    def direction(grads: PyTree, moments: optax.ScaleByAdamState) -> PyTree:
        first, second = (1 - decay ** moments.count.astype(jnp.float32) for decay in (b1, b2))
        return jax.tree.map(lambda mu, nu: mu / first / (jnp.sqrt(nu / second) + eps), moments.mu, moments.nu)

    return Moments(init, remember, direction)


def momentum(decay: float, nesterov: bool) -> Moments:
    """Return the sum of past gradients, each step's weighed `decay` less; Nesterov looks one step ahead."""

    def init(params: PyTree) -> optax.TraceState:
        return optax.TraceState(jax.tree.map(jnp.zeros_like, params))

    def remember(grads: PyTree, moments: optax.TraceState, accept: jax.Array) -> optax.TraceState:
        return optax.TraceState(
            jax.tree.map(lambda old, grad: jnp.where(accept, decay * old + grad, old), moments.trace, grads)
        )

    def direction(grads: PyTree, moments: optax.TraceState) -> PyTree:
        if not nesterov:
            return moments.trace
        return jax.tree.map(lambda trace, grad: grad + decay * trace, moments.trace, grads)

    return Moments(init, remember, direction)


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


def without_frozen(tree: PyTree, groups: PyTree) -> PyTree:
    """Return `tree` with None, which holds no leaf, where the group is frozen."""
    return jax.tree.map(lambda group, leaf: None if group.frozen else leaf, groups, tree)


def _with_frozen(moved: PyTree, params: PyTree, groups: PyTree) -> PyTree:
    return jax.tree.map(lambda group, param, leaf: param if group.frozen else leaf, groups, params, moved)


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
