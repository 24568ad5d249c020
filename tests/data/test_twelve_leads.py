"""A store of real 12-lead ECG: physical values, scores by lead, and a lead that a recording lacks under each policy."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import wfdb
from scipy.signal import resample

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.config.roles import LEADS, printed
from jaxbio.data.pairs import open_index
from jaxbio.data.prepare import prepare_store
from jaxbio.data.quantise import dequantise
from jaxbio.data.recordings import parse_source
from jaxbio.data.store import Store, open_store
from jaxbio.data.store_files import RECORDINGS, TABLE
from jaxbio.report.store import write_store_report
from tools import look

FOLDERS = ("cinc2021_12lead", "ptbxl_sample")
FLAT = "JS20004"  # V2, V4 and V6 are zero throughout
TWELVE: Mapping[str, object] = {
    "data.rate_hz": 250.0,
    "data.segment_s": 10.0,
    "data.channels": LEADS,
    "data.scaling": "physical",
    "pairs.rule": "all_segments",
}


def twelve(**changes):
    return fields.change(
        fields.defaults(), {**TWELVE, **{name.replace("__", "."): value for name, value in changes.items()}}
    )


def prepared(out: Path, *folders: Path, **changes) -> Store:
    config = twelve(**changes)
    prepare_store([parse_source(f"wfdb:{folder}") for folder in folders], config, out, progress=False)
    return open_store(out)


def check_account(store: Store, read_s: float) -> dict[str, float]:
    """Kept and rejected seconds are those that were read; return the latter by reason."""
    account = store.manifest["account"]
    assert account["kept_s"] + sum(account["rejected_s"].values()) == pytest.approx(read_s, abs=1e-6)
    assert account["kept_s"] == pytest.approx(store.rows * 10.0)
    return account["rejected_s"]


def read_physical(folder: Path, name: str) -> tuple[np.ndarray, list[str], float]:
    record = wfdb.rdrecord(str(folder / name))
    return record.p_signal, record.sig_name, record.fs


def write_without(source: Path, name: str, lead: str, out: Path) -> None:
    """Write a copy of a record without one of its leads, its integers as they are."""
    record = wfdb.rdrecord(str(source / name), physical=False)
    kept = [place for place, found in enumerate(record.sig_name) if found != lead]
    wfdb.wrsamp(
        f"no_{lead}",
        record.fs,
        ["mV"] * len(kept),
        [record.sig_name[place] for place in kept],
        d_signal=record.d_signal[:, kept],
        fmt=["16"] * len(kept),
        adc_gain=[record.adc_gain[place] for place in kept],
        baseline=[record.baseline[place] for place in kept],
        write_dir=str(out),
    )


@pytest.fixture(scope="module")
def lacking(data_dir, tmp_path_factory) -> Path:
    """A whole record, copies of it without III and without V1, one with flat leads, and one too short."""
    folder = tmp_path_factory.mktemp("source") / "lacking"
    folder.mkdir()
    source = data_dir / "ptbxl_sample"
    for path in [*source.glob("17583_hr.*"), *(data_dir / "cinc2021_12lead").glob(f"{FLAT}.*")]:
        shutil.copy(path, folder)
    for lead in ("III", "V1"):
        write_without(source, "17583_hr", lead, folder)
    short = np.zeros((2000, 12), np.int16)  # four seconds
    wfdb.wrsamp("short", 500, ["mV"] * 12, [printed(lead) for lead in LEADS], d_signal=short, fmt=["16"] * 12,
                adc_gain=[1000.0] * 12, baseline=[0] * 12, write_dir=str(folder))  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def stores(lacking, tmp_path_factory) -> dict[str, Store]:
    out = tmp_path_factory.mktemp("stores")
    policies = ("refuse", "derive", "mask")
    return {policy: prepared(out / policy, lacking, prepare__missing_channel=policy) for policy in policies}


def rows_of(store: Store, recording: str) -> np.ndarray:
    return np.flatnonzero(store.column("recording") == recording)


def segment_of(store: Store, recording: str) -> np.ndarray:
    (row,) = rows_of(store, recording)
    return dequantise(store.read([row]), store.scale_NC2[[row]])[0]


def test_every_record_is_kept_or_rejected_and_its_values_are_those_of_the_file(data_dir, tmp_path):
    folders = [data_dir / name for name in FOLDERS]
    headers = [path for folder in folders for path in folder.glob("*.hea")]
    read_s = sum(
        record.sig_len / record.fs for record in (wfdb.rdheader(str(path.with_suffix(""))) for path in headers)
    )
    store = prepared(tmp_path / "store", *folders)
    assert len(headers) == 94
    assert store.channels == LEADS
    assert check_account(store, read_s) == {"constant": 20.0}
    assert store.manifest["units"] == {lead: ["mV"] for lead in LEADS}
    for row in range(0, store.rows, 7):
        about = store.take(row)
        physical, names, _ = read_physical(data_dir / about["source"].removeprefix("wfdb:"), about["recording"])
        expected_CT = resample(physical, 2500, axis=0).T
        x_CT = dequantise(store.read([row]), store.scale_NC2[[row]])[0]
        for number, lead in enumerate(LEADS):
            expected_T = expected_CT[names.index(printed(lead))]
            np.testing.assert_allclose(x_CT[number], expected_T, atol=2e-5 * np.ptp(expected_T), err_msg=lead)
    index = open_index(store, twelve(), "train")
    assert index.rows_NM.shape[1] == 1
    medians = {lead: np.median(store.column(f"{lead}_waveform")) for lead in LEADS}
    assert min(medians.values()) > 0.95, medians
    rate_R = store.column("heart_rate_bpm")
    assert 40 < rate_R.min() < rate_R.max() < 180
    assert store.present_NC.all()


def test_refuse_names_the_lead_that_a_record_lacks(stores):
    store = stores["refuse"]
    assert store.column("recording").tolist() == ["17583_hr"]
    assert check_account(store, 44.0) == {"missing_channel": 20.0, "constant": 10.0, "too_short": 4.0}
    lines = pq.read_table(store.path / RECORDINGS).to_pylist()
    said = {line["recording"]: line["detail"] for line in lines if line["outcome"] == "missing_channel"}
    augmented, chest = "'aVR', 'aVL', 'aVF'", "'V2', 'V3', 'V4', 'V5', 'V6'"
    assert said == {
        "no_III": f"'no_III': no signal for iii; the file has 'I', 'II', {augmented}, 'V1', {chest}",
        "no_V1": f"'no_V1': no signal for v1; the file has 'I', 'II', 'III', {augmented}, {chest}",
    }


def test_derive_makes_the_limb_lead_that_was_taken_away_and_refuses_the_rest(stores):
    store = stores["derive"]
    assert check_account(store, 44.0) == {"missing_channel": 10.0, "constant": 10.0, "too_short": 4.0}
    (row,) = rows_of(store, "no_III")
    assert store.take(row)["iii_name"] == "derived from I, II"
    assert store.take(row)["iii_present"]
    whole, made = segment_of(store, "17583_hr"), segment_of(store, "no_III")
    # the recorder rounds every lead to a microvolt by itself
    np.testing.assert_allclose(made[LEADS.index("iii")], whole[LEADS.index("iii")], atol=2.1e-3)
    others = [number for number, lead in enumerate(LEADS) if lead != "iii"]
    np.testing.assert_array_equal(made[others], whole[others])
    (full,) = rows_of(store, "17583_hr")
    scores = store.column("iii_waveform")
    assert scores[row] == pytest.approx(scores[full], abs=0.02)


def test_mask_keeps_every_record_and_says_which_leads_it_has(stores):
    store = stores["mask"]
    assert check_account(store, 44.0) == {"too_short": 4.0}
    absent = {"17583_hr": [], "no_III": ["iii"], "no_V1": ["v1"], FLAT: ["v2", "v4", "v6"]}
    for recording, leads in absent.items():
        (row,) = rows_of(store, recording)
        about = store.take(row)
        assert [lead for lead in LEADS if not about[f"{lead}_present"]] == leads
        assert [lead for lead, here in zip(LEADS, store.present_NC[row], strict=True) if not here] == leads
        x_CT = segment_of(store, recording)
        assert [lead for lead, x_T in zip(LEADS, x_CT, strict=True) if not x_T.any()] == leads
        terms = [about[f"{lead}_waveform"] for lead in LEADS]
        assert [lead for lead, score in zip(LEADS, terms, strict=True) if np.isnan(score)] == leads
        assert about["quality_waveform"] == pytest.approx(np.nanmean(terms), abs=1e-6)
        assert about["missing_frac"] == 0
    (row,) = rows_of(store, "no_V1")
    assert store.take(row)["v1_name"] == "masked"
    assert store.take(row)["v1_missing_frac"] == 1


def test_masked_segments_are_refused_by_a_recipe_that_does_not_mask(stores):
    stores["mask"].check(twelve(prepare__missing_channel="mask"))
    stores["derive"].check(twelve())  # nothing is masked there
    with pytest.raises(UserError, match=r"3 segments of .* lack a channel: mask tells") as caught:
        stores["mask"].check(twelve())
    assert caught.value.faults[0].field == "prepare.missing_channel"


def test_leads_beyond_what_can_be_derived_are_a_fault_that_names_them(data_dir, tmp_path):
    write_without(data_dir / "ptbxl_sample", "17583_hr", "V1", tmp_path)
    with pytest.raises(UserError, match="no signal for v1; only limb leads can be derived"):
        prepared(tmp_path / "store", tmp_path, prepare__missing_channel="derive")


def test_reports_draw_twelve_leads_and_say_which_are_masked(stores, lacking, tmp_path):
    text = write_store_report(stores["mask"], twelve(), tmp_path / "r.html").read_text()
    for said in ("aVR, mV", "V6, mV", "V1, masked", "segments with it", "aVF, %"):
        assert said in text
    (tmp_path / "recipe.py").write_text("from jaxbio.config import fields\n\n\ndef get_config(_):\n"
        f"    return fields.change(fields.defaults('resnet1d', 'contrastive'), {dict(TWELVE)!r})\n")  # fmt: skip
    out = tmp_path / "look.html"
    arguments = ["--config", str(tmp_path / "recipe.py"), "--out", str(out)]
    picture = [*arguments[:2], "--out", str(tmp_path / "look.png")]
    line = look.main([f"wfdb:{lacking}/no_III.hea", *picture, "--config.prepare.missing_channel=derive"])
    assert line["channels"]["iii"]["name"] == "derived from I, II"
    assert line["missing_channels"] == []
    assert json.loads(json.dumps(line))["kept"] == 1
    line = look.main([f"wfdb:{lacking}/no_V1.hea", *arguments, "--config.prepare.missing_channel=mask"])
    assert line["channels"]["v1"]["name"] == "masked"
    assert "V1 masked" in out.read_text()
    line = look.main([f"wfdb:{lacking}/no_V1.hea", *arguments])
    assert line["missing_channels"] == ["v1"]
    assert "it has no v1" in out.read_text()


def test_a_store_without_columns_of_presence_has_every_channel(stores, tmp_path):
    store = stores["mask"]
    table = pq.read_table(store.path / TABLE)
    pq.write_table(table.drop_columns([f"{lead}_present" for lead in LEADS]), tmp_path / TABLE)
    assert Store(tmp_path, store.manifest).present_NC.tolist() == [[True] * 12] * store.rows
