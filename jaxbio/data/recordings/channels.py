"""Which signal plays which role, and in which unit it is read.

A role's signal is the first of its configured names that the source has, blanks, case and what vendors put before a
lead's name ignored. ECG is read in mV and ABP in mmHg; a PPG's unit is arbitrary. A unit that is not stated, or says
"arbitrary", is kept as NU.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxbio.config.roles import ROLES, UNITS, lead_of
from jaxbio.data.recordings.recording import Channel, RecordingError, check_rate

ARBITRARY = UNITS["ppg"]
_ARBITRARY_NAMES = frozenset(
    {"", "nu", "adu", "au", "a.u.", "arb", "count", "counts", "digital", "raw", "%", "pm", "-"}
)
_MILLIVOLT = {"mv": 1.0, "v": 1e3, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}
_MMHG = {"mmhg": 1.0, "kpa": 7.500617, "cmh2o": 0.7355592}
_FACTORS = {"ecg": _MILLIVOLT, "abp": _MMHG}  # kind -> factor to its unit of each unit that the source may state
# What converters write for a photoplethysmogram: any of these is one arbitrary unit.
_PPG_NAMES = _ARBITRARY_NAMES | set(_MILLIVOLT) | {"na", "ua", "µa", "ma", "lux"}


class Stated(NamedTuple):
    """What a file states of one of its signals."""

    name: str
    unit: str
    rate_hz: float


def same_name(name: str) -> str:
    """Return `name` as names are compared: without case, blanks, quotes around it, and a unit in brackets behind it."""
    return "".join(split_unit(name)[0].split()).strip("'\"").casefold()


def split_unit(label: str) -> tuple[str, str]:
    """Return name and unit of a label such as `ECG [uV]` or `ABP (mmHg)`; the unit is empty where none is stated."""
    match = re.fullmatch(r"(.+?)\s*[\[(]([^\[\]()]*)[\])]\s*", label, re.DOTALL)
    return (match[1], match[2]) if match else (label, "")


def find_roles(found: Sequence[str], channel_names: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return role -> index into `found` (signal names of a source) by the lists of `channel_names`, best first."""
    positions: dict[str, int] = {}
    for index, name in enumerate(found):
        positions.setdefault(same_name(name), index)
    for index, name in enumerate(found):  # after all exact names, which win
        if lead := lead_of(split_unit(name)[0]):
            positions.setdefault(lead, index)
    candidates = {role: [same_name(name) for name in names] for role, names in channel_names.items()}
    best = {role: next((name for name in names if name in positions), None) for role, names in candidates.items()}
    return {role: positions[name] for role, name in best.items() if name is not None}


def make_channels(
    signals: Sequence[Stated], channel_names: Mapping[str, Sequence[str]], file: str
) -> tuple[dict[str, Channel], dict[str, tuple[str, str]]]:
    """Return the channels that `signals` of a file give by role, and the roles whose signal cannot be used, and why."""
    channels, faults = {}, {}
    for role, index in find_roles([signal.name for signal in signals], channel_names).items():
        name, unit, rate_hz = signals[index]
        try:
            check_rate(rate_hz, file)
            channels[role] = Channel(name, unit_of(role, unit, file)[0], rate_hz, index)
        except RecordingError as error:
            faults[role] = error.reason, f"{error.file!r}: {error.detail}"
    return channels, faults


def unit_of(role: str, unit: str, file: str) -> tuple[str, float]:
    """Return (the unit that is read, the factor to it) for a signal of `role` stated in `unit`.

    Raises RecordingError `unknown_unit` for a unit that the role's kind cannot have.
    """
    stated, kind = "".join(unit.split()).casefold(), ROLES[role].kind
    if kind == "ppg" and stated in _PPG_NAMES:
        return ARBITRARY, 1.0
    if kind in _FACTORS:
        if stated in _FACTORS[kind]:
            return UNITS[kind], _FACTORS[kind][stated]
        if stated in _ARBITRARY_NAMES:
            return ARBITRARY, 1.0
    raise RecordingError("unknown_unit", file, f"{role} in {unit!r}")
