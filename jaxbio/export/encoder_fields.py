"""What the constructor fields of an encoder in a card may hold, before anything is constructed.

The kind of a field is its annotation in the encoder's constructor, its bounds are those of the configuration's field
`model.<name>` where the family has one. No family is named.

    faults = list(find_encoder_faults("qualityfm", {"width": 512, ...}, "export/card.json"))
"""

import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn

from jaxbio import models
from jaxbio.config import families, fields
from jaxbio.config.faults import Fault
from jaxbio.config.field import Field
from jaxbio.config.single_fields import wrong_value
from jaxbio.export.card_fields import shorten

# No network has a width, a depth or a window beyond; a table of positions of that width is soon made.
_LARGEST_NUMBER = 2**16
_LONGEST = 100  # signs of a text, entries of a tuple
_DEEPEST = 4  # encoders within encoders
_TOP = "encoder_fields"
_LINEN_FIELDS = ("parent", "name")
_DTYPE: dict[str, Field] = {"dtype": fields.COMMON["precision.compute"]}


def find_encoder_faults(encoder: Any, given: Any, where: str, path: str = _TOP) -> Iterator[Fault]:
    """Yield every fault of a registry name and constructor fields from a card, named as `where`: field.

    A module among the fields is {"encoder": its name, "fields": its fields}.
    """
    if not isinstance(encoder, str) or encoder not in models.ENCODERS:
        known = ", ".join(sorted(models.ENCODERS))
        place = "encoder" if path == _TOP else path
        yield Fault(f"{where}: {place}", shorten(encoder), f"no registered family; known are {known}")
        return
    if not isinstance(given, Mapping) or path.count(".") >= _DEEPEST:
        yield Fault(f"{where}: {path}", shorten(given), f"expected the fields of {encoder} by name; export again")
        return
    parameters = dict(inspect.signature(models.ENCODERS[encoder]).parameters)
    for name in _LINEN_FIELDS:
        parameters.pop(name, None)
    needed = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    for name in sorted((given.keys() - parameters.keys()) | (needed - given.keys())):
        state = "unknown" if name in given else "missing"
        yield Fault(f"{where}: {path}.{shorten(name)}", state, f"{encoder} has {', '.join(parameters)}; export again")
    table = _table(encoder)
    for name in sorted(given.keys() & parameters.keys()):
        value, kind = given[name], parameters[name].annotation
        here = f"{path}.{name}"
        if _is_module(kind):
            inner = value if isinstance(value, Mapping) else {}
            yield from find_encoder_faults(inner.get("encoder"), inner.get("fields"), where, here)
        elif not _fits(value, kind):
            words = kind.__name__ if isinstance(kind, type) else str(kind)
            remedy = f"expected {words}, no number beyond {_LARGEST_NUMBER} and no more than {_LONGEST} entries"
            yield Fault(f"{where}: {here}", shorten(value), remedy)
        elif name in table and (wrong := wrong_value(value, table[name])):
            yield Fault(f"{where}: {here}", shorten(value), wrong)


def _table(encoder: str) -> dict[str, Field]:
    """Return what the configuration says of the encoder's fields, by their own names."""
    known = families.MODELS[encoder].fields if encoder in families.MODELS else {}
    return _DTYPE | {name.removeprefix("model."): field for name, field in known.items()}


def _is_module(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, nn.Module)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is one of the annotation `kind`, and within bounds; any plain value is one of an unknown."""
    arguments = typing.get_args(kind)
    if kind is tuple or typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)) or len(value) > _LONGEST:
            return False
        kinds = [arguments[0] if arguments else Any] * len(value) if arguments[1:] in ((), (...,)) else arguments
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return any(_fits(value, one) for one in arguments)
    if kind is None or kind is types.NoneType:
        return value is None
    plain = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}.get(kind, (int, float, str, bool))
    if type(value) not in plain:
        return False
    return len(value) <= _LONGEST if isinstance(value, str) else abs(value) <= _LARGEST_NUMBER
