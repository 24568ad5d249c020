"""The optimiser of a run: which rule moves which parameters, and which are frozen.

`optimizer.groups` are ordered (regex, changes) pairs over parameter paths, first match wins. A group is a whole
optimiser: the section `optimizer` with its changes, its own moments, schedules and clipping. Parameters of no group
follow the section as it stands. What is frozen has no moments, and no gradient is computed for it.

    optimizer = make_optimizer(config.optimizer, config.train.steps)
    grads = jax.grad(lambda moving: objective.loss(put_back(moving, params), ...))(optimizer.moving(params))
    params, opt_state, update_norm = optimizer.update(grads, opt_state, params, step, accept, measured=True)
"""

import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxbio.config.faults import Fault, UserError
from jaxbio.training.state import PyTree, leaf_paths
from jaxbio.training.update_rule import Schedule, make_rule

PLAIN, FROZEN = "plain", "frozen"


class Optimizer(NamedTuple):
    """The rules of all groups as one.

    moving(tree) -> `tree`, in the shape of the parameters, with None (no leaf) in the place of what is frozen
    init(params) -> opt_state; raises UserError when a group is left no parameter, or nothing moves.
    update(grads, opt_state, params, step, accept, measured) -> params, opt_state, update_norm: `grads` are those of
        `moving(params)`. Where `accept` is false, parameters and moments stay. The norm of the update costs as much as
        the update: it is None unless the Python bool `measured` is true, and then parameters stay where it is not
        finite, too.
    schedules: name -> function of the step, reported as metrics; those of `optimizer.groups[1]` end in `_group_1`
    """

    moving: Callable[[PyTree], PyTree]
    init: Callable[[PyTree], PyTree]
    update: Callable[..., tuple[PyTree, PyTree, jax.Array | None]]
    schedules: Mapping[str, Schedule]


def make_optimizer(settings: Any, steps: int, rate_scale: Callable[[PyTree], PyTree] | None = None) -> Optimizer:
    """Return the optimiser of the section `optimizer` for a run of `steps` steps.

    `rate_scale(params)` is what the learning rate of each parameter is multiplied by (`Objective.rate_scale`); None: 1.
    """
    patterns = tuple(pattern for pattern, _ in settings.groups)
    owners = tuple(_owner(place, changes) for place, (_, changes) in enumerate(settings.groups))
    rules = {PLAIN: make_rule(settings, steps)}
    for owner, (_, changes) in zip(owners, settings.groups):
        if owner != FROZEN:
            rules[owner] = make_rule(SimpleNamespace(**{**settings, **changes}), steps)

    def assign(tree: PyTree) -> PyTree:
        return assign_owners(tree, patterns, owners)

    def moving(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda owner, leaf: None if owner == FROZEN else leaf, assign(tree), tree)

    def init(params: PyTree) -> PyTree:
        owner_of = assign(params)
        if all(owner == FROZEN for owner in jax.tree.leaves(owner_of)):
            raise UserError(Fault("optimizer.groups", list(patterns), "every parameter is frozen: leave some to train"))
        return _join({name: rule.init(_part(params, owner_of, name)) for name, rule in rules.items()})

    def update(grads, opt_state, params, step, accept, measured: bool):
        owner_of, kept, changes = assign(params), _split(opt_state, rules), {}
        for name, rule in rules.items():
            own_grads, own_params = _part(grads, owner_of, name), _part(params, owner_of, name)
            own_grads, kept[name] = rule.remember(own_grads, kept[name], own_params, step, accept)
            changes[name] = rule.change(own_grads, kept[name], own_params, step)
        change = _merge(changes, owner_of)
        if rate_scale is not None:
            scale = rate_scale(params)
            change = jax.tree.map(lambda factor, added: None if added is None else factor * added, scale, change)
        update_norm = optax.tree.norm(change) if measured else None
        if update_norm is not None:
            accept &= jnp.isfinite(update_norm)
        moved = jax.tree.map(
            lambda param, added: param if added is None else jnp.where(accept, param + added, param), params, change
        )
        return moved, _join(kept), update_norm

    schedules = {
        name if owner == PLAIN else f"{name}_{owner}": schedule
        for owner, rule in rules.items()
        for name, schedule in rule.schedules.items()
    }
    return Optimizer(moving, init, update, schedules)


def put_back(moving: PyTree, params: PyTree) -> PyTree:
    """Return `params` with the leaves of `moving`, which has None elsewhere, in their places."""
    return jax.tree.map(lambda old, new: old if new is None else new, params, moving)


def assign_owners(params: PyTree, patterns: tuple[str, ...], owners: tuple[str, ...]) -> PyTree:
    """Return whose every parameter is: the owner of the first pattern found in its path, else PLAIN.

    Raises UserError for the patterns that decide nothing.
    """
    paths = leaf_paths(params)
    chosen = [_first_match(path, patterns) for path in paths]
    unused = [pattern for place, pattern in enumerate(patterns) if place not in chosen]
    if unused:
        known = ", ".join(list(paths)[:8])
        raise UserError(
            *(Fault("optimizer.groups", rule, f"no parameter is left for it; paths: {known}, ...") for rule in unused)
        )
    named = [PLAIN if place is None else owners[place] for place in chosen]
    return jax.tree.unflatten(jax.tree.structure(params), named)


def _owner(place: int, changes: Mapping[str, Any]) -> str:
    return FROZEN if "frozen" in changes else f"group_{place}"


def _first_match(path: str, patterns: tuple[str, ...]) -> int | None:
    return next((place for place, pattern in enumerate(patterns) if re.search(pattern, path)), None)


def _part(tree: PyTree, owner_of: PyTree, name: str) -> PyTree:
    """Return the leaves of `tree` that are `name`'s, None in the place of the others."""
    return jax.tree.map(lambda owner, leaf: leaf if owner == name else None, owner_of, tree)


def _merge(parts: Mapping[str, PyTree], owner_of: PyTree) -> PyTree:
    """Return the tree whose parts these are; None where nobody's part has a leaf."""
    names = list(parts)
    return jax.tree.map(
        lambda owner, *leaves: leaves[names.index(owner)] if owner in parts else None, owner_of, *parts.values()
    )


def _join(moments: dict[str, PyTree]) -> PyTree:
    """Return the moments of all rules as one state: those of a lone rule as they are, as before there were groups."""
    return moments if len(moments) > 1 else moments[PLAIN]


def _split(opt_state: PyTree, rules: Mapping[str, Any]) -> dict[str, PyTree]:
    """Return what `_join` joined, by rule."""
    return dict(opt_state) if len(rules) > 1 else {PLAIN: opt_state}
