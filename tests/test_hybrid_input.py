"""From a store with hand-made features to an encoder's input: prepared, scaled by training subjects, embedded alike."""

import jax
import numpy as np
import pytest

import jaxbio
from jaxbio.config import changes, fields
from jaxbio.config.faults import UserError
from jaxbio.config.features import FEATURES
from jaxbio.config.resolve import find_faults
from jaxbio.data.batch import batch_spec
from jaxbio.data.feature_scales import fit_scales
from jaxbio.data.quantise import dequantise
from jaxbio.data.several import Stores, as_stores
from jaxbio.data.store import open_store
from jaxbio.export import card as cards
from jaxbio.export import folder
from jaxbio.export.initial import scales_before
from jaxbio.export.pretrained import load_pretrained
from jaxbio.models import ENCODERS
from jaxbio.report.store import write_store_report
from jaxbio.signals.features import make_features
from jaxbio.signals.synthetic import recording
from jaxbio.training.resume import recall_scales
from jaxbio.transforms.prepare_input import Input, prepare_batch, prepare_crops, prepare_physical

NAMES, LEADS = tuple(FEATURES), ("i", "ii", "v1")
CHANGES = {
    "data.rate_hz": 100.0,
    "data.segment_s": 5.0,
    "data.channels": LEADS,
    "data.features": NAMES,
    "data.scaling": "physical",
    "pairs.rule": "all_segments",
    "prepare.split": (0.5, 0.25, 0.25),
    **{f"augment.{kind}_prob": 0.0 for kind in ("noise", "scale", "offset", "block")},
}
SUBJECTS, SECONDS = 12, 20
NAMED = [f"r{number}" for number in range(SUBJECTS)]


def hybrid(**more):
    return fields.change(fields.defaults("ecg_jepa", "feature_prediction"), {**CHANGES, **more})


@pytest.fixture(scope="module")
def signals():
    made = [np.nan_to_num(recording(seed, duration_s=SECONDS, rate_hz=100.0).ecg) for seed in range(SUBJECTS)]
    return {lead: [gain * x for x in made] for lead, gain in zip(LEADS, (0.6, 1.0, -0.8), strict=True)}


@pytest.fixture(scope="module")
def store(signals, tmp_path_factory):
    out = tmp_path_factory.mktemp("hybrid") / "store"
    return jaxbio.store_from_arrays(str(out), rate_hz=100.0, config=hybrid(), names=NAMED, subjects=NAMED, **signals)


@pytest.fixture(scope="module")
def scales(store):
    return fit_scales(as_stores(store), NAMES, np.flatnonzero(store.column("split") == "train"))


@pytest.fixture(scope="module")
def exported(store, scales, tmp_path_factory):
    config = hybrid(**{"data.feature_scales": scales})
    module, inputs = ENCODERS["ecg_jepa"](8, 1, 2, 16, 50), Input.of(config)
    variables = jax.jit(module.init)(jax.random.key(0), np.ones((1, *inputs.shape), np.float32))
    out = tmp_path_factory.mktemp("export") / "hybrid"
    folder.write_export(out, module, variables, inputs=inputs, origin=folder.Origin("a test", "student"))
    return out


def test_a_store_holds_the_features_of_lead_ii_behind_its_leads(store):
    assert store.record_CT == (3 + len(NAMES), 500)
    assert batch_spec(hybrid())["segment_BMCT"].shape[2:] == store.record_CT
    x_RCT = dequantise(store.read(np.arange(store.rows)), store.scale_NC2)
    made_RFT = make_features(x_RCT[:, 1], 100.0, NAMES)
    range_F = np.ptp(x_RCT[:, 3:], axis=(0, 2))
    gap_F = np.abs(x_RCT[:, 3:] - made_RFT).max(axis=(0, 2)) / np.where(range_F > 0, range_F, 1)
    assert (gap_F < 1e-2).all(), dict(zip(NAMES, gap_F))  # made before the leads were rounded to int16
    assert store.features == open_store(store.path).features == NAMES


