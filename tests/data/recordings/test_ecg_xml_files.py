"""ECGs in XML: values as their standards define them, no entities, faults named."""

import base64
import datetime

import numpy as np
import pytest

from jaxbio.data.recordings import Refused, list_recordings, parse_source

NAMES = {"i": ("I",), "ii": ("II",), "iii": ("III",)}
DIGITS = np.random.default_rng(0).integers(-2000, 2000, (2, 5000))
BEGAN = datetime.datetime(2019, 8, 7, 6, 5, 4, tzinfo=datetime.UTC).timestamp()


def aecg(digits_CT=DIGITS, *, doctype="", increment="0.002", unit="s"):
    leads = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{name}" codeSystem="2.16.840.1.113883.6.24"/>'
        f'<value xsi:type="SLIST_PQ"><origin value="3" unit="uV"/><scale value="2.5" unit="uV"/>'
        f"<digits>{' '.join(map(str, digit_N))}</digits></value></sequence></component>"
        for name, digit_N in zip(("I", "II"), digits_CT)
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{doctype}<AnnotatedECG xmlns="urn:hl7-org:v3" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><component><series>'
        '<effectiveTime><low value="20190807060504.000"/></effectiveTime><component><sequenceSet>'
        '<component><sequence><code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS">'
        f'<head value="20190807060504.000"/><increment value="{increment}" unit="{unit}"/></value></sequence>'
        "</component>"
        f"{leads}</sequenceSet></component></series></component></AnnotatedECG>"
    )


def muse(digits_CT=DIGITS, *, count=5000):
    leads = "".join(
        f"<LeadData><LeadSampleCountTotal>{count}</LeadSampleCountTotal><LeadAmplitudeUnitsPerBit>4.88"
        f"</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits><LeadID>{name}</LeadID>"
        f"<WaveFormData>\n{base64.encodebytes(digit_N.astype('<i2').tobytes()).decode()}</WaveFormData></LeadData>"
        for name, digit_N in zip(("I", "II"), digits_CT)
    )
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?><!DOCTYPE RestingECG SYSTEM "restecg.dtd"><RestingECG>'
        "<TestDemographics><AcquisitionTime>06:05:04</AcquisitionTime><AcquisitionDate>08-07-2019</AcquisitionDate>"
        "</TestDemographics><Waveform><WaveformType>Median</WaveformType></Waveform><Waveform><WaveformType>Rhythm"
        f"</WaveformType><SampleBase>500</SampleBase><SampleExponent>0</SampleExponent>{leads}</Waveform></RestingECG>"
    )


def one(path, content, **how):
    path.write_text(content, encoding="latin-1")
    (entry,) = list_recordings(parse_source(f"xml:{path}"), NAMES, **how)
    return entry


@pytest.mark.parametrize(("content", "scale", "origin"), [(aecg(), 2.5, 3.0), (muse(), 4.88, 0.0)])
def test_values_are_as_the_standard_defines_them(tmp_path, content, scale, origin):
    entry = one(tmp_path / "a.xml", content)
    assert (entry.duration_s, entry.start_time, entry.channels["ii"].unit) == (10.0, BEGAN, "mV")
    read = entry.read(1.0, 9.0, ["i", "ii"])
    expected = (DIGITS[:, 500:4500] * scale + origin) * 1e-3
    np.testing.assert_allclose(np.stack([read["i"], read["ii"]]), expected, rtol=1e-6, atol=1e-7)


def test_leads_that_muse_leaves_out_are_derived(tmp_path):
    entry = one(tmp_path / "a.xml", muse(), required=("i", "ii", "iii"), missing_channel="derive")
    expected = (DIGITS[1] - DIGITS[0]) * 4.88e-3
    np.testing.assert_allclose(entry.read(0.0, 10.0, ["iii"])["iii"], expected, atol=1e-5)


LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "empty_file"),
        ("<html/>", "not_a_recording"),
        ("no xml", "unreadable_file"),
        (aecg()[:5000], "unreadable_file"),
        (aecg(doctype=LAUGHS), "unreadable_file"),
        (aecg(doctype=OUTSIDE), "unreadable_file"),
        ("<a>" * 200_000, "unreadable_file"),
        (aecg(increment="0"), "bad_rate"),
        (aecg(increment="2", unit="h"), "unreadable_file"),
        (aecg().replace(" -", " x", 1), "unreadable_file"),
        (aecg((DIGITS[0], DIGITS[1][:99])), "bad_header"),
        ("<AnnotatedECG/>", "not_a_recording"),
        (muse(count=2**31), "truncated_file"),
        (muse().replace(">500<", ">x<"), "unreadable_file"),
    ],
)
def test_damaged_files_and_entities_are_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "a.xml"
    entry = one(path, content)
    assert isinstance(entry, Refused)
    assert (entry.reason, str(path) in entry.detail) == (reason, True)
