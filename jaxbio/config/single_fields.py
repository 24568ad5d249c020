"""What is wrong with each field of a configuration alone: unknown, missing, ill typed, out of bounds."""

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxbio.config import families, fields
from jaxbio.config.faults import Fault
from jaxbio.config.field import Field
from jaxbio.config.local_paths import address_faults
from jaxbio.config.nearest import nearest

_KINDS: dict[type, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    str: (str,),
    bool: (bool,),
    tuple: (tuple, list),
}


def faults_of_fields(config: ConfigDict) -> list[Fault]:
    """Return the faults that fields of `config` have each alone: unknown, missing, ill typed, out of bounds."""
    model = config.get("model", {}).get("name")
    objective = config.get("objective", {}).get("name")
    if model not in families.MODELS:
        return [Fault("model.name", model, f"expected one of {', '.join(families.MODELS)}")]
    if objective not in families.OBJECTIVES:
        return [Fault("objective.name", objective, f"expected one of {', '.join(families.OBJECTIVES)}")]
    table, values = fields.table(model, objective), fields.flatten(config)
    faults = [
        Fault(name, value, f"unknown field; did you mean {nearest(name, table)}?")
        for name, value in values.items()
        if name not in table
    ]
    faults += [
        Fault(name, "missing", f"start the recipe from fields.defaults(): {field.reason}")
        for name, field in table.items()
        if name not in values
    ]
    faults += [
        Fault(name, values[name], remedy)
        for name, field in table.items()
        if name in values and (remedy := wrong_value(values[name], field))
    ]
    faults += [
        fault for name, value in values.items() for fault in address_faults(name, value, opened=name == "data.store")
    ]
    if isinstance(values.get("optimizer.groups"), (tuple, list)):
        faults += _group_faults(values["optimizer.groups"], table)
    return faults


def wrong_value(value: Any, field: Field) -> str | None:
    """Return what is wrong with one field's value, or None."""
    if value is None:
        return None if field.optional else f"expected {field.kind_name}: {field.reason}"
    if not any(type(value) in _KINDS[kind] for kind in field.kinds):
        return f"expected {field.kind_name}: {field.reason}"
    if _are_numbers(field.default) and type(value) in _KINDS[tuple] and not _are_numbers(value):
        return f"expected numbers: {field.reason}"
    if field.choices and value not in field.choices:
        near = difflib.get_close_matches(str(value), field.choices, 1)
        return f"expected one of {', '.join(field.choices)}" + (f"; did you mean {near[0]}?" if near else "")
    if field.low is not None and not value >= field.low:
        return f"expected at least {field.low}: {field.reason}"
    if field.high is not None and not value <= field.high:
        return f"expected at most {field.high}: {field.reason}"
    return None


def is_number(value: Any) -> bool:
    """Return whether `value` is a finite number."""
    return type(value) in _KINDS[float] and math.isfinite(value)


def rule_faults(name: str, rules: Any) -> Iterator[Fault]:
    """Yield what is wrong with pairs of a regular expression and what it decides."""
    for rule in rules:
        if not isinstance(rule, (tuple, list)) or len(rule) != 2:
            yield Fault(name, rule, "each rule is a pair: (regex, what it decides)")
            continue
        try:
            re.compile(rule[0])
        except (re.error, TypeError) as error:
            yield Fault(name, rule[0], f"not a regular expression: {error}")


def _are_numbers(value: Any) -> bool:
    """Return whether `value` is a tuple of finite numbers, at least one."""
    return isinstance(value, tuple | list) and bool(value) and all(is_number(part) for part in value)


def _group_faults(groups: Sequence[Any], table: Mapping[str, fields.Field]) -> Iterator[Fault]:
    """Yield what is wrong with each group alone; its settings are checked as if they stood in the section itself."""
    faults = list(rule_faults("optimizer.groups", groups))
    yield from faults
    if faults:
        return
    section = {name: field for name, field in table.items() if name.startswith("optimizer.")}
    del section["optimizer.groups"]
    for place, (_, changes) in enumerate(groups):
        group = f"optimizer.groups[{place}]"
        if not isinstance(changes, (dict, ConfigDict)):
            yield Fault(group, changes, 'changes of this section, {"learning_rate": 1e-5}, or {"frozen": True}')
        elif "frozen" in changes:
            if dict(changes) != {"frozen": True}:
                yield Fault(group, dict(changes), 'make it {"frozen": True}: what is frozen has no other settings')
        else:
            for key, value in changes.items():
                name = f"optimizer.{key}"
                if name not in section:
                    yield Fault(f"{group}.{key}", value, f"unknown; did you mean {nearest(name, section)}?")
                elif remedy := wrong_value(value, section[name]):
                    yield Fault(f"{group}.{key}", value, remedy)
