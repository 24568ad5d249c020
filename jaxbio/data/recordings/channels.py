"""Which signal plays which role, and in which unit it is read.

A role's signal is the first of its configured names that the source has, blanks, case, the device or folder before it
and what vendors put before a lead's name ignored. ECG is read in mV and ABP in mmHg; a PPG's unit is arbitrary. A unit
that is not stated, or says "arbitrary", is kept as NU, unless the user says what to assume (`assume_unit`).
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from jaxbio.config.roles import ROLES, UNITS, lead_of
from jaxbio.data.recordings.recording import Channel, RecordingError, check_rate

ARBITRARY = UNITS["ppg"]
# What files write where they state no unit. Compared without case, blanks and brackets.
_ARBITRARY_NAMES = frozenset(
    (
        *("", "nu", "n.u.", "au", "a.u.", "arb", "arb.", "arbu", "arbitrary", "arbitraryunit", "arbitraryunits"),
        *("adu", "adc", "adcunits", "bit", "bits", "lsb", "count", "counts", "digit", "digits", "digital", "raw"),
        *("undef", "undefined", "unknown", "unspecified", "none", "null", "n/a", "nan", "no", "nounit", "nounits"),
        *("unit", "units", "unitless", "dimensionless", "normalized", "normalised", "norm", "relative", "uncalibrated"),
        *("1", "%", "percent", "pm", "-", "--", "?", "#"),
    )
)


def _aliases(factors: Mapping[str, float]) -> dict[str, float]:
    """Return alias -> factor of a table whose keys are aliases with blanks between them."""
    return {alias: factor for aliases, factor in factors.items() for alias in aliases.split()}


_MILLIVOLT = _aliases(
    {
        "mv millivolt millivolts mvolt mvolts": 1.0,
        "v volt volts": 1e3,
        "uv µv μv microvolt microvolts uvolt uvolts µvolt μvolt": 1e-3,
        "nv nanovolt nanovolts nvolt": 1e-6,
    }
)
_MMHG = _aliases(
    {
        "mmhg torr": 1.0,
        "kpa kilopascal kilopascals": 7.500617,
        "hpa mbar millibar": 0.7500617,
        "pa pascal pascals": 0.007500617,
        "cmh2o": 0.7355592,
    }
)
_FACTORS = {"ecg": _MILLIVOLT, "abp": _MMHG}  # kind -> factor to its unit of each unit that the source may state
# What converters write for a photoplethysmogram: any of these is one arbitrary unit.
_PPG_NAMES = _ARBITRARY_NAMES | set(_MILLIVOLT) | {"na", "ua", "µa", "μa", "ma", "a", "nw", "uw", "mw", "w", "lux"}
_MOST_NAMES_SAID = 24


class Stated(NamedTuple):
    """What a file states of one of its signals; a signal without a name plays no role."""

    name: str
    unit: str
    rate_hz: float


@lru_cache(maxsize=4096)  # an archive has few names, and each is compared for every recording
def same_name(name: str) -> str:
    """Return `name` as names are compared: without case, blanks, quotes around it, a unit in brackets behind it, and
    the comma that some archives (BIDMC) leave there.
    """
    return "".join(split_unit(name)[0].split()).strip("'\"").rstrip(",;:").casefold()


def split_unit(label: str) -> tuple[str, str]:
    """Return name and unit of a label such as `ECG [uV]` or `ABP (mmHg)`; the unit is empty where none is stated."""
    match = re.fullmatch(r"(.+?)\s*[\[(]([^\[\]()]*)[\])]\s*", label, re.DOTALL)
    return (match[1], match[2]) if match else (label, "")


def find_roles(found: Sequence[str], channel_names: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return role -> index into `found` (signal names of a source) by the lists of `channel_names`, best first."""
    positions: dict[str, int] = {}
    for index, name in enumerate(found):
        if name:
            positions.setdefault(same_name(name), index)
    # After all exact names, which win: what stands behind a device or a folder (`SNUADC/ART`, `wrist/BVP`), and leads.
    for index, name in enumerate(found):
        if "/" in name:
            positions.setdefault(same_name(name.rsplit("/", 1)[1]), index)
    for index, name in enumerate(found):
        if lead := lead_of(split_unit(name)[0].rstrip(",;:")):
            positions.setdefault(lead, index)
    candidates = {role: [same_name(name) for name in names] for role, names in channel_names.items()}
    best = {role: next((name for name in names if name in positions), None) for role, names in candidates.items()}
    return {role: positions[name] for role, name in best.items() if name is not None}


