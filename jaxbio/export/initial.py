"""Starting a run from an export: `train.init_from`.

An objective says only how to take an encoder's variables out of (params, state). The way back is found by taking out
labels instead of arrays, so no family has to write it, unless it hands out what it first computes (`Objective.place`).

    params, state = start_from("export", objective, params, state)                           # every encoder
    params, state = start_from((("student", "A"), ("teacher", "B")), objective, params, state)    # these two
    seen = data.seen().unite(seen_before(config))
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxbio.config import families
from jaxbio.config.faults import Fault, UserError
from jaxbio.data.seen import Seen, unite_all
from jaxbio.export import folder as folders
from jaxbio.export import weights
from jaxbio.export.card import WEIGHTS, read_card
from jaxbio.export.same_input import input_faults
from jaxbio.training.program import abstract_batch


def start_from(named: str | Sequence[tuple[str, str]], objective: Any, params: Any, state: Any) -> tuple[Any, Any]:
    """Return `params` and `state` with the weights of exports in encoders of `objective`, the rest as it was.

    `named` is the value of `train.init_from`: one folder, for every encoder, or pairs (an encoder's name, a folder).

    Raises UserError where an export is not whole, or is of another family or of other shapes than the run's encoder,
    and where the objective has no encoder of that name.
    """
    for name, folder in parts_of(named, objective):
        if name not in objective.encoders:
            known = ", ".join(objective.encoders)
            raise UserError(Fault("train.init_from", name, f"the objective's encoders are {known}"))
        module, take = objective.encoders[name]
        card, _, variables = folders.read_export(folder)
        family, _ = folders.describe_encoder(module)
        if family != card.encoder:
            raise UserError(Fault("train.init_from", card.encoder, f"the run's {name} encoder is of family {family}"))
        expected = weights.flatten_tree(jax.eval_shape(take, params, state))
        weights.match_weights(weights.flatten_tree(variables), expected, str(folder))
        variables = weights.unflatten_tree(
            {path: array.astype(expected[path].dtype) for path, array in weights.flatten_tree(variables).items()}
        )
        place = objective.place or functools.partial(_place_by_labels, take)
        params, state = place(name, params, state, variables)
    return params, state


def _place_by_labels(take: Any, name: str, params: Any, state: Any, variables: Any) -> tuple[Any, Any]:
    """Return `params` and `state` with `variables` in the places that `take` takes them from."""
    leaves, structure = jax.tree.flatten((params, state))
    labels = jax.tree.unflatten(structure, list(range(len(leaves))))
    found = weights.flatten_tree(variables)
    for path, place in weights.flatten_tree(take(*labels)).items():
        leaves[place] = found[path]
    return jax.tree.unflatten(structure, leaves)


def check_start(config: ConfigDict, objective: Any) -> None:
    """Raise UserError where `train.init_from` would fail on a run of `config`, found out from shapes alone, and
    with every difference of an export's input from the run's.
    """
    cards = {folder: read_card(folder) for _, folder in parts_of(config.train.init_from, objective)}
    faults = [fault for card in cards.values() for fault in input_faults("train.init_from", card, config)]
    if faults:
        raise UserError(*faults)
    frozen = dict(objective.frozen)
    params, state = jax.eval_shape(objective.init, jax.random.key(0), abstract_batch(config), frozen)
    start_from(config.train.init_from, objective, params, state)


def parts_of(named: str | Sequence[tuple[str, str]], objective: Any) -> list[tuple[str, str]]:
    """Return pairs of an encoder's name and the export it starts from; one folder is for every encoder of its family.

    Where no encoder is, it is for all of them: what does not fit is then told.
    """
    if not isinstance(named, str):
        return list(named)
    family = read_card(named).encoder
    names = list(objective.encoders)
    own = [name for name in names if folders.describe_encoder(objective.encoders[name][0])[0] == family]
    return [(name, named) for name in own or names]


def seen_before(config: ConfigDict) -> Seen:
    """Return what the exports have seen that a fresh run starts from, or learns from as frozen networks."""
    return unite_all(folders.read_seen(folder) for folder in _exports(config))


def weights_before(config: ConfigDict) -> list[str]:
    """Return the hashes of the weights that a fresh run starts from, or learns from as frozen networks."""
    return [read_card(folder).files[WEIGHTS]["sha256"] for folder in _exports(config)]


def scales_before(config: ConfigDict) -> tuple[tuple[float, float], ...]:
    """Return how the first export that the run starts from scales its features; () where none has those of the run."""
    cards = [read_card(folder) for folder in _folders(config.train.init_from)]
    return next((card.feature_scales for card in cards if card.features == tuple(config.data.features)), ())


def _exports(config: ConfigDict) -> list[str]:
    frozen = families.OBJECTIVES[config.objective.name].frozen
    return _folders(config.train.init_from) + [config.objective[name] for name in frozen]


def _folders(named: str | Sequence[tuple[str, str]] | None) -> list[str]:
    """Return the folders that `train.init_from` names."""
    if named is None:
        return []
    return [named] if isinstance(named, str) else [folder for _, folder in named]
