"""An export of a 12-lead encoder: in and out whole, and recordings of one lead."""

import dataclasses

import jax
import numpy as np
import pytest
import wfdb

import jaxbio
from jaxbio.config import fields
from jaxbio.config.command_line import load_recipe
from jaxbio.config.resolve import find_faults
from jaxbio.config.roles import LEADS
from jaxbio.export import folder, initial, reference
from jaxbio.export.pretrained import Pretrained
from jaxbio.models import ENCODERS
from jaxbio.objectives import make_objective
from jaxbio.signals.synthetic import recording
from jaxbio.signals.synthetic_leads import project
from jaxbio.transforms.prepare_input import Input

SMALL = {"model.width": 16, "model.layers": 1, "model.heads": 2, "model.feedforward": 32}


def write(recipe, out):
    """Write the export of a small encoder of `recipe` to `out` and return its configuration."""
    name, _, preset = recipe.partition(":")
    config = fields.change(load_recipe(f"configs/{name}.py:{preset}"), SMALL)
    module = ENCODERS[config.model.name](**{k: v for k, v in config.model.items() if k != "name"})
    inputs = Input.of(config)
    variables = jax.jit(module.init)(jax.random.key(0), np.ones((1, *inputs.shape), np.float32))
    folder.write_export(out, module, variables, inputs=inputs, origin=folder.Origin("a test", "encoder"))
    return config


@pytest.fixture(scope="module", params=["st_mem_small", "ecg_jepa_small:twelve"])
def exported(request, tmp_path_factory):
    """(folder, configuration) of a small encoder of twelve leads."""
    out = tmp_path_factory.mktemp("export") / "leads"
    return out, write(request.param, out)


def test_a_recording_of_one_lead_is_embedded_and_its_lead_named(exported, data_dir):
    model = jaxbio.load_pretrained(exported[0])
    record = wfdb.rdrecord(str(data_dir / "cinc2017" / "A00003"))
    signal_T = record.p_signal[: 20 * record.fs, 0]
    found = model.embed_segments(i=signal_T, rate_hz=record.fs)
    assert found.vector_BD.shape == (2, 16)
    assert np.isfinite(found.vector_BD).all()
    np.testing.assert_array_equal(found.present_BC, np.broadcast_to(np.array(LEADS) == "i", (2, 12)))
    np.testing.assert_array_equal(model.embed(i=signal_T, rate_hz=record.fs), found.vector_BD)


def test_a_lead_that_lies_still_counts_as_absent(exported):
    model = jaxbio.load_pretrained(exported[0], check=False)
    rng = np.random.default_rng(0)
    signals = {lead: rng.normal(size=2500) for lead in LEADS}
    still = model.embed_segments(**{**signals, "v3": np.full(2500, 1.7)}, rate_hz=250)
    lacking = model.embed_segments(**{lead: x for lead, x in signals.items() if lead != "v3"}, rate_hz=250)
    np.testing.assert_allclose(still.vector_BD, lacking.vector_BD, atol=1e-6)
    np.testing.assert_array_equal(still.present_BC, lacking.present_BC)
    assert still.present_BC.sum() == 11


def test_swapped_leads_are_doubted_and_embedded_all_the_same(exported, caplog):
    model = jaxbio.load_pretrained(exported[0], check=False)
    leads = project(0, 1, np.nan_to_num(recording(0, duration_s=10.0, rate_hz=250.0).ecg), 250.0)
    assert model.embed_segments(**leads, rate_hz=250).doubts == ()
    swapped = {**leads, "ii": leads["avr"], "avr": leads["ii"]}
    found = model.embed_segments(**swapped, rate_hz=250)
    assert np.isfinite(found.vector_BD).all()
    (doubt,) = found.doubts
    assert doubt.startswith("1 of 1 segments have limb leads that contradict each other")
    assert doubt in caplog.text
    assert model.embed_segments(i=leads["i"], ii=leads["avr"], rate_hz=250).doubts == ()  # which two leads cannot show


@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_leads_that_are_not_in_mv_are_doubted_where_the_size_is_seen(exported, factor):
    model = jaxbio.load_pretrained(exported[0], check=False)
    ecg_T = factor * np.nan_to_num(recording(0, duration_s=10.0, rate_hz=250.0).ecg)
    (doubt,) = model.embed_segments(i=ecg_T, rate_hz=250).doubts
    assert doubt.startswith("a median range of the leads of")
    assert doubt.endswith("mV: are they in mV")
    assert model.embed_segments(i=ecg_T / factor, rate_hz=250).doubts == ()
    card, module, variables = folder.read_export(exported[0])
    unitless = Pretrained(dataclasses.replace(card, scaling="per_channel"), module, variables)
    assert unitless.embed_segments(i=ecg_T, rate_hz=250).doubts == ()


def test_the_references_layout_and_back_is_the_identity(exported, tmp_path):
    out, config = exported
    card, module, variables = folder.read_export(out)
    written = reference.write_reference(tmp_path / "theirs", module, variables, card.inputs)
    family = {"st_mem": "st_mem", "ecg_jepa": "ecg_jepa"}[card.encoder]
    reference.import_reference(family, config, written["reference"], tmp_path / "back")
    _, _, again = folder.read_export(tmp_path / "back")
    jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.mark.parametrize(
    ("encoder", "presets"),
    [("st_mem_base", ("", "semi_hard", "author", "smoke")), ("st_mem_base:hybrid", ("hybrid", "hybrid,author"))],
)
def test_triplets_start_from_an_export_of_st_mem_whatever_the_preset(encoder, presets, tmp_path):
    write(encoder, tmp_path / "export")
    for preset in presets:
        start = {**SMALL, "train.init_from": (("encoder", str(tmp_path / "export")),)}
        config = fields.change(load_recipe(f"configs/ecg_triplet.py:{preset}"), start)
        assert find_faults(config) == []
        initial.check_start(config, make_objective(config))
