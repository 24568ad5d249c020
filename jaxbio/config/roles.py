"""Channel roles: what a channel of a segment may be, which kind of signal that is, and what sources call it.

A role is what a recipe names in `data.channels`, and the prefix of that channel's columns in a store. Its kind decides
how it is scored and in which unit it is read; a new role is one line here.

    kind_of("v1")              # "ecg"
    lead_of("MDC_ECG_LEAD_V1") # "v1"
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

# Kind -> the unit it is read in. A PPG's is arbitrary ("NU": no unit).
UNITS: Mapping[str, str] = {"ppg": "NU", "ecg": "mV", "abp": "mmHg"}


@dataclass(frozen=True)
class Role:
    """One role: its kind (a key of UNITS), the names that sources give it (best first), and what it is in words."""

    kind: str
    names: tuple[str, ...]
    meaning: str


# In lower case, as the other roles are: a role is a column's prefix (`v1_waveform`) and a keyword (`score(v1=x)`).
# Sources may write them in any case, and behind a vendor's prefix: see `lead_of`.
LIMB_LEADS = ("i", "ii", "iii", "avr", "avl", "avf")
LEADS = (*LIMB_LEADS, "v1", "v2", "v3", "v4", "v5", "v6")  # the order of the standard 12-lead ECG
# The limb leads in terms of I and II. III = II - I: Einthoven, Pfluegers Archiv 60, 1895. The augmented leads, each an
# electrode against the mean of the other two: Goldberger, American Heart Journal 23, 1942.
IN_I_AND_II: Mapping[str, tuple[float, float]] = {
    "i": (1.0, 0.0),
    "ii": (0.0, 1.0),
    "iii": (-1.0, 1.0),
    "avr": (-0.5, -0.5),
    "avl": (1.0, -0.5),
    "avf": (-0.5, 1.0),
}
_PRINTED = {"avr": "aVR", "avl": "aVL", "avf": "aVF"}

_PPG_NAMES = ("PLETH", "PPG", "Pleth", "PLETHL", "PLETHR", "SNUADC/PLETH")
# Lead II, then other leads. MLII and MCL are a Holter's and a monitor's approximations: read as ECG, not as a lead.
_ECG_NAMES = ("II", "ECG II", "ECG_II", "MLII", "SNUADC/ECG_II", "ECG", "I", "III", "V", "MCL1", "MCL", "AVR", "AVL",
              "AVF", "V1", "V2", "V3", "V4", "V5", "V6")  # fmt: skip

ROLES: Mapping[str, Role] = {
    "ppg": Role("ppg", _PPG_NAMES, "PPG"),
    "ecg": Role("ecg", _ECG_NAMES, "ECG of any lead (II, then the others)"),
    "abp": Role("abp", ("ABP", "ART"), "arterial blood pressure"),
    **{lead: Role("ecg", (name,), f"lead {name}") for lead in LEADS for name in [_PRINTED.get(lead, lead.upper())]},
}

# What stands before a lead's name: `ECG I`, `lead_aVR`, `MDC_ECG_LEAD_V1` (HL7 aECG), `SNUADC/ECG_II` (VitalDB), `DII`.
# One hyphen joins (`ECG-aVR`); a hyphen behind a blank is a sign: `ECG -aVR` is Cabrera's inverted lead, which is none.
_LEAD = re.compile(r"(?:[^/\s]{4,}/)?(?:(?:mdc|ecg|ekg|lead)(?:[\s_.:]*|-))*(?:d(?=i))?(i{1,3}|av[rlf]|v[1-6])")


def kind_of(role: str) -> str:
    """Return the kind of a role; raises KeyError for what is none."""
    return ROLES[role].kind


def unit_of(role: str) -> str:
    """Return the unit that a role's signals are read in; raises KeyError for what is no role."""
    return UNITS[kind_of(role)]


def printed(role: str) -> str:
    """Return a role as people write it in a figure: PPG, II, aVR."""
    return _PRINTED.get(role, role.upper())


def lead_of(name: str) -> str | None:
    """Return the lead that a source's signal name means, whatever its case and its vendor's prefix; None for none."""
    match = _LEAD.fullmatch(name.strip().casefold())
    return match[1] if match else None
