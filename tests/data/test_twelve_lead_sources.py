"""What archives of 12-lead ECG hold, on the command line: read for what it is, or refused and named, or doubted."""

import json
import logging

import numpy as np
import pytest
import wfdb

from jaxbio.config.roles import LEADS, printed
from jaxbio.data.store import open_store
from jaxbio.signals.synthetic import recording
from jaxbio.signals.synthetic_leads import project
from tools import prepare_store

VENDOR = ["ECG I", "lead_II", "LEAD III", "MDC_ECG_LEAD_aVR", "avl", "AVF", "ecg v1", "Lead V2", "V3", "v4",
          "MDC_ECG_LEAD_V5", "ECG_V6"]  # fmt: skip
EIGHT = ("i", "ii", *LEADS[6:])


def flat_v1(x_TC):
    return np.where(np.arange(12) == 6, 0.5, x_TC)


def padded(x_TC):
    return np.where(np.arange(len(x_TC))[:, None] < 0.7 * len(x_TC), x_TC, 0.0)


def exchanged(x_TC):
    return x_TC[:, [1, 0, *range(2, 12)]]


def arms_swapped(x_TC):
    return x_TC[:, [0, 2, 1, 4, 3, *range(5, 12)]] * np.where(np.arange(12) == 0, -1, 1)


def write(folder, *, leads=LEADS, names=None, unit="mV", factor=1.0, rate_hz=500, seconds=10.0, change=None):
    """Write two records of 12-lead ECG, `factor` of `unit` a mV."""
    folder.mkdir()
    for seed in range(2):
        made = recording(seed, duration_s=seconds, rate_hz=float(rate_hz))
        of = project(seed, seed, np.nan_to_num(made.ecg), float(rate_hz))
        of |= {"x": of["i"], "y": of["avf"], "z": of["v2"]}
        x_TC = np.stack([of[lead] for lead in leads], axis=1).astype(np.float64)
        x_TC = x_TC if change is None else change(x_TC)
        wfdb.wrsamp(
            f"r{seed}",
            rate_hz,
            [unit] * len(leads),
            names or [printed(lead) for lead in leads],
            d_signal=np.round(x_TC * 1000).astype(int),
            fmt=["16"] * len(leads),
            adc_gain=[1000.0 / factor] * len(leads),
            baseline=[0] * len(leads),
            write_dir=str(folder),
        )


@pytest.fixture
def no_page(monkeypatch):
    """Draw no page: it takes longer than all else."""
    monkeypatch.setattr(prepare_store, "write_store_report", lambda store, config: "")


def prepare(tmp_path, policy="refuse", *flags):
    """Return what tools/prepare_store.py says in its last line, as JSON."""
    changes = [f"--config.prepare.missing_channel={policy}", "--config.prepare.split=(0.5,0.5,0.0)", *flags]
    places = ["--source", f"wfdb:{tmp_path / 'source'}", "--out", str(tmp_path / "store")]
    return json.loads(json.dumps(prepare_store.main(["--config", "configs/st_mem_small.py", *places, *changes])))


def in_words(value):
    """The same in every process: a function's own text has its address."""
    return str(
        {name: getattr(part, "__name__", part) for name, part in value.items()} if isinstance(value, dict) else value
    )


@pytest.mark.parametrize(
    ("source", "policy"),
    [
        ({}, "refuse"),
        ({"leads": (*LEADS, "x", "y", "z")}, "refuse"),
        ({"leads": LEADS[::-1]}, "refuse"),
        ({"names": VENDOR}, "refuse"),
        ({"unit": "uV", "factor": 1e3}, "refuse"),
        ({"unit": "nV", "factor": 1e6}, "refuse"),
        ({"rate_hz": 400}, "refuse"),
        ({"rate_hz": 1000}, "refuse"),
        ({"leads": EIGHT}, "derive"),
        ({"leads": EIGHT}, "mask"),
        ({"leads": LEADS[:-1]}, "mask"),
        ({"leads": LEADS[:3]}, "mask"),
        ({"change": flat_v1}, "mask"),
    ],
    ids=in_words,
)
def test_twelve_leads_in_mv_come_of_whatever_says_so(source, policy, tmp_path, caplog, no_page):
    write(tmp_path / "source", **source)
    with caplog.at_level(logging.INFO):
        said = prepare(tmp_path, policy)
    assert (said["segments"], said["kept_s"], said["rejected_s"]) == (2, 20.0, {})
    assert "doubtful" not in caplog.text
    store = open_store(tmp_path / "store")
    present_NC = store.present_NC
    lost = {str(LEADS[:-1]): ["v6"], str(LEADS[:3]): list(LEADS[3:]), str(EIGHT): list(LEADS[2:6])}
    masked = lost.get(str(source.get("leads")), ["v1"] if "change" in source else []) if policy == "mask" else []
    assert [lead for lead, present_N in zip(LEADS, present_NC.T) if not present_N.all()] == masked
    range_NC = store.scale_NC2[..., 1] * 65534
    assert (range_NC[present_NC] > 0.1).all()
    assert (range_NC < 10).all()


@pytest.mark.parametrize(
    ("source", "policy", "reason", "words"),
    [
        ({"leads": EIGHT}, "refuse", "missing_channel", "no signal for iii, avr, avl, avf"),
        ({"leads": LEADS[:-1]}, "derive", "missing_channel", "no signal for v6; only limb leads can be derived"),
        ({"leads": LEADS[:3]}, "refuse", "missing_channel", "the file has 'I', 'II', 'III'"),
        ({"unit": "furlong"}, "refuse", "unknown_unit", "assume_unit=i:UNIT"),
        ({"seconds": 7.0}, "refuse", "too_short", "7 s; a segment takes 10 s"),
        ({"change": padded}, "refuse", "missing", "20 s"),
        ({"change": padded}, "mask", "missing", "20 s"),
        ({"change": flat_v1}, "refuse", "constant", "20 s"),
    ],
    ids=in_words,
)
def test_what_cannot_be_used_is_refused_with_its_reason_and_its_seconds(
    source, policy, reason, words, tmp_path, no_page
):
    write(tmp_path / "source", **source)
    with pytest.raises(prepare_store.UserError, match="no segment was kept") as caught:
        prepare(tmp_path, policy)
    assert f"{reason} {2 * source.get('seconds', 10.0):.0f} s" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"change": exchanged}, "2 of 2 segments have limb leads that contradict each other"),
        pytest.param({"change": arms_swapped}, "2 of 2 segments have a lead I against V6", marks=pytest.mark.slow),
        pytest.param({"unit": "NU"}, "leads whose unit is not stated", marks=pytest.mark.slow),
        pytest.param({"factor": 1e3}, "a median range of the leads of 930 mV", marks=pytest.mark.slow),
    ],
    ids=in_words,
)
def test_what_is_doubtful_is_kept_and_said_in_the_log_and_on_the_stores_page(source, words, tmp_path, caplog):
    write(tmp_path / "source", **source)
    with caplog.at_level(logging.INFO):
        said = prepare(tmp_path)
    assert said["segments"] == 2
    (doubt,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("doubtful")]
    assert words in doubt
    page = (tmp_path / "store" / "store_report.html").read_text()
    assert "Doubtful, and kept" in page
    assert words in page


def test_an_assumed_unit_ends_the_doubt(tmp_path, caplog, no_page):
    write(tmp_path / "source", unit="NU", factor=1e3)
    with caplog.at_level(logging.INFO):
        prepare(tmp_path, "refuse", "--assume_unit=ecg:uV")
    assert "doubtful" not in caplog.text
