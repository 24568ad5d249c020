"""What changed between the configuration of a saved run and today's, and whether a resume may go on with it."""

from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxbio.config import fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.config.field import SCIENCE
from jaxbio.config.resolve import resolve


def to_plain(config: ConfigDict) -> dict[str, Any]:
    """Return `config` as dotted name -> JSON value (tuples as lists), as run folders and checkpoints keep it."""
    return {name: plain(value) for name, value in fields.flatten(config).items()}


def from_plain(saved: Mapping[str, Any]) -> ConfigDict:
    """Return the configuration that `to_plain` wrote down.

    A field that was added since has its default. Raises UserError for unknown fields and values out of bounds.
    """
    table = fields.table(saved["model.name"], saved["objective.name"])
    unknown = [Fault(name, saved[name], "this jaxbio has no such field") for name in saved if name not in table]
    if unknown:
        raise UserError(*unknown)
    return resolve(fields.change(fields.defaults(saved["model.name"], saved["objective.name"]), saved))


def render(config: ConfigDict) -> str:
    """Return `config` as sorted lines `name = value`, the form of the golden texts."""
    return "".join(f"{name} = {value!r}\n" for name, value in sorted(fields.flatten(config).items()))


def check_resume(saved: Mapping[str, Any], config: ConfigDict, allowed: Collection[str] = ()) -> list[str]:
    """Return the machine fields (and `allowed` science fields) that differ from the `saved` plain configuration.

    Raises UserError naming every changed science field that is not in `allowed`.
    """
    table = fields.table(config.model.name, config.objective.name)
    now = to_plain(config)
    changed = [name for name in sorted({*saved, *now}) if saved.get(name, ...) != now.get(name, ...)]
    refused = [name for name in changed if (name not in table or table[name].tag == SCIENCE) and name not in allowed]
    if refused:
        raise UserError(
            *(
                Fault(
                    name,
                    now.get(name, "missing"),
                    f"the run was started with {saved.get(name, 'no such field')!r}; set it back, use another "
                    f"--workdir, or add --allow_change={name}",
                )
                for name in refused
            )
        )
    return changed


def plain(value: Any) -> Any:
    """Return a field's value as JSON has it: tuples as lists, sections as dictionaries."""
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, (dict, ConfigDict)):
        return {key: plain(item) for key, item in value.items()}
    return value
