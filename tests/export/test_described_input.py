"""An export whose encoder sees more than a scaled segment: twelve leads, cropped, filtered, standardised."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxbio
from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.export import card as cards
from jaxbio.export import folder
from jaxbio.models import ENCODERS
from jaxbio.transforms.prepare_input import Input, prepare_crops

LEADS = ("i", "ii", "iii", "avr", "avl", "avf", "v1", "v2", "v3", "v4", "v5", "v6")
ST_MEM = Input(
    rate_hz=250.0,
    length=2500,
    channels=LEADS,
    scaling="physical",
    crop_s=9.0,
    crops=3,
    band_hz=(0.67, 40.0),
    band_order=5,
    band_design="high_pass_low_pass",
    standardise="z_score",
)
FILTERED = dataclasses.replace(ST_MEM, scaling="unit", crop_s=None, crops=1, standardise="none")


def write(out, inputs: Input) -> cards.Card:
    module = ENCODERS["resnet1d"](depth=18, blocks=(1, 1, 1, 1))
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, *inputs.shape)))
    return folder.write_export(out, module, variables, inputs=inputs, origin=folder.Origin("a test", "encoder"))


@pytest.fixture(scope="module")
def twelve_leads(tmp_path_factory):
    """The folder of an encoder with the input of ST-MEM."""
    out = tmp_path_factory.mktemp("twelve") / "export"
    write(out, ST_MEM)
    return out


@pytest.fixture(scope="module")
def model(twelve_leads):
    return jaxbio.load_pretrained(twelve_leads)


@pytest.fixture(scope="module")
def signals():
    """Thirty seconds of twelve leads at 500 Hz, mV, by lead."""
    rng = np.random.default_rng(0)
    t_T = np.arange(15_000) / 500
    return {lead: np.sin(2 * np.pi * 1.2 * t_T + rng.uniform()) ** 15 + 0.1 * rng.normal(size=15_000) for lead in LEADS}


def test_embed_gives_the_encoder_what_training_gives_it(model, signals, monkeypatch, tmp_path):
    """From raw 500 Hz: a store, and the function of the step on its rows, against `embed`."""
    changes = {"data.rate_hz": 250.0, "data.segment_s": 10.0, "data.channels": LEADS}
    config = fields.change(fields.defaults(), changes)
    recordings = {lead: [signal] for lead, signal in signals.items()}
    store = jaxbio.store_from_arrays(tmp_path / "store", rate_hz=500.0, config=config, **recordings)
    rows = np.arange(3)
    trained_on = store.read(rows), store.scale_NC2[rows]
    expected = np.asarray(jax.jit(prepare_crops, static_argnums=2)(*trained_on, ST_MEM))
    seen = []
    monkeypatch.setattr(model, "_encode", lambda variables, x_BCT, encode=model._encode: (
        seen.append(np.asarray(x_BCT)), encode(variables, x_BCT))[1])  # fmt: skip
    vector_BD = model.embed(**signals, rate_hz=500)
    assert seen[0].shape == (4 * 3, 12, 2250)  # three segments and one that fills the batch, three crops each
    np.testing.assert_allclose(seen[0][:9], expected, atol=1e-5)
    tok_BLD = np.asarray(model.encode(expected))
    np.testing.assert_allclose(vector_BD, tok_BLD.reshape(3, -1, vector_BD.shape[1]).mean(axis=1), atol=1e-5)


def test_a_window_shorter_than_the_crops_of_training_is_refused_by_the_fields_name(model, signals):
    named = r"the crop that it was trained on \(data\.crop_s = 9\)"
    with pytest.raises(UserError, match=rf"window_s = 5: seconds, at least 9, {named}"):
        model.embed(**signals, rate_hz=500, window_s=5)
    with pytest.raises(UserError, match=rf"at least 2250 samples, {named}"):
        model.prepare(np.zeros((1, 12, 1250)))


def test_the_card_states_the_input_and_reads_it_back(twelve_leads):
    stored = json.loads((twelve_leads / cards.CARD).read_text())
    assert stored["schema"] == 3
    assert {name: stored[name] for name in ("crop_s", "crops", "band_hz", "standardise")} == {
        "crop_s": 9.0,
        "crops": 3,
        "band_hz": [0.67, 40.0],
        "standardise": "z_score",
    }
    card = cards.read_card(twelve_leads)
    assert card.inputs == ST_MEM
    assert card.token_s == 9.0  # a residual network pools a crop to one token


def program_of(out):
    weights = jax.tree.map(jnp.asarray, folder.read_export(out)[2])
    program = export.deserialize(bytearray((out / cards.PROGRAM).read_bytes()))
    return lambda x_BCT: np.asarray(program.call(weights, jnp.asarray(x_BCT, jnp.float32)))


def test_the_program_takes_physical_segments_and_gives_the_tokens_of_their_crops(twelve_leads, model):
    x_BCT = np.random.default_rng(1).normal(3, 0.5, (2, 12, 2500)).astype(np.float32)
    found = program_of(twelve_leads)(x_BCT)
    assert found.shape == (2, 3, model.card.width)
    expected = np.asarray(model.encode(model.prepare(x_BCT))).reshape(found.shape)
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())  # embed rounds to int16


def test_the_program_of_a_cropped_input_takes_longer_segments(twelve_leads, model):
    x_BCT = np.random.default_rng(2).normal(size=(1, 12, 2600)).astype(np.float32)
    found = program_of(twelve_leads)(x_BCT)
    expected = np.asarray(model.encode(model.prepare(x_BCT))).reshape(found.shape)
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def test_a_filtered_input_that_is_not_cropped_has_a_program_of_its_length_and_any_batch(tmp_path):
    write(tmp_path / "export", FILTERED)
    model, program = jaxbio.load_pretrained(tmp_path / "export"), program_of(tmp_path / "export")
    x_BCT = np.random.default_rng(3).normal(size=(3, 12, 2500)).astype(np.float32)
    expected = np.asarray(model.encode(model.prepare(x_BCT)))
    np.testing.assert_allclose(program(x_BCT), expected, atol=2e-4 * np.abs(expected).max())
    with pytest.raises(ValueError, match="2500"):
        program(x_BCT[..., :2000])


def test_a_missing_lead_is_zeros_for_the_encoder_whatever_is_done_to_the_others(model, signals):
    given = {lead: signal for lead, signal in signals.items() if lead != "v3"}
    x_BCT = np.stack([signals[lead][::2].reshape(3, 2500) for lead in LEADS], axis=1)
    x_BCT[:, LEADS.index("v3")] = 0
    assert not np.asarray(model.prepare(x_BCT))[:, LEADS.index("v3")].any()
    flat = {**signals, "v3": np.full(15_000, 0.3)}
    np.testing.assert_array_equal(model.embed(**given, rate_hz=500), model.embed(**flat, rate_hz=500))


# ---- schema 1: written before an input was more than scaled


@pytest.fixture(scope="module")
def small(export_folder):
    return jaxbio.load_pretrained(export_folder, check=False)


@pytest.fixture
def schema_1(export_folder, small, tmp_path):
    """An export as it was written then: no description but the scaling; the example is of scaled segments."""
    out = shutil.copytree(export_folder, tmp_path / "old")
    x_BCT = np.random.default_rng(0).uniform(-1, 1, (2, 2, 9000)).astype(np.float32)
    np.savez(out / cards.EXAMPLE, x_BCT=x_BCT, tok_BLD=small.encode(x_BCT))
    card = cards.write_card(out, cards.read_card(out), (cards.WEIGHTS, cards.PROGRAM, cards.EXAMPLE))
    old = {
        name: value
        for name, value in dataclasses.asdict(card).items()
        if name not in ("crop_s", "crops", "band_hz", "band_order", "band_design", "standardise")
    }
    (out / cards.CARD).write_text(json.dumps({**old, "schema": 1}))
    return out


def test_an_export_of_schema_1_loads_as_it_was_meant(schema_1, small, small_input):
    old = jaxbio.load_pretrained(schema_1)  # compares with the example, as scaled segments
    assert old.card.schema == 1
    assert old.card.inputs == small_input
    ppg = np.sin(np.arange(18_000) / 40)
    np.testing.assert_array_equal(old.embed(ppg=ppg, rate_hz=300), small.embed(ppg=ppg, rate_hz=300))


def test_a_card_of_schema_1_with_a_field_missing_names_it(schema_1):
    stored = json.loads((schema_1 / cards.CARD).read_text())
    del stored["scaling"]
    (schema_1 / cards.CARD).write_text(json.dumps(stored))
    with pytest.raises(UserError, match="scaling"):
        cards.read_card(schema_1)


def test_the_fields_of_the_default_recipe_are_those_that_schema_1_meant():
    inputs = Input.of(fields.defaults())
    assert inputs == Input(inputs.rate_hz, inputs.length, inputs.channels, inputs.scaling)
