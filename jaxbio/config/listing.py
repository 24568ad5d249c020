"""The fields of a configuration as text for people: what `launch/run.py --list_fields [PATTERN]` prints.

print(list_fields(table, fields.flatten(config), "every_steps"))
"""

import fnmatch
import re
import textwrap
from collections.abc import Mapping
from typing import Any

from jaxbio.config import families, fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.config.field import Field
from jaxbio.config.nearest import nearest

_WIDTH = 116


def list_fields(table: Mapping[str, Field], values: Mapping[str, Any], pattern: str = "") -> str:
    """Return a paragraph for each field whose name, or else whose reason, `pattern` is found in.

    A paragraph has name and value (of `values`, else the default), the default where it is another, the tag, and
    below them the reason with its unit, what else the value may be, and its bounds. `pattern` is a regular expression
    or a shell's pattern, whatever the case of its letters. Raises UserError where no field fits.
    """
    search = _compile(pattern).search
    found = [name for name in table if search(name)] or [name for name in table if search(table[name].reason)]
    if not found:
        near = nearest(pattern, table)
        raise UserError(
            Fault("--list_fields", pattern, f"no field has this in its name or reason; did you mean {near}?")
        )
    return "\n".join(_paragraph(name, table[name], values.get(name, table[name].default)) for name in found)


def every_table() -> dict[str, Field]:
    """Return the fields of all families together; a name that several have is that of the first."""
    tables = [fields.table(model, objective) for model in families.MODELS for objective in families.OBJECTIVES]
    return {name: field for table in reversed(tables) for name, field in table.items()}


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error:
        return re.compile(fnmatch.translate(pattern), re.IGNORECASE)


def _paragraph(name: str, field: Field, value: Any) -> str:
    default = "" if value == field.default else f"   default {field.default!r}"
    edges = (("at least", field.low), ("at most", field.high))
    bounds = [f"{words} {edge:g}" for words, edge in edges if edge is not None]
    kind = " | ".join(field.choices) or " or ".join([field.kind_name] + ["None"] * field.optional)
    text = f"{field.reason}  [{'; '.join([field.tag, kind, *bounds])}]"
    return f"{name} = {value!r}{default}\n" + textwrap.indent(textwrap.fill(text, _WIDTH), "    ")
