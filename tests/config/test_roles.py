"""The table of roles: what sources call a lead, and what a recipe may name."""

import pytest

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.config.resolve import resolve
from jaxbio.config.roles import LEADS, ROLES, UNITS, kind_of, lead_of, printed, unit_of

SPELLINGS = {
    "i": ["I", "i", "ECG I", "ecg_I", "Lead I", "lead-i", "MDC_ECG_LEAD_I", "DI", "EKG.I", " I "],
    "ii": ["II", "SNUADC/ECG_II", "ECG II", "DII", "Lead_II"],
    "iii": ["III", "diii", "MDC_ECG_LEAD_III"],
    "avr": ["aVR", "AVR", "lead_aVR", "ECG-aVR", "MDC_ECG_LEAD_AVR"],
    "v1": ["V1", "v1", "MDC_ECG_LEAD_V1", "ECG V1", "ECG Lead V1"],
    "v6": ["V6", "LEAD V6"],
}


@pytest.mark.parametrize(("lead", "spellings"), SPELLINGS.items())
def test_a_lead_is_known_in_any_case_and_behind_a_vendors_prefix(lead, spellings):
    assert {name: lead_of(name) for name in spellings} == dict.fromkeys(spellings, lead)


@pytest.mark.parametrize(
    "name",
    ["ECG", "V", "MLII", "MCL1", "-aVR", "ECG -aVR", "V7", "V1-V2", "RESP I", "ST II", "ECG1", "PLETH", "Lead 1"],
)
def test_what_is_no_standard_lead_is_not_taken_for_one(name):
    assert lead_of(name) is None


def test_every_role_has_a_kind_a_unit_and_names_that_a_recipe_can_change():
    assert set(ROLES) == {"ppg", "ecg", "abp", *LEADS}
    assert len(LEADS) == 12
    assert {kind_of(role) for role in ROLES} == set(UNITS)
    assert {unit_of(lead) for lead in LEADS} == {"mV"}
    assert [printed(role) for role in ("ppg", "ii", "avf", "v3")] == ["PPG", "II", "aVF", "V3"]
    names = fields.defaults().prepare.channel_names
    assert {role: tuple(names[role]) for role in names} == {role: entry.names for role, entry in ROLES.items()}


def test_a_channel_that_is_no_role_is_a_fault_that_lists_them():
    with pytest.raises(UserError, match="'II' is no role; roles: ppg, ecg, abp, i, ii"):
        resolve(fields.change(fields.defaults(), {"data.channels": ("ppg", "II")}))
    with pytest.raises(UserError, match="did you mean derive"):
        resolve(fields.change(fields.defaults(), {"prepare.missing_channel": "derived"}))
