"""Networks that an objective uses and does not train: read from the exports that its fields name.

    networks = read_networks(config)                       # a fresh run: weights and all
    networks = recall_networks(meta.frozen)                # a run that goes on: shapes; the checkpoint has the weights

Which fields name such a network, the family of the objective says (`config/families`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxbio.config import families
from jaxbio.config.faults import Fault, UserError
from jaxbio.export import folder as folders
from jaxbio.export.card import WEIGHTS, card_from_plain, read_card
from jaxbio.export.same_input import input_faults
from jaxbio.export.weights import unflatten_tree
from jaxbio.objectives import Network


def read_networks(config: ConfigDict) -> dict[str, Network]:
    """Return the networks that the objective of `config` asks for, by field name, with their weights.

    Raises UserError, all faults together, for a folder that is no whole export and for a network that wants another
    input than the run gives.
    """
    networks, faults = {}, []
    for name in _wanted(config):
        field = f"objective.{name}"
        try:
            card, module, variables = folders.read_export(config.objective[name])
            faults += input_faults(field, card, config)
            networks[name] = Network(module, dataclasses.asdict(card), variables)
        except UserError as error:
            faults += [Fault(field, config.objective[name], str(fault)) for fault in error.faults]
    if faults:
        raise UserError(*faults)
    return networks


def recall_networks(cards: Mapping[str, Mapping[str, Any]]) -> dict[str, Network]:
    """Return the networks that a checkpoint holds, from their cards: shapes in the place of weights."""
    networks = {}
    for name, stored in cards.items():
        card = card_from_plain(stored, f"the checkpoint's objective.{name}")
        module = folders.make_encoder(card, f"the checkpoint's objective.{name}")
        shapes = unflatten_tree(folders.expected_weights(module, card.inputs))
        networks[name] = Network(module, stored, shapes)
    return networks


def check_same_networks(cards: Mapping[str, Mapping[str, Any]], config: ConfigDict) -> None:
    """Raise UserError where a field of `config` names another network than the checkpoint's `cards` tell of.

    A folder that is not there any more is no fault: the weights are in the checkpoint.
    """
    faults = []
    for name in _wanted(config):
        path = epath.Path(config.objective[name])
        if path.exists() and read_card(path).files[WEIGHTS] != cards[name]["files"][WEIGHTS]:
            remedy = "another network than the run was started with; name that one, or use another --workdir"
            faults.append(Fault(f"objective.{name}", str(path), remedy))
    if faults:
        raise UserError(*faults)


def _wanted(config: ConfigDict) -> tuple[str, ...]:
    return families.OBJECTIVES[config.objective.name].frozen
