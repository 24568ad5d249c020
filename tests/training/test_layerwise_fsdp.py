"""Under fsdp a device gathers a layer's parameters when it comes to it: what the step holds, and its losses."""

from typing import NamedTuple

import jax
import numpy as np
import pytest
from linear_run import linear_config, run

from jaxbio.config import fields
from jaxbio.models.layer_stack import STACK
from jaxbio.objectives import make_objective
from jaxbio.planning.collectives import count_collectives
from jaxbio.planning.plan import step_bytes
from jaxbio.training.program import lay_out, lower_eval_step, lower_train_step
from jaxbio.training.state import leaf_paths

LAYERS = 12
FSDP = {"mesh.data": 1, "mesh.fsdp": 8, "mesh.rules": ((".*", "fsdp"),)}


def small_config(**changes):
    """QualityFM of narrow layers with a wide feed-forward part, on one channel of five seconds at 100 Hz."""
    small = {
        "data.channels": ("ppg",),
        "data.rate_hz": 100.0,
        "data.segment_s": 5.0,
        "model.width": 128,
        "model.layers": LAYERS,
        "model.heads": 4,
        "model.feedforward": 4096,
        "model.dropout": 0.0,
        "train.batch": 8,
    }
    return fields.change(linear_config(), small | changes)


def size_bytes(tree, stacked):
    return sum(leaf.size * 4 for path, leaf in leaf_paths(tree).items() if (STACK in path.split("/")) == stacked)


def compile_train_step(logged=True, **changes):
    """Return the training step on eight devices, a pair each, and the state as shapes."""
    config = small_config(**FSDP, **changes)
    objective = make_objective(config)
    layout = lay_out(config, objective)
    return lower_train_step(config, objective, layout, logged=logged).compile(), layout.abstract


@pytest.fixture(scope="module")
def compiled():
    return compile_train_step()


class Sizes(NamedTuple):
    """Bytes: of a layer; of what is in no stack, of student and teacher, which is gathered before the loss, and of its
    gradients before they are reduced; of a device's part of all gradients, and of student and teacher.
    """

    layer: float
    elsewhere: int
    gradients_elsewhere: int
    part_of_gradients: float
    part: float


@pytest.fixture(scope="module")
def sizes(compiled):
    _, abstract = compiled
    student, teacher = (
        {stacked: size_bytes(tree, stacked) for stacked in (True, False)}
        for tree in (abstract.params, abstract.objective_state)
    )
    layer = student[True] / (2 * LAYERS)  # encoder and decoder
    of_student, of_teacher = (sum(tree.values()) / 8 for tree in (student, teacher))
    return Sizes(layer, student[False] + teacher[False], student[False], of_student, of_student + of_teacher)


@pytest.mark.slow
def test_a_device_evaluates_with_its_part_of_the_parameters_and_two_layers(sizes):
    config = small_config(**FSDP)
    objective = make_objective(config)
    evaluate = lower_eval_step(config, objective, lay_out(config, objective)).compile()
    assert sizes.layer < step_bytes(evaluate).temporaries < 2 * sizes.layer + sizes.elsewhere


@pytest.mark.slow
def test_a_device_trains_with_its_part_of_the_parameters_and_two_layers(sizes):
    """With layers that are frozen, so that none of the bytes are their gradients; activations, of one token, count."""
    train, _ = compile_train_step(**{"optimizer.groups": ((f"{STACK}/", {"frozen": True}),)})
    held, moments = step_bytes(train), 2 * sizes.gradients_elsewhere / 8
    assert held.arguments == pytest.approx(sizes.part + moments, rel=0.01)
    assert sizes.layer < held.temporaries < 2 * sizes.layer + sizes.elsewhere + sizes.gradients_elsewhere


@pytest.mark.slow
def test_a_device_holds_gradients_of_its_part_and_of_layers_within_the_same_two(sizes):
    train, _ = compile_train_step(logged=False, **{"model.remat": "full"})
    besides = step_bytes(train).temporaries - sizes.part_of_gradients
    assert sizes.layer < besides < 2 * sizes.layer + sizes.elsewhere + sizes.gradients_elsewhere


@pytest.mark.slow
def test_a_logged_step_holds_its_part_of_all_changes_too_and_activations_but_no_layers_more(compiled, sizes):
    """Changes are measured before they are made, when no layer is gathered any more."""
    train, _ = compiled
    besides = step_bytes(train).temporaries - 2 * sizes.part_of_gradients
    assert 0 < besides < sizes.elsewhere + sizes.gradients_elsewhere


@pytest.mark.slow
def test_every_layer_is_gathered_forward_and_backward_and_its_gradient_reduced_once(compiled):
    train, abstract = compiled
    traffic = count_collectives(train.as_text()).by_kind
    student = size_bytes(abstract.params, stacked=True)
    teacher = size_bytes(abstract.objective_state, stacked=True)
    assert traffic["all-gather"].bytes == pytest.approx(2 * student + teacher, rel=0.02)
    assert traffic["all-reduce"].bytes == pytest.approx(student, rel=0.02)


@pytest.mark.slow
def test_layers_split_over_tensor_too_give_the_losses_of_one_device():
    small = {"model.layers": 3, "model.feedforward": 64, "train.batch": 16}
    mixed = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2}
    rules = (("blocks/feedforward_in/kernel", (None, "fsdp", "tensor")), (".*", "fsdp"))
    one, split = small_config(**small), small_config(**small, **mixed, **{"mesh.rules": rules})
    _, wanted = run(one, make_objective(one), 3, jax.devices()[:1])
    _, found = run(split, make_objective(split), 3)
    np.testing.assert_allclose(found["train/loss"], wanted["train/loss"], rtol=1e-5)