def make_channels(
    signals: Sequence[Stated], channel_names: Mapping[str, Sequence[str]], file: str, assumed: Mapping[str, str]
) -> tuple[dict[str, Channel], dict[str, tuple[str, str]]]:
    """Return the channels that `signals` of a file give by role, and the roles whose signal cannot be used, and why.

    `assumed` has by role the unit of signals that state none.
    """
    channels, faults = {}, {}
    for role, index in find_roles([signal.name for signal in signals], channel_names).items():
        name, unit, rate_hz = signals[index]
        try:
            check_rate(rate_hz, file)
            read_unit, factor = unit_of(role, unit, file, assumed)
            channels[role] = _shared_channel(name, read_unit, rate_hz, index, factor)
        except RecordingError as error:
            faults[role] = error.reason, f"{error.file!r}: {error.detail}"
    return channels, faults


# A million recordings of one archive have a few different channels.
_shared_channel = lru_cache(maxsize=4096)(Channel)


def unit_of(role: str, unit: str, file: str, assumed: Mapping[str, str]) -> tuple[str, float]:
    """Return (the unit that is read, the factor to it) for a signal of `role` stated in `unit`.

    Where that is none of the known ones, the role's unit in `assumed`, or its kind's, counts. Raises RecordingError
    `unknown_unit` for a unit that the role's kind cannot have.
    """
    stated, kind = _normalised(unit), ROLES[role].kind
    if kind == "ppg" and stated in _PPG_NAMES:
        return ARBITRARY, 1.0
    if kind in _FACTORS and stated in _FACTORS[kind]:
        return UNITS[kind], _FACTORS[kind][stated]
    said = assumed.get(role, assumed.get(kind))
    if said is not None and not any(stated in factors for factors in _FACTORS.values()):
        return unit_of(role, said, file, {})
    if kind in _FACTORS and stated in _ARBITRARY_NAMES:
        return ARBITRARY, 1.0
    raise RecordingError(
        "unknown_unit", file, f"{role} in {unit!r}; if that is a known unit, say assume_unit={role}:UNIT"
    )


def check_assumed(role: str, unit: str) -> None:
    """Raise ValueError where `unit` is none that signals of `role` may be assumed to have."""
    known = _FACTORS.get(ROLES[role].kind, _PPG_NAMES)
    if _normalised(unit) not in known:
        raise ValueError(f"{role}: {', '.join(sorted(filter(None, known)))}")


def _normalised(unit: str) -> str:
    """Return a unit as units are compared: mm[Hg] of UCUM is mmHg."""
    return re.sub(r"[\s\[\](){}'\"_]", "", unit).casefold()


def name_missing(
    missing: Iterable[str], found: Sequence[str], channel_names: Mapping[str, Sequence[str]], why: str = ""
) -> str:
    """Say which roles no signal plays (and `why`), which signals the file has, and the nearest to each role's names.

    A signal that is known as something else (lead II, where III is missing) is near to nothing.
    """
    named = [name for name in found if name]
    shown = ", ".join(map(repr, named[:_MOST_NAMES_SAID])) or "no named signal"
    if len(named) > _MOST_NAMES_SAID:
        shown += f" and {len(named) - _MOST_NAMES_SAID} more"
    known = {same_name(name) for role in ROLES.values() for name in role.names}
    compared = {same_name(name): name for name in reversed(named) if same_name(name) not in known and not lead_of(name)}
    near = []
    for role in missing:
        wanted = [same_name(name) for name in channel_names.get(role, ())]
        close = [match for name in wanted for match in difflib.get_close_matches(name, compared, n=1, cutoff=0.6)]
        near += [f"columns={role}:{compared[close[0]]}"] if close else []
    meant = f"; nearest: {', '.join(near)}" if near else ""
    return f"no signal for {', '.join(missing) or 'any role'}{why}; the file has {shown}{meant}"
