"""Swapped leads are doubted, leads as they should be are not."""

import numpy as np
import pytest

from jaxbio.config.roles import IN_I_AND_II, LEADS
from jaxbio.signals.limb_leads import COLUMNS, doubt_leads, find_doubtful, tell_doubts
from jaxbio.signals.synthetic import recording
from jaxbio.signals.synthetic_leads import project

LIMB = tuple(IN_I_AND_II)


@pytest.fixture(scope="module")
def leads():
    """Three patients' twelve leads, (3, 12, 2500) at 250 Hz, with wander of the left arm's electrode."""
    rows = []
    for seed in (0, 1, 4):
        ecg_T = np.nan_to_num(recording(seed, duration_s=10.0, rate_hz=250.0).ecg)
        made, wander_T = project(seed, seed, ecg_T, 250.0), 0.3 * np.sin(np.arange(2500) / 400)
        share = {"i": 1.0, "iii": -1.0, "avr": -0.5, "avl": 1.0, "avf": -0.5}
        rows.append([made[lead] + share.get(lead, 0.0) * wander_T for lead in LEADS])
    return np.array(rows, np.float32)


def doubtful(x_BCT, channels=LEADS):
    return find_doubtful(doubt_leads(x_BCT, channels, 250.0))


def exchanged(x_BCT, pairs):
    order = list(range(12))
    for one, other in pairs:
        order[LEADS.index(one)], order[LEADS.index(other)] = LEADS.index(other), LEADS.index(one)
    return x_BCT[:, order]


def test_leads_as_they_should_be_raise_no_doubt(leads):
    assert not any(doubtful_B.any() for doubtful_B in doubtful(leads).values())
    assert tell_doubts(doubt_leads(leads, LEADS, 250.0)) == []


@pytest.mark.parametrize("pair", [("i", "ii"), ("iii", "avf"), ("avr", "avl"), ("ii", "avr")])
def test_two_limb_leads_exchanged_contradict_the_others(leads, pair):
    found = doubtful(exchanged(leads, [pair]))
    assert found["limb_residual"].all()
    assert (
        "3 of 3 segments have limb leads that contradict each other"
        in tell_doubts(doubt_leads(exchanged(leads, [pair]), LEADS, 250.0))[0]
    )


def test_swapped_arms_turn_lead_i_against_v6_and_contradict_nothing(leads):
    swapped = exchanged(leads, [("ii", "iii"), ("avr", "avl")])
    swapped[:, 0] *= -1
    found = doubtful(swapped)
    assert not found["limb_residual"].any()
    assert found["arms_swapped"].all()
    eight = [LEADS.index(lead) for lead in ("i", "ii", "v1", "v6")]  # aVR follows from I and II
    assert doubtful(swapped[:, eight], ("i", "ii", "v1", "v6"))["arms_swapped"].all()
    assert not doubtful(leads[:, eight], ("i", "ii", "v1", "v6"))["arms_swapped"].any()


def test_what_too_few_leads_cannot_tell_is_not_judged(leads):
    assert doubt_leads(leads[:, :2], ("i", "ii"), 250.0) == {}
    assert doubt_leads(leads[:, :1], ("ppg",), 250.0) == {}
    masked = leads.copy()
    masked[1, [LEADS.index("iii"), LEADS.index("v6")]] = 0
    found = doubt_leads(masked, LEADS, 250.0)
    assert list(found) == list(COLUMNS)
    assert np.isnan([found[name][1] for name in COLUMNS]).all()
    assert np.isfinite([found[name][[0, 2]] for name in COLUMNS]).all()
    np.testing.assert_array_equal(doubt_leads(leads[2:], LEADS, 250.0)["limb_residual"], found["limb_residual"][2:])
