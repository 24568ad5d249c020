"""What changed between the configuration of a saved run and today's, and whether a resume may go on with it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxbio.config import fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.config.field import SCIENCE
from jaxbio.config.resolve import normalise
from jaxbio.config.single_fields import faults_of_fields

KINDS = ("model.name", "objective.name")
_SHOWN = 4  # fields that one line names


def to_plain(config: ConfigDict) -> dict[str, Any]:
    """Return `config` as dotted name -> JSON value (tuples as lists), as run folders and checkpoints keep it."""
    return {name: plain(value) for name, value in fields.flatten(config).items()}


def from_plain(saved: Mapping[str, Any]) -> ConfigDict:
    """Return the configuration that `to_plain` wrote down.

    A field that was added since has the value of `fields.ADDED`, else its default; one that was retired since is
    dropped. What is checked between fields is asked of what is about to be trained alone: a run of an earlier version,
    which knew one rule less, has been trained all the same and can be exported. Raises UserError for unknown fields
    and values out of bounds.
    """
    table = fields.table(saved["model.name"], saved["objective.name"])
    saved = _by_todays_fields(saved, table)
    unknown = [Fault(name, saved[name], "this jaxbio has no such field") for name in saved if name not in table]
    if unknown:
        raise UserError(*unknown)
    config = fields.change(fields.defaults(saved["model.name"], saved["objective.name"]), saved)
    faults = faults_of_fields(config)
    if faults:
        raise UserError(*faults)
    return normalise(config)


def check_resume(
    saved: Mapping[str, Any],
    config: ConfigDict,
    allowed: Collection[str] = (),
    on_the_line: Collection[str] | None = None,
) -> list[str]:
    """Return the machine fields (and `allowed` science fields) that differ from the `saved` plain configuration.

    Raises UserError naming every changed science field that is not in `allowed`. `on_the_line` are the fields that the
    user changed by name (None: all of them): several others that differ are another recipe's, and one fault.
    """
    table = fields.table(config.model.name, config.objective.name)
    saved = _by_todays_fields(saved, table)
    now = to_plain(config)
    changed = [name for name in sorted({*saved, *now}) if saved.get(name, ...) != now.get(name, ...)]
    refused = [name for name in changed if (name not in table or table[name].tag == SCIENCE) and name not in allowed]
    of_recipe = [name for name in refused if on_the_line is not None and name not in on_the_line]
    if any(name in of_recipe for name in KINDS):
        raise UserError(_another_recipe(saved, now, refused))
    faults = []
    if len(of_recipe) > 1:
        faults.append(_another_recipe(saved, now, of_recipe))
        refused = [name for name in refused if name not in of_recipe]
    faults += [
        Fault(
            name,
            now.get(name, "missing"),
            f"the run was started with {saved.get(name, 'no such field')!r}; set it back, use another "
            f"--workdir, or add --allow_change={name}",
        )
        for name in refused
    ]
    if faults:
        raise UserError(*faults)
    return changed


def _by_todays_fields(saved: Mapping[str, Any], table: Collection[str]) -> dict[str, Any]:
    added = {name: value for name, value in fields.ADDED.items() if name in table}
    return added | {name: value for name, value in saved.items() if name not in fields.RETIRED}


def _another_recipe(saved: Mapping[str, Any], now: Mapping[str, Any], differing: Sequence[str]) -> Fault:
    """Return the fault of a workdir that holds a run of another recipe: in which kinds they differ, else fields."""
    kinds = [name for name in KINDS if name in differing]
    shown = kinds or differing[:_SHOWN]
    words = "; ".join(f"{name} was {saved.get(name, 'missing')!r}, is {now.get(name, 'missing')!r}" for name in shown)
    more = f"; and {len(differing) - len(shown)} more fields" if len(differing) > len(shown) else ""
    remedy = f"the run in this workdir is another's: {words}{more}; name another --workdir, or that run's recipe"
    return Fault("--config", "another recipe", remedy)


def plain(value: Any) -> Any:
    """Return a field's value as JSON has it: tuples as lists, sections as dictionaries."""
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, (dict, ConfigDict)):
        return {key: plain(item) for key, item in value.items()}
    return value
