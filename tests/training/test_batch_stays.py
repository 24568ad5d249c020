"""On eight devices no device is sent the batch: what the compiled steps of a small QualityFM gather."""

import re

import pytest

from jaxbio.config import fields
from jaxbio.objectives import make_objective
from jaxbio.training.program import lay_out, lower_eval_step, lower_train_step
from jaxbio.transforms import spectra

PAIRS = 176  # eight devices' worth of 22: a number of rows that is no other axis of the model
SMALL = {
    "data.channels": ("ppg",),
    "data.rate_hz": 100.0,
    "data.segment_s": 20.0,
    "data.crop_s": 15.0,
    "data.crops": 2,
    "data.band_hz": (0.5, 8.0),
    "model.width": 100,
    "model.layers": 1,
    "model.feedforward": 64,
    "train.batch": PAIRS,
}


@pytest.fixture(scope="module")
def run():
    config = fields.change(fields.defaults(), SMALL)
    objective = make_objective(config)
    return config, objective, lay_out(config, objective)


def gathered_batches(lowered):
    """Return the shapes with an axis of the batch's rows, or a multiple, that go from device to device."""
    kinds = "all-gather|all-to-all|collective-permute|collective-broadcast"
    moved = re.findall(rf"= (.*?) (?:{kinds})(?:-start)?\(", lowered.compile().as_text())
    assert moved, "moments are split over the devices: parameters at least are gathered"
    shapes = {sizes for shapes in moved for sizes in re.findall(r"\[([\d,]+)\]", shapes)}
    return {sizes for sizes in shapes if any(int(size) % PAIRS == 0 for size in sizes.split(","))}


@pytest.mark.slow
def test_a_training_step_gathers_no_batch(run):
    assert gathered_batches(lower_train_step(*run)) == set()


def test_an_evaluation_gathers_the_features_that_every_host_reads_and_no_more(run):
    config, _, _ = run
    assert gathered_batches(lower_eval_step(*run)) == {f"{PAIRS},{config.model.width}"}


@pytest.mark.slow
def test_left_to_the_partitioner_the_transform_would_gather_it(run, monkeypatch):
    monkeypatch.setattr(spectra, "per_row", lambda transform: transform)
    samples = 1500
    assert f"{PAIRS},1,{samples}" in gathered_batches(lower_eval_step(*run))
