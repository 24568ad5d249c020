"""What freezing saves: gradient and moments. All of a small QualityFM but one bias is frozen."""

import math

import jax
import pytest

from jaxbio.config import fields
from jaxbio.objectives import make_objective
from jaxbio.planning.flops import model_flops
from jaxbio.training.program import lay_out, lower_train_step
from jaxbio.training.state import leaf_paths

SMALL = {
    "data.channels": ("ppg",),
    "data.rate_hz": 100.0,
    "data.segment_s": 15.0,
    "model.width": 400,
    "model.layers": 1,
    "model.feedforward": 256,
    "train.batch": 16,
}
LAST = "phase_head/output/bias"
ALL_BUT_LAST = {"optimizer.groups": ((f"^(?!{LAST}$)", {"frozen": True}),)}


def compiled_step(**changes):
    """Return the layout of a run on one device and its compiled step."""
    config = fields.change(fields.defaults(), {**SMALL, **changes})
    objective = make_objective(config)
    layout = lay_out(config, objective, jax.devices()[:1])
    return layout, lower_train_step(config, objective, layout).compile()


@pytest.fixture(scope="module")
def steps():
    return compiled_step(), compiled_step(**ALL_BUT_LAST)


@pytest.mark.slow
@pytest.mark.slow
def test_a_step_with_all_but_one_bias_frozen_computes_at_most_half(steps):
    whole, frozen = (compiled.cost_analysis()["flops"] for _, compiled in steps)
    assert frozen < 0.5 * whole


@pytest.mark.parametrize("recipe", [{}, {"model.layers": 50, "model.heads": 16, "model.feedforward": 2048}])
def test_the_count_of_flops_is_of_what_moves(recipe):
    """The teacher's and the student's values remain, 0.49 of all, the gradient goes."""
    whole, frozen = (fields.change(fields.defaults(), {**recipe, **changes}) for changes in ({}, ALL_BUT_LAST))
    assert 0.4 < model_flops(frozen, 4).total / model_flops(whole, 4).total < 0.5


@pytest.mark.slow
def test_what_is_frozen_holds_no_moments(steps):
    (whole, _), (frozen, _) = steps
    sizes = {path: math.prod(leaf.shape) * 4 for path, leaf in leaf_paths(whole.abstract.params).items()}
    count_bytes = 4
    for layout, moving in ((whole, sizes), (frozen, [LAST])):
        held = sum(row.bytes_per_device for row in layout.placement.rows if row.path.startswith("opt_state"))
        assert held == count_bytes + 2 * sum(sizes[path] for path in moving)