def test_a_store_of_leads_alone_has_the_bytes_that_it_had(store, signals, tmp_path):
    leads_alone = hybrid(**{"data.features": ()})
    plain = jaxbio.store_from_arrays(
        str(tmp_path / "s"), rate_hz=100.0, config=leads_alone, names=NAMED, subjects=NAMED, **signals
    )
    assert "features" not in plain.manifest
    assert "data.features" not in plain.manifest["config"]
    np.testing.assert_array_equal(plain.column("fingerprint"), store.column("fingerprint"))  # what is known as seen
    for one, other in ((plain, hybrid()), (store, leads_alone)):
        with pytest.raises(UserError, match="prepared with") as caught:
            one.check(other)
        assert [fault.field for fault in caught.value.faults] == ["data.features"]


def test_scales_are_those_of_the_subjects_to_train_on_alone(store, scales):
    x_RFT = dequantise(store.read(np.arange(store.rows)), store.scale_NC2)[:, 3:]
    train_R = store.column("split") == "train"
    assert 0 < train_R.sum() < store.rows
    by_name = dict(zip(NAMES, scales, strict=True))
    rate_R = x_RFT[train_R, NAMES.index("heart_rate"), 0]
    np.testing.assert_allclose(by_name["heart_rate"], (rate_R.mean(), rate_R.std()), rtol=1e-5)
    log_R = np.log1p(x_RFT[train_R, NAMES.index("sdnn"), 0].astype(np.float64))
    np.testing.assert_allclose(by_name["sdnn"], (log_R.mean(), log_R.std()), rtol=1e-4)
    size_R = x_RFT[train_R, NAMES.index("qrs_amplitude"), 0]
    np.testing.assert_allclose((size_R - by_name["qrs_amplitude"][0]) / by_name["qrs_amplitude"][1], np.clip(
        (size_R - size_R.min()) / np.ptp(size_R) * 2 - 1, -1, 1), atol=1e-5)  # fmt: skip
    assert by_name["r_peaks"] == (0.0, 1.0)
    everybody = fit_scales(as_stores(store), NAMES, np.arange(store.rows))
    assert everybody != scales
    assert fit_scales(Stores((store,)), NAMES, np.repeat(np.flatnonzero(train_R), 3)[:, None]) == scales


@pytest.mark.slow
def test_the_networks_features_are_scaled_cropped_with_the_leads_and_not_filtered(store, scales):
    settings = {"data.crop_s": 4.0, "data.band_hz": (0.67, 40.0), "data.standardise": "z_score"}
    inputs = Input.of(hybrid(**{"data.feature_scales": scales}, **settings))
    rows = np.arange(4)
    segment_BCT, scale_BC2 = store.read(rows), store.scale_NC2[rows]
    x_BCT = np.asarray(prepare_crops(segment_BCT, scale_BC2, inputs))
    assert x_BCT.shape == (4, *inputs.shape) == (4, 3 + len(NAMES), 400)
    plain = Input.of(hybrid(**{"data.features": ()}, **settings))
    np.testing.assert_array_equal(x_BCT[:, :3], prepare_crops(segment_BCT[:, :3], scale_BC2[:, :3], plain))
    wanted = dequantise(segment_BCT, scale_BC2)[:, 3:, 50:450].astype(np.float64)
    for place, (name, (centre, spread)) in enumerate(zip(NAMES, scales, strict=True)):
        value = np.log1p(wanted[:, place]) if FEATURES[name].scaling == "log_z_score" else wanted[:, place]
        np.testing.assert_allclose(x_BCT[:, 3 + place], (value - centre) / spread, atol=2e-4, err_msg=name)
    np.testing.assert_allclose(prepare_physical(dequantise(segment_BCT, scale_BC2), inputs), x_BCT, atol=2e-3)
    row_BM = rows[:, None].astype(np.uint32)
    batch = {"segment_BMCT": segment_BCT[:, None], "scale_BMC2": scale_BC2[:, None], "row_BM": row_BM}
    cropped = np.asarray(prepare_batch(batch, inputs, jax.random.key(0)))[:, 0]
    whole = np.asarray(prepare_crops(segment_BCT, scale_BC2, Input.of(hybrid(**{"data.feature_scales": scales}))))
    place = NAMES.index("r_peaks") + 3
    for row in range(4):  # the crop of a segment's leads is that of its R peaks
        starts = [s for s in range(101) if np.array_equal(whole[row, place, s : s + 400], cropped[row, place])]
        np.testing.assert_allclose(whole[row, -1, starts[0] : starts[0] + 400], cropped[row, -1], atol=1e-5)


