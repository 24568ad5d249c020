"""Validation of a whole configuration, once, before a device is touched: every fault together.

    config = resolve(load_recipe("configs/quickstart.py"))

What only a machine or a store can tell (devices that a mesh needs, pairs that a batch needs) is checked by the room
that learns it, with the same kind of error.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxbio.config import families, fields
from jaxbio.config.between_fields import faults_between
from jaxbio.config.faults import Fault, UserError
from jaxbio.config.single_fields import faults_of_fields


def resolve(config: ConfigDict) -> ConfigDict:
    """Return `config` with lists as tuples and whole numbers of float fields as floats.

    Raises UserError with every fault, each naming field, value and remedy.
    """
    faults = find_faults(config)
    if faults:
        raise UserError(*faults)
    return normalise(config)


def normalise(config: ConfigDict) -> ConfigDict:
    """Return a locked copy of a faultless `config`: lists as tuples, whole numbers of float fields as floats."""
    table = fields.table(config.model.name, config.objective.name)
    resolved = config.copy_and_resolve_references()
    for name, value in fields.flatten(config).items():
        if isinstance(value, (list, tuple)):
            fields.change(resolved, {name: _as_tuple(value)})
        elif table[name].kind is float and value is not None:
            fields.change(resolved, {name: float(value)})
    return resolved.lock()


def find_faults(config: ConfigDict, *, needs_networks: bool = True) -> list[Fault]:
    """Return every fault of `config`: those of single fields, or, where there are none, those between fields.

    Where nothing is trained, `needs_networks` is False: the exports of networks that an objective uses and does not
    train need not be named.
    """
    faults = faults_of_fields(config)
    if not faults:
        values = fields.flatten(config)
        faults += faults_between(values)
        faults += _network_faults(values) if needs_networks else []
    return faults


def _network_faults(values: dict[str, Any]) -> Iterator[Fault]:
    for name in families.OBJECTIVES[values["objective.name"]].frozen:
        if not values[f"objective.{name}"]:
            yield Fault(f"objective.{name}", values[f"objective.{name}"], "name the folder of the export that it is")


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, (list, tuple)) else value
