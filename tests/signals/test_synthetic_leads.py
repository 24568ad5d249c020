"""Twelve synthetic leads are one dipole's: limb leads follow from two, and leads differ in shape."""

import numpy as np
import pytest

from jaxbio.config.roles import LEADS
from jaxbio.data.recordings import parse_source
from jaxbio.data.recordings.synthetic import list_files
from jaxbio.signals.synthetic import recording
from jaxbio.signals.synthetic_leads import project

RATE_HZ = 250.0


@pytest.fixture(scope="module")
def made():
    return recording(3, duration_s=20.0, rate_hz=RATE_HZ)


def test_limb_leads_follow_from_two_of_them(made):
    lead = project(1, 1, made.ecg, RATE_HZ)
    assert set(lead) == set(LEADS)
    np.testing.assert_array_equal(lead["ii"], made.ecg)
    for name, wanted in {
        "iii": lead["ii"] - lead["i"],
        "avr": -(lead["i"] + lead["ii"]) / 2,
        "avl": lead["i"] - lead["ii"] / 2,
        "avf": lead["ii"] - lead["i"] / 2,
    }.items():
        assert np.std(lead[name] - wanted) < 0.015  # mV, their noise


def test_the_dipole_turns_so_leads_span_three_dimensions(made):
    lead = project(1, 1, made.ecg, RATE_HZ)
    singular = np.linalg.svd(np.stack([lead[name] for name in LEADS]), compute_uv=False)
    assert singular[2] > 5 * singular[3]


def test_a_patient_keeps_the_same_leads_and_missing_samples_stay_missing(made):
    first, again, other = (project(seed, 1, made.ecg, RATE_HZ)["v2"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.05
    gap = made.ecg.copy()
    gap[100:200] = np.nan
    assert all(np.isnan(x[100:200]).all() and np.isfinite(x[300:]).all() for x in project(1, 1, gap, RATE_HZ).values())


def test_two_recordings_of_a_patient_share_the_leads_and_not_their_noise():
    """What lead III holds beside II - I is noise alone: equal noise would tell a patient without a heart."""
    names = {"i": ("I",), "ii": ("II",), "iii": ("III",)}
    one, same, other = list_files(parse_source("synthetic:30?rate_hz=250"), names)
    assert one.subject == same.subject != other.subject
    read = [entry.read(0.0, 10.0, tuple(names)) for entry in (one, same, other)]
    noise_NT = np.nan_to_num([x["iii"] - x["ii"] + x["i"] for x in read])
    assert (noise_NT.std(axis=1) < 0.015).all()  # mV
    assert np.abs(np.corrcoef(noise_NT) - np.eye(3)).max() < 0.1


def test_a_synthetic_source_has_all_leads_and_makes_them_only_where_asked():
    source = parse_source("synthetic:2?rate_hz=250")
    names = {"ii": ("II",), "v1": ("V1",), "ppg": ("PLETH",)}
    (entry,) = list_files(source, names)
    read = entry.read(0.0, 10.0, tuple(names))
    assert {role: x.shape for role, x in read.items()} == dict.fromkeys(names, (2500,))
    assert not np.allclose(read["v1"], read["ii"], atol=0.05)
