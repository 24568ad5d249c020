"""How the parameters of one group move: Adam with coupled L2 (QualityFM's), AdamW or SGD; schedules, decay, clipping.

It sees gradients, parameters and the step; it knows no loss, no mesh and no other group.

    rule = make_rule(config.optimizer, config.train.steps)
    grads, moments = rule.remember(grads, moments, params, step, accept)
    changes = rule.change(grads, moments, params, step)
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxbio.objectives.schedule import cosine
from jaxbio.training.state import PyTree, leaf_paths

Schedule = Callable[[jax.Array], jax.Array]


class Rule(NamedTuple):
    """A whole optimiser, in two halves, so that an update can be refused by its size before a parameter moves.

    init(params) -> moments
    remember(grads, moments, params, step, accept) -> grads, moments: the gradients clipped and with coupled decay; the
        moments stay where `accept` is false.
    change(grads, moments, params, step) -> what is added to the parameters, from what `remember` returned
    schedules: name -> function of the step of the run, so that a refused update shifts nothing
    """

    init: Callable[[PyTree], PyTree]
    remember: Callable[..., tuple[PyTree, PyTree]]
    change: Callable[..., PyTree]
    schedules: Mapping[str, Schedule]


class Moments(NamedTuple):
    """How a rule remembers gradients: `init(params)`, `remember(grads, moments, accept)`, `direction(grads, moments)`.

    The direction is made from what was remembered, not beside it: one pass over each array, all of them in place.
    """

    init: Callable[[PyTree], Any]
    remember: Callable[[PyTree, Any, jax.Array], Any]
    direction: Callable[[PyTree, Any], PyTree]


def make_rule(settings: Any, steps: int) -> Rule:
    """Return the rule of the section `optimizer` for a run of `steps` steps.

    Coupled L2 adds decay x parameter to the gradient before Adam sees it (the author's, and SGD's); AdamW adds it to
    the update. Entries are clipped before the norm, which is that of all gradients the rule is given.
    """
    learning_rate = warmup(settings.learning_rate, round(settings.warmup_frac * steps), _after_warmup(settings, steps))
    weight_decay = half_cosine(steps, settings.weight_decay, settings.weight_decay_end)
    decoupled = settings.name == "adamw"
    if settings.name == "sgd":
        moments = momentum(settings.momentum, settings.nesterov)
    else:
        moments = adam(settings.b1, settings.b2, settings.eps)

    def decayed(leaves: PyTree, params: PyTree, step: jax.Array) -> PyTree:
        decay = weight_decay(step)
        return jax.tree.map(
            lambda leaf, param, decays: leaf + decay * param if decays else leaf,
            *(leaves, params, decay_mask(params, settings.decay_mask)),
        )

    def remember(grads: PyTree, kept: PyTree, params: PyTree, step: jax.Array, accept: jax.Array):
        grads = clip(grads, settings.clip_norm, settings.clip_value)
        if not decoupled:
            grads = decayed(grads, params, step)
        return grads, moments.remember(grads, kept, accept)

    def change(grads: PyTree, kept: PyTree, params: PyTree, step: jax.Array) -> PyTree:
        rate = learning_rate(step)
        direction = moments.direction(grads, kept)
        if decoupled:
            direction = decayed(direction, params, step)
        return jax.tree.map(lambda leaf: -rate * leaf, direction)

    return Rule(moments.init, remember, change, {"learning_rate": learning_rate, "weight_decay": weight_decay})


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
    return half_cosine(max(left, 1), settings.learning_rate, settings.learning_rate_end)


def half_cosine(steps: int, start: float, end: float) -> Schedule:
    """Return the half cosine from `start` at step 0 to `end` at step `steps`."""
    return lambda step: cosine(start, end, jnp.clip(step / steps, 0.0, 1.0))


def halving(start: float, every: int) -> Schedule:
    """Return `start`, halved after every `every` steps (SiamQuality's StepLR)."""
    return lambda step: start * 0.5 ** jnp.floor_divide(step, every)


def warmup(peak: float, steps: int, after: Schedule) -> Schedule:
    """Return a line that reaches `peak` after `steps` steps (the first step is not lost), then `after` from its 0."""
    return lambda step: jnp.where(step < steps, peak * (step + 1) / max(steps, 1), after(jnp.maximum(step - steps, 0)))


def decay_mask(params: PyTree, kind: str) -> PyTree:
    """Return which parameters decay: `all`, or of `matrices` those that are no bias, scale, table of places or 1-D.

    The name decides before the rank, because the biases of scanned layers are two-dimensional.
    """
    paths = leaf_paths(params)
    masks = [
        kind == "all" or (leaf.ndim > 1 and not path.endswith(("bias", "scale", "_table")))
        for path, leaf in paths.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(params), masks)


def clip(grads: PyTree, norm: float | None, value: float | None) -> PyTree:
    """Return `grads` with entries limited to `value`, then their common norm to `norm`; None limits nothing."""
    if value is not None:
        grads = jax.tree.map(partial(jnp.clip, min=-value, max=value), grads)
    if norm is None:
        return grads
    size = optax.tree.norm(grads)
    factor = jnp.where(size > norm, norm / size, 1.0)
    return jax.tree.map(lambda leaf: leaf * factor, grads)
