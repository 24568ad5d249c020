"""What preparation relies upon: the same bytes for any batch, honest reasons, artefacts found where they were put."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxbio.signals import filters
from jaxbio.signals.noise import add_dropout, add_noise, make_noise
from jaxbio.signals.segments import REASONS, measure
from jaxbio.signals.synthetic import RHYTHMS, random_artefacts, recording

CHANNELS = ("ppg", "ecg")


def measured(raw, channels=CHANNELS, **changes):
    return measure(raw, **({"rate_hz": 300.0, "length": 9000, "channels": channels} | changes))


@pytest.fixture(scope="module")
def mixed():
    """Forty segments at 250 Hz of every rhythm, half of them with artefacts, ABP at 125 Hz."""
    raw = {"ppg": [], "ecg": [], "abp": []}
    for seed in range(8):
        made = recording(
            seed,
            duration_s=150.0,
            rate_hz=250.0,
            rhythm=RHYTHMS[seed % len(RHYTHMS)],
            artefacts=random_artefacts(seed, 150.0, share=0.5) if seed % 2 else (),
        )
        for role in raw:
            raw[role].append(getattr(made, role).reshape(5, 7500))
    joined = {role: np.concatenate(parts) for role, parts in raw.items()}
    return joined | {"abp": joined["abp"][:, ::2]}


def reason_of(result, row=0):
    return REASONS[result.reason_B[row]]


@pytest.mark.parametrize("batch", [1, 3, 7, 16])
def test_bulk_equals_single_bit_for_bit(mixed, batch):
    channels = ("ppg", "ecg", "abp")
    whole = measured(mixed, channels)
    for start in range(0, 40, batch):
        part = measured({role: x_BN[start : start + batch] for role, x_BN in mixed.items()}, channels)
        rows = slice(start, start + batch)
        np.testing.assert_array_equal(part.x_BCT, whole.x_BCT[rows])
        np.testing.assert_array_equal(part.reason_B, whole.reason_B[rows])
        for name, column in part.columns.items():
            np.testing.assert_array_equal(column, whole.columns[name][rows], err_msg=name)


def test_columns_are_float32_of_every_channel(mixed):
    result = measured(mixed, ("ppg", "ecg", "abp"))
    terms = (
        "missing_frac",
        "clipped_frac",
        "artefact_frac",
        "beats",
        "rate_doubt",
        "usable",
        "band",
        "snr",
        "waveform",
        "author",
    )
    expected = {f"{role}_{term}" for role in ("ppg", "ecg", "abp") for term in terms}
    pulse = ("inverted", "author_snr", "author_perf", "author_skew", "author_rel", "author_ent")
    expected |= {f"{role}_{term}" for role in ("ppg", "abp") for term in pulse}
    expected |= {"missing_frac", "artefact_frac", "quality_waveform", "quality_author"}
    expected |= {"heart_rate_bpm", "pulse_rate_bpm", "abp_rate_bpm"}
    assert set(result.columns) == expected
    assert {column.dtype for column in result.columns.values()} == {np.dtype(np.float32)}
    assert {column.shape for column in result.columns.values()} == {(40,)}
    assert result.x_BCT.shape == (40, 3, 9000)
    assert result.x_BCT.dtype == np.float32


def test_signals_come_back_resampled_in_their_units(mixed):
    result = measured(mixed)
    clean = np.flatnonzero(result.columns["missing_frac"] == 0)
    assert len(clean) >= 15
    for number, role in enumerate(CHANNELS):
        expected_BT = filters.resample(mixed[role][clean].astype(np.float64), 9000)
        spread = np.ptp(expected_BT)
        np.testing.assert_allclose(result.x_BCT[clean, number], expected_BT, atol=3e-6 * spread)


def test_scores_do_not_depend_on_unit_or_stored_rate(mixed):
    result = measured(mixed)
    scaled = measured({"ppg": mixed["ppg"] * 200 + 37, "ecg": mixed["ecg"] * 0.001 - 0.005})
    slow = measured(mixed, rate_hz=125.0, length=3750)
    assert slow.x_BCT.shape == (40, 2, 3750)
    for name in ("ppg_waveform", "ecg_waveform", "heart_rate_bpm", "ecg_author"):
        np.testing.assert_array_equal(slow.columns[name], result.columns[name])
        np.testing.assert_allclose(scaled.columns[name], result.columns[name], atol=2e-2)


@pytest.mark.parametrize("role", ["ppg", "ecg", "abp"])
def test_a_score_never_exceeds_the_time_without_artefacts(mixed, role):
    columns = measured(mixed, ("ppg", "ecg", "abp")).columns
    clean_B = 1 - columns[f"{role}_artefact_frac"]
    assert (columns[f"{role}_waveform"] <= clean_B + 1e-6).all()
    assert columns[f"{role}_waveform"].std() > 0.2


@pytest.mark.parametrize("variant", ["waveform", "author"])
@pytest.mark.parametrize("role", CHANNELS)
def test_a_segment_read_back_from_a_store_scores_the_same(mixed, role, variant):
    whole = {name: x_BN[[np.isfinite(x_BN).all() for x_BN in x_BN]] for name, x_BN in mixed.items()}
    raw_BN = whole[role]
    entered = measured({role: raw_BN}, (role,))
    # as a store keeps it: 300 Hz, int16 over its range
    low_B1, high_B1 = entered.x_BCT[:, 0].min(axis=1)[:, None], entered.x_BCT[:, 0].max(axis=1)[:, None]
    step_B1 = (high_B1 - low_B1) / 65534
    stored_BT = low_B1 + step_B1 * np.rint((entered.x_BCT[:, 0] - low_B1) / step_B1)
    read_back = measured({role: stored_BT.astype(np.float32)}, (role,))
    clean_B = entered.columns["artefact_frac"] < 0.05
    assert clean_B.sum() >= 8
    name = f"{role}_{variant}"
    np.testing.assert_allclose(read_back.columns[name][clean_B], entered.columns[name][clean_B], atol=0.02)


def test_gaps_are_filled_with_straight_lines():
    made = recording(0, duration_s=30.0)
    ecg_T = made.ecg.copy()
    ecg_T[:300] = np.nan
    ecg_T[4000:4600] = np.nan
    result = measured({"ecg": ecg_T[None]}, ("ecg",))
    x_T = result.x_BCT[0, 0]
    np.testing.assert_allclose(x_T[:300], ecg_T[300], atol=1e-6)
    np.testing.assert_allclose(
        x_T[4000:4600], np.interp(np.arange(4000, 4600), [3999, 4600], ecg_T[[3999, 4600]]), atol=1e-6
    )
    assert result.columns["ecg_missing_frac"][0] == pytest.approx(0.1, abs=1e-3)
    assert reason_of(result) == "kept"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x, "kept"),
        (lambda x: np.where(np.arange(9000) < 1800, np.nan, x), "kept"),  # exactly a fifth
        (lambda x: np.where(np.arange(9000) < 1810, np.nan, x), "missing"),
        (lambda x: np.full(9000, np.nan), "missing"),
        (lambda x: np.full(9000, 2.5), "constant"),
        (lambda x: np.where(np.arange(9000) < 100, np.nan, 2.5), "constant"),
        (lambda x: np.where(np.arange(9000) == 77, np.inf, x), "infinite"),
        (lambda x: np.where(np.arange(9000) == 77, -np.inf, x), "infinite"),
    ],
)
def test_every_rejection_has_its_reason(change, reason):
    made = recording(1, duration_s=30.0)
    raw = {"ppg": made.ppg[None], "ecg": change(made.ecg).astype(np.float32)[None]}
    result = measured(raw)
    assert reason_of(result) == reason
    assert np.isfinite(result.x_BCT).all()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("kind", ["nan", "held", "rail", "white", "emg", "clipped"])
@pytest.mark.parametrize("role", CHANNELS)
def test_planted_artefacts_come_back_as_artefact_frac(role, kind, share):
    rng = np.random.default_rng(11)
    rows = []
    for seed in range(6):
        x_T = getattr(recording(seed, duration_s=30.0), role).copy()
        count = round(share * 9000)
        start = rng.integers(0, 9000 - count + 1)
        span = slice(start, start + count)
        match kind:
            case "nan":
                x_T[span] = np.nan
            case "held":
                x_T[span] = x_T[start]
            case "rail":
                x_T[span] = x_T.mean() + 6 * x_T.std()
            case "clipped":
                x_T[span] = np.where(np.arange(count) % 200 < 180, x_T.max() + 1, x_T.min() - 1)
            case _:
                x_T[span] += 5 * x_T.std() * make_noise(kind, count, rng, 300.0)
        rows.append(x_T)
    found_B = measured({role: np.stack(rows)}, (role,)).columns["artefact_frac"]
    assert abs(found_B.mean() - share) <= 0.06
    assert np.mean(np.abs(found_B - share) <= 0.1) >= 0.8


def test_artefacts_of_both_channels_are_joined():
    made = recording(3, duration_s=30.0)
    ppg_T, ecg_T = made.ppg.copy(), made.ecg.copy()
    ppg_T[:1800] = np.nan
    ecg_T[4500:6300] = np.nan
    columns = measured({"ppg": ppg_T[None], "ecg": ecg_T[None]}).columns
    assert columns["artefact_frac"][0] == pytest.approx(0.4, abs=0.05)
    assert columns["missing_frac"][0] == pytest.approx(0.2, abs=0.01)


def test_a_gap_does_not_slow_the_heart_rate():
    made = recording(4, duration_s=30.0, heart_rate_bpm=80.0)
    ecg_T = made.ecg.copy()
    ecg_T[3000:6000] = np.nan
    columns = measured({"ecg": ecg_T[None]}, ("ecg",)).columns
    assert columns["heart_rate_bpm"][0] == pytest.approx(80, abs=2.5)


@pytest.mark.parametrize("rate_hz", [25.0, 62.47, 100.0, 116.988, 125.0, 200.0, 360.0, 1000.0])
def test_any_raw_rate_gives_about_the_same_scores(rate_hz):
    made = recording(6, duration_s=30.0, rate_hz=1000.0)
    samples = round(30 * rate_hz)
    raw = {"ppg": filters.resample(made.ppg[None], samples)}
    result = measured(raw, ("ppg",))
    assert result.columns["ppg_waveform"][0] > 0.97
    assert result.columns["pulse_rate_bpm"][0] == pytest.approx(60 / np.median(np.diff(made.r_peaks_s)), rel=0.05)


def test_score_falls_with_dropout_even_past_the_limit():
    made = recording(7, duration_s=300.0)
    x_BN = made.ecg.reshape(10, 9000)
    rng = np.random.default_rng(0)
    means = [measured({"ecg": x_BN}, ("ecg",)).columns["ecg_waveform"].mean()]
    for share in (0.05, 0.1, 0.2, 0.4, 0.6):
        lost_BN = add_dropout(x_BN, share, rng, 300.0)
        means.append(measured({"ecg": lost_BN}, ("ecg",)).columns["ecg_waveform"].mean())
    assert np.all(np.diff(means) < 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1e-38, 1e-20, 1.0, 1e15, 3e37]))
def test_any_numbers_give_finite_scores_within_bounds(seed, size):
    rng = np.random.default_rng(seed)
    x_BN = rng.standard_normal((4, 1500)).astype(np.float32)
    x_BN[1, rng.integers(0, 1500, 40)] = rng.choice([np.nan, np.inf, -np.inf, 0.0], 40)
    x_BN[2, 300:] = x_BN[2, 300]
    x_BN[3] = np.sign(x_BN[3])
    with np.errstate(over="ignore", invalid="ignore"):
        raw = {"ppg": x_BN * np.float32(size), "ecg": -x_BN * np.float32(size)}
    with np.errstate(all="raise", under="ignore"):
        result = measured(raw)
    assert np.isfinite(result.x_BCT).all()
    for name, column in result.columns.items():
        if not name.endswith("rate_bpm"):
            assert np.isfinite(column).all(), name
        if not name.endswith(("bpm", "beats")):
            assert ((column >= 0) & (column <= 1)).all(), name


def test_unknown_role_and_unlike_rows_are_refused():
    x_BN = np.ones((2, 9000), np.float32)
    with pytest.raises(ValueError, match="eeg"):
        measured({"eeg": x_BN}, ("eeg",))
    with pytest.raises(ValueError, match="rows"):
        measured({"ppg": x_BN, "ecg": x_BN[:1]})
    with pytest.raises(ValueError, match="5 s"):
        measured({"ppg": x_BN[:, :900]}, ("ppg",), length=900)


@pytest.fixture(scope="module")
def leads():
    """Four ten-second segments of lead II and of two leads that follow from it, at 250 Hz."""
    made = [recording(seed, duration_s=10.0, rate_hz=250.0, heart_rate_bpm=50.0 + 30 * seed).ecg for seed in range(4)]
    x_BN = np.stack(made)
    return {"ii": x_BN, "avr": -0.5 * x_BN, "v1": 0.2 * x_BN}


def test_leads_are_scored_as_ecg_and_the_heart_rate_is_their_median(leads):
    roles = ("ii", "avr", "v1")
    result = measured(leads, roles, rate_hz=250.0, length=2500)
    for role in roles:
        alone = measured({"ecg": leads[role]}, ("ecg",), rate_hz=250.0, length=2500).columns
        for term in ("waveform", "usable", "band", "author", "beats", "artefact_frac"):
            np.testing.assert_array_equal(result.columns[f"{role}_{term}"], alone[f"ecg_{term}"])
    rates = [measured({"ecg": leads[role]}, ("ecg",), rate_hz=250.0, length=2500).columns for role in roles]
    expected_B = np.median([columns["heart_rate_bpm"] for columns in rates], axis=0)
    np.testing.assert_allclose(result.columns["heart_rate_bpm"], expected_B, rtol=1e-6)
    np.testing.assert_allclose(expected_B, [50, 80, 110, 140], rtol=0.06)
    assert {name for name in result.columns if name.endswith("bpm")} == {"heart_rate_bpm"}
    assert result.columns["quality_waveform"].min() > 0.9
    assert result.present_BC.all()


@pytest.mark.parametrize("loss", [np.nan, 2.5, np.inf])
def test_a_lost_channel_is_masked_and_left_out_of_every_mean(leads, loss):
    raw = {role: x_BN.copy() for role, x_BN in leads.items()}
    raw["v1"][1] = loss
    raw["avr"][2, :501] = np.nan  # just more than a fifth
    roles = ("ii", "avr", "v1")
    whole = measured(raw, roles, rate_hz=250.0, length=2500)
    assert (whole.reason_B > 0).tolist() == [False, True, True, False]
    assert whole.present_BC.all()
    result = measured(raw, roles, rate_hz=250.0, length=2500, missing_channel="mask")
    assert not result.reason_B.any()
    lost = [[1, 1, 1], [1, 1, 0], [1, 0, 1], [1, 1, 1]]
    np.testing.assert_array_equal(result.present_BC, np.array(lost, bool))
    assert not result.x_BCT[~result.present_BC].any()
    kept = {role: x_BN[1:2] for role, x_BN in raw.items() if role != "v1"}
    alone = measured(kept, ("ii", "avr"), rate_hz=250.0, length=2500)
    np.testing.assert_array_equal(result.x_BCT[1:2, :2], alone.x_BCT)
    for name, column in alone.columns.items():
        np.testing.assert_array_equal(result.columns[name][1:2], column, err_msg=name)
    terms = {name for name in result.columns if name.startswith("v1_")}
    assert {name for name in terms if np.isnan(result.columns[name][1])} == terms - {"v1_missing_frac"}
    assert result.columns["avr_missing_frac"][2] == pytest.approx(0.2, abs=1e-3)
    assert result.columns["missing_frac"][2] == 0


def test_a_segment_without_any_channel_is_rejected_under_mask_too(leads):
    raw = {role: x_BN.copy() for role, x_BN in leads.items()}
    for x_BN in raw.values():
        x_BN[0], x_BN[3] = np.nan, 1.0
    result = measured(raw, tuple(raw), rate_hz=250.0, length=2500, missing_channel="mask")
    assert [reason_of(result, row) for row in range(4)] == ["missing", "kept", "kept", "constant"]
    part = measured({role: x_BN[1:3] for role, x_BN in raw.items()}, tuple(raw), rate_hz=250.0, length=2500)
    np.testing.assert_array_equal(part.x_BCT, result.x_BCT[1:3])


def test_noise_lowers_every_synthetic_rhythm():
    rng = np.random.default_rng(2)
    for rhythm in RHYTHMS:
        x_BN = recording(9, duration_s=90.0, rhythm=rhythm).ppg.reshape(3, 9000)
        scores = [measured({"ppg": x_BN}, ("ppg",)).columns["ppg_waveform"].mean()]
        for snr_db in (5.0, -5.0):
            noisy_BN = add_noise(x_BN, "white", snr_db, rng, 300.0)
            scores.append(measured({"ppg": noisy_BN}, ("ppg",)).columns["ppg_waveform"].mean())
        assert scores[0] > 0.9
        assert scores[0] > scores[1] > scores[2]


@pytest.mark.parametrize("every", [150, 50, 20])
@pytest.mark.parametrize("rate_hz", [125.0, 300.0])
def test_single_lost_samples_cost_their_own_share_of_the_score(rate_hz, every):
    made = recording(3, duration_s=30.0, rate_hz=rate_hz)
    clean, lossy = ({"ppg": made.ppg.copy()[None], "ecg": made.ecg.copy()[None]} for _ in range(2))
    lossy["ppg"][0, 7::every] = lossy["ecg"][0, 11::every] = np.nan
    before, after = (measured(raw, rate_hz=rate_hz, length=round(30 * rate_hz)) for raw in (clean, lossy))
    share = 1 / every
    assert after.columns["missing_frac"][0] == pytest.approx(share, rel=0.05)
    assert after.columns["quality_waveform"][0] == pytest.approx(
        before.columns["quality_waveform"][0] - share, abs=0.02
    )
    assert after.columns["artefact_frac"][0] <= before.columns["artefact_frac"][0] + 0.02
    for name in ("heart_rate_bpm", "pulse_rate_bpm"):
        assert after.columns[name][0] == pytest.approx(before.columns[name][0], rel=0.01)
