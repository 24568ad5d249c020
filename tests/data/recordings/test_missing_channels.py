"""Recordings that lack a channel: refused by name, derived exactly, or masked; and leads as sources spell them."""

import pickle
from itertools import combinations

import numpy as np
import pytest
from small_files import write_csv, write_frames

from jaxbio.config.faults import UserError
from jaxbio.config.roles import LEADS, LIMB_LEADS, ROLES
from jaxbio.data.recordings import Recording, RecordingError, Refused, list_recordings, parse_source

NAMES = {role: entry.names for role, entry in ROLES.items()}
RATE_HZ = 100.0


def limb_leads(samples: int = 1200) -> dict[str, np.ndarray]:
    """All six of two random leads, by the textbook's formulas."""
    i, ii = np.random.default_rng(5).standard_normal((2, samples)).astype(np.float32)
    return {"I": i, "II": ii, "III": ii - i, "aVR": -(i + ii) / 2, "aVL": i - ii / 2, "aVF": ii - i / 2}


def listed(path, required, policy, **rates) -> Recording | Refused:
    options = "&".join(f"{key}={value}" for key, value in rates.items())
    (entry,) = list_recordings(
        parse_source(f"{path}?{options}" if options else path), NAMES, required=required, missing_channel=policy
    )
    return entry


def from_csv(tmp_path, signals, required, policy) -> Recording | Refused:
    path = write_csv(tmp_path / "r.csv", signals)
    return listed(f"csv:{path}", required, policy, rate_hz=RATE_HZ)


@pytest.mark.parametrize("pair", list(combinations(("I", "II", "III", "aVR", "aVL", "aVF"), 2)))
def test_every_limb_lead_follows_from_any_two(tmp_path, pair):
    leads = limb_leads()
    recording = from_csv(tmp_path, {name: leads[name] for name in pair}, LIMB_LEADS, "derive")
    assert isinstance(recording, Recording)
    read = pickle.loads(pickle.dumps(recording)).read(2.0, 9.0, LIMB_LEADS)
    for name, whole in leads.items():
        np.testing.assert_allclose(read[name.lower()], whole[200:900], atol=1e-5, err_msg=name)
        derived = f"derived from {pair[0]}, {pair[1]}"
        assert recording.channels[name.lower()].name == (name if name in pair else derived)
    assert {signal.dtype for signal in read.values()} == {np.dtype(np.float32)}


def test_a_gap_in_a_source_is_a_gap_in_what_is_derived(tmp_path):
    leads = limb_leads()
    text = [*map(str, leads["I"])]
    text[300:400] = [""] * 100
    recording = from_csv(tmp_path, {"I": text, "II": leads["II"]}, ("iii",), "derive")
    iii = recording.read(0.0, 12.0, ["iii"])["iii"]
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(iii)), np.arange(300, 400))
    np.testing.assert_allclose(iii[400:], leads["III"][400:], atol=1e-5)


@pytest.mark.parametrize(
    ("held", "required", "policy", "said"),
    [
        (("I", "II"), ("i", "ii", "iii", "v1"), "refuse", "no signal for iii, v1"),
        (("I", "V1"), ("i", "iii", "avf"), "derive", "no signal for iii, avf; deriving a limb lead takes two others"),
        (("I", "II"), ("i", "iii", "v1", "v2"), "derive", "no signal for v1, v2; only limb leads can be derived"),
        (("I", "II"), ("v1", "ppg"), "mask", "no signal for v1, ppg"),
    ],
)
def test_what_cannot_be_had_is_refused_and_names_the_leads(tmp_path, held, required, policy, said):
    signals = limb_leads() | {"V1": limb_leads()["I"]}
    refused = from_csv(tmp_path, {name: signals[name] for name in held}, required, policy)
    assert isinstance(refused, Refused)
    assert refused.reason == "missing_channel"
    assert said in refused.detail
    assert refused.duration_s == 12.0


def test_leads_of_unlike_rates_or_units_derive_nothing(tmp_path):
    lines = ["r.dat 16x2 200/mV 16 0 0 0 0 I", "r.dat 16 200/mV 16 0 0 0 0 II", "r.dat 16 200/adu 16 0 0 0 0 aVF"]
    write_frames(tmp_path, "r", lines, [np.arange(2000).reshape(1000, 2), np.arange(1000), np.arange(1000)])
    refused = listed(f"wfdb:{tmp_path}", ("i", "ii", "iii"), "derive")
    assert isinstance(refused, Refused)
    assert "iii" in refused.detail


