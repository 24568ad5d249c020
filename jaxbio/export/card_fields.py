"""What the fields of a card may hold: every one is typed and bounded before anything is made of it.

A card comes with weights from anywhere. Its fields of the encoder's input are bound as those of the section `data` are,
of which they are a copy; those of the encoder itself are `encoder_fields.py`'s.

    faults = find_faults(stored, "export/card.json", (WEIGHTS,))
"""

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxbio.config import fields
from jaxbio.config.between_fields import input_faults, scale_faults
from jaxbio.config.faults import Fault
from jaxbio.config.features import LEAD
from jaxbio.config.field import Field
from jaxbio.config.roles import ROLES
from jaxbio.config.single_fields import wrong_value
from jaxbio.transforms.band_pass import check_band

_DATA = fields.COMMON
_PLAIN = ("rate_hz", "scaling", "crop_s", "crops", "band_hz", "band_order", "band_design", "standardise")
_INPUT = (*_PLAIN, "features", "feature_scales")
_MOST_SAMPLES = round(_DATA["data.rate_hz"].high * _DATA["data.segment_s"].high)  # type: ignore[operator]
_LARGEST_COUNT = 10**12
_SHOWN = 60  # signs of a value in a message
_MOST_NAMES = 1000  # of metrics, versions and files

_FIELDS: dict[str, Field] = {
    "encoder": Field("", str, "name of a registered encoder"),
    "which": Field("", str, "which of the objective's encoders it is"),
    "parameters": Field(0, int, "numbers of the encoder", low=1, high=_LARGEST_COUNT),
    **{name: _DATA[f"data.{name}"] for name in _INPUT},
    "length": Field(0, int, "samples of a segment", low=1, high=_MOST_SAMPLES),
    "channels": Field((), tuple, "channel roles in the order of the encoder's input channels"),
    "token_s": Field(0.0, float, "seconds that one token stands for", low=0.0, high=_DATA["data.segment_s"].high),
    "width": Field(0, int, "numbers in a token", low=1, high=2**16),
    "pooling": Field("mean", str, "how tokens become a vector", choices=("mean",)),
    "missing_channel": Field("zeros", str, "what a channel that is not given gets", choices=("zeros",)),
    "objective": Field(None, str, "objective it was trained by", optional=True),
    "steps": Field(None, int, "steps it was trained for", optional=True, low=0, high=_LARGEST_COUNT),
    "store_hash": Field(None, str, "hash of the store it was trained on", optional=True),
    "source": Field("", str, "where the weights come from, in words"),
    "licence": Field("", str, "licence of the weights, in words"),
    "seen": Field("", str, "what it has seen, in words"),
}


def find_faults(stored: Mapping[str, Any], where: str, required: tuple[str, ...]) -> list[Fault]:
    """Return every fault of the fields of a card, which has them all, each named as `where`: field.

    `required` are the files that an export has. The encoder and its fields are not looked into.
    """
    faults = [
        Fault(f"{where}: {name}", shorten(stored[name]), remedy)
        for name, field in _FIELDS.items()
        if (remedy := wrong_value(stored[name], field))
    ]
    for name, kind in _MAPPINGS.items():
        faults += [
            Fault(f"{where}: {name}", shorten(value), remedy) for value, remedy in _wrong_items(stored[name], *kind)
        ]
    if not faults:
        missing = [name for name in required if name not in stored["files"]]
        if missing:
            remedy = f"an export has {', '.join(missing)} too; copy the whole export folder"
            faults.append(Fault(f"{where}: files", shorten(sorted(stored["files"])), remedy))
        faults += [Fault(f"{where}: {name}", shorten(stored[name]), remedy) for name, remedy in _between(stored)]
    return faults


def shorten(value: Any) -> Any:
    """Return a value from a card as a message can hold it."""
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 10**18):
        return value
    text = value if isinstance(value, str) else reprlib.repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _between(stored: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (field, remedy) of what is right alone and wrong together."""
    channels = stored["channels"]
    unknown = [role for role in channels if not isinstance(role, str) or role not in ROLES]
    if unknown or not channels or len(set(channels)) != len(channels):
        yield "channels", f"each channel role once, at least one, of {', '.join(ROLES)}"
    if stored["features"] and (LEAD not in channels or len(stored["feature_scales"]) != len(stored["features"])):
        yield "features", f"features are made of lead {LEAD}, and each has its scale"
    segment_s = stored["length"] / stored["rate_hz"]
    if remedy := wrong_value(segment_s, _DATA["data.segment_s"]):
        yield "length", f"{segment_s:g} s at {stored['rate_hz']:g} Hz; {remedy}"
        return
    values = {f"data.{name}": stored[name] for name in _INPUT}
    faults = [*input_faults({**values, "data.segment_s": segment_s}), *scale_faults(values)]
    if not faults and stored["band_hz"] is not None:
        samples = stored["length"] if stored["crop_s"] is None else round(stored["rate_hz"] * stored["crop_s"])
        try:
            check_band(samples, stored["rate_hz"], stored["band_hz"], stored["band_order"], stored["band_design"])
        except ValueError as error:  # a UserError, or what SciPy says of coefficients that are no numbers
            yield "band_hz", str(error)
    for fault in faults:
        yield fault.field.removeprefix("data."), fault.remedy


def _is_number(value: Any) -> bool:
    return value is None or type(value) in (int, float)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_fingerprint(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() == {"bytes", "sha256"}
        and type(value["bytes"]) is int
        and 0 <= value["bytes"] < 2**63
        and isinstance(value["sha256"], str)
        and re.fullmatch("[0-9a-f]{64}", value["sha256"]) is not None
    )


# What the values of a mapping are, in a test and in words.
_MAPPINGS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "metrics": (_is_number, "numbers by name"),
    "versions": (_is_text, "texts by name"),
    "files": (_is_fingerprint, 'files by name, each {"bytes": its size, "sha256": 64 hexadecimal digits}'),
}


def _wrong_items(value: Any, is_right: Callable[[Any], bool], words: str) -> Iterator[tuple[Any, str]]:
    if not isinstance(value, Mapping) or len(value) > _MOST_NAMES:
        yield value, f"expected {words}, at most {_MOST_NAMES}"
        return
    wrong = {name: item for name, item in value.items() if not is_right(item)}
    if wrong:
        yield wrong, f"expected {words}"