def test_a_feature_that_a_segment_does_not_define_is_a_channel_that_is_not_there(scales):
    inputs = Input.of(hybrid(**{"data.feature_scales": scales}))
    still = np.asarray(prepare_physical(np.zeros((1, *inputs.shape), np.float32), inputs))
    assert not still.any()


@pytest.mark.slow
def test_raw_signals_give_the_vectors_of_the_stored_segments(store, scales, signals, exported):
    model = load_pretrained(exported)
    assert model.card.schema == cards.SCHEMA
    assert model.card.feature_scales == scales
    _, module, variables = folder.read_export(exported)
    row_N = np.flatnonzero(store.column("recording") == "r3")
    x_BCT = prepare_crops(store.read(row_N), store.scale_NC2[row_N], model.card.inputs)
    stored = np.asarray(module.apply(variables, x_BCT))[:, 0]
    embedded = model.embed_segments(rate_hz=100.0, **{lead: x[3] for lead, x in signals.items()})
    np.testing.assert_allclose(embedded.vector_BD, stored, atol=1e-5)
    assert embedded.present_BC.shape == (len(row_N), len(LEADS))
    without = model.embed(rate_hz=100.0, i=signals["i"][3])  # no lead II, no features
    assert np.isfinite(without).all()
    assert np.abs(without - stored).max() > 1e-3


def test_an_older_card_has_no_features_and_one_that_lacks_scales_is_refused(exported):
    stored = cards.json.loads((exported / cards.CARD).read_text())
    older = {name: value for name, value in stored.items() if name not in ("features", "feature_scales")}
    assert cards.card_from_plain({**older, "schema": 2}, "card").features == ()
    for wrong in ([], [[0.0, 0.0]] * len(NAMES), [[0.0, "1"]] * len(NAMES), [[0.0]]):
        with pytest.raises(UserError, match="feature"):
            cards.card_from_plain({**stored, "feature_scales": wrong}, "card")


def test_a_run_that_goes_on_or_starts_from_an_export_keeps_its_scales(scales, exported):
    saved = changes.to_plain(hybrid(**{"data.feature_scales": scales}))
    config = hybrid()
    recall_scales(config, saved)
    assert config.data.feature_scales == scales
    assert changes.check_resume(saved, config) == []
    assert scales_before(hybrid(**{"train.init_from": str(exported)})) == scales
    assert scales_before(hybrid(**{"train.init_from": str(exported), "data.features": ("sdnn",)})) == ()


def test_the_stores_page_draws_the_features(store, tmp_path):
    text = write_store_report(store, hybrid(), tmp_path / "r.html").read_text()
    for said in ("11 features of lead II", "HEART RATE, 1/min", "SDNN, ms"):
        assert said in text


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"data.features": ("pulse",)}, "data.features"),
        ({"data.features": ("sdnn", "sdnn")}, "data.features"),
        ({"data.channels": ("i",)}, "data.features"),
        ({"data.feature_scales": ((0.0, 1.0),)}, "data.feature_scales"),
        ({"data.features": ("sdnn",), "data.feature_scales": ((0.0, 0.0),)}, "data.feature_scales"),
        ({"data.features": (), "data.feature_scales": ((0.0, 1.0),)}, "data.feature_scales"),
        ({"augment.noise_prob": 0.5}, "augment.noise_prob"),
    ],
)
def test_what_a_recipe_may_not_say_of_features_is_named(wrong, field):
    assert field in [fault.field for fault in find_faults(hybrid(**wrong))]