def test_a_masked_channel_reads_as_missing_and_the_others_as_they_are(tmp_path):
    leads = limb_leads()
    recording = from_csv(tmp_path, {"II": leads["II"]}, ("ii", "v1", "ppg"), "mask")
    read = recording.read(3.0, 5.0, ["v1", "ii", "ppg"])
    np.testing.assert_allclose(read["ii"], leads["II"][300:500], atol=1e-5)
    for role in ("v1", "ppg"):
        assert read[role].shape == (200,)
        assert np.isnan(read[role]).all()
        assert recording.channels[role].name == "masked"
    assert np.isnan(recording.read(3.0, 5.0, ["v1"])["v1"]).all()  # alone: the file is not read


def test_a_signal_that_cannot_be_used_is_the_files_fault_under_every_policy(tmp_path):
    lines = ["r.dat 16 200/mV 16 0 0 0 0 I", "r.dat 16 200/mV 16 0 0 0 0 II", "r.dat 16 200/mmHg 16 0 0 0 0 III"]
    write_frames(tmp_path, "r", lines, [np.arange(1000)] * 3)
    for policy in ("refuse", "derive", "mask"):
        refused = listed(f"wfdb:{tmp_path}", ("i", "ii", "iii"), policy)
        assert isinstance(refused, Refused)
        assert refused.reason == "unknown_unit"


@pytest.mark.parametrize("spelt", [str, "MDC_ECG_LEAD_{}".format, "lead_{}".format, "ECG {}".format, str.lower])
def test_leads_are_found_by_vendor_spelling_in_any_order_and_read_in_millivolt(tmp_path, spelt):
    printed = ("V6", "V5", "V4", "V3", "V2", "V1", "aVF", "aVL", "aVR", "III", "II", "I")
    units = ("uV", "nV", "mV", "V", "uV", "mV", "mV", "mV", "mV", "mV", "mV", "mV")
    gain = {"uV": "1", "nV": "0.001", "mV": "1000", "V": "1000000"}  # of a thousand counts a millivolt
    lines = [
        f"r.dat 16 {gain[unit]}/{unit} 16 0 0 0 0 {spelt(name)}" for name, unit in zip(printed, units, strict=True)
    ]
    counts = [np.full(1000, 100 * number) for number in range(12)]
    write_frames(tmp_path, "r", lines, counts)
    recording = listed(f"wfdb:{tmp_path}", LEADS, "refuse")
    assert isinstance(recording, Recording)
    read = recording.read(0.0, 2.0, LEADS)
    for number, name in enumerate(printed):
        np.testing.assert_allclose(read[name.lower()], 0.1 * number, rtol=1e-5, err_msg=name)
    assert {recording.channels[lead].unit for lead in LEADS} == {"mV"}


def test_an_exact_name_wins_over_a_vendors_spelling(tmp_path):
    recording = from_csv(tmp_path, {"ECG II": [1.0] * 1200, "II": [2.0] * 1200}, ("ii",), "refuse")
    assert recording.read(0.0, 1.0, ["ii"])["ii"][0] == 2.0


def test_a_source_line_gives_roles_that_exist():
    with pytest.raises(UserError, match="'II' is no role; roles: ppg, ecg, abp, i, ii"):
        parse_source("csv:.?columns=II:MLII")


@pytest.mark.parametrize("policy", ["derive", "mask"])
def test_a_completed_recording_keeps_what_can_be_read_beside_a_segment_that_is_not_there(tmp_path, policy):
    leads = np.random.default_rng(0).integers(-99, 99, (2, 1000))
    lines = [f"s.dat 16 1/mV 16 0 0 0 0 {name}" for name in ("I", "II")]
    write_frames(tmp_path, "s", lines, list(leads), "s 2 100 1000")
    (tmp_path / "r.hea").write_text("r/2 2 100 2000\ngone 1000\ns 1000\n")
    recording = listed(f"wfdb:{tmp_path}", ("i", "ii", "iii"), policy)
    with pytest.raises(RecordingError) as caught:
        recording.read(5.0, 20.0, ["i", "iii"])
    rest = caught.value.rest
    np.testing.assert_array_equal(rest["i"][500:], leads[0])
    iii = leads[1] - leads[0] if policy == "derive" else np.full(1000, np.nan)
    np.testing.assert_allclose(rest["iii"][500:], iii)
    assert np.isnan(rest["iii"][:500]).all()
