"""Under fsdp a device gathers a layer's parameters when it comes to it: what the step holds, and its losses."""

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


@pytest.fixture(scope="module")
def sizes(compiled):
    """Bytes of a layer; of what is in no stack, which is gathered before the loss, of the teacher too; of its gradients
    before they are reduced; and of a device's part of all gradients.
    """
    _, abstract = compiled
    in_layers, elsewhere = (size_bytes(abstract.params, stacked) for stacked in (True, False))
    layer = in_layers / (2 * LAYERS)  # encoder and decoder
    return layer, elsewhere + size_bytes(abstract.objective_state, stacked=False), elsewhere, (in_layers + elsewhere) / 8


@pytest.mark.slow
def test_a_device_evaluates_with_its_part_of_the_parameters_and_two_layers(sizes):
    layer, elsewhere_whole, _, _ = sizes
    config = small_config(**FSDP)
    objective = make_objective(config)
    evaluate = lower_eval_step(config, objective, lay_out(config, objective)).compile()
    assert layer < step_bytes(evaluate).temporaries < 2 * layer + elsewhere_whole


@pytest.mark.slow
def test_a_device_trains_with_its_part_of_the_parameters_and_two_layers(sizes):
    """With layers that are frozen, so that none of the bytes are their gradients; activations, of one token, count."""
    layer, elsewhere_whole, elsewhere, _ = sizes
    train, _ = compile_train_step(**{"optimizer.groups": ((f"{STACK}/", {"frozen": True}),)})
    assert layer < step_bytes(train).temporaries < 2 * layer + elsewhere_whole + elsewhere


@pytest.mark.slow
def test_a_device_holds_gradients_of_its_part_and_of_layers_within_the_same_two(sizes):
    layer, elsewhere_whole, elsewhere, part = sizes
    train, _ = compile_train_step(logged=False, **{"model.remat": "full"})
    assert part + layer < step_bytes(train).temporaries < part + 2 * layer + elsewhere_whole + elsewhere


@pytest.mark.slow
def test_a_logged_step_holds_its_part_of_all_changes_too_and_activations_but_no_layers_more(compiled, sizes):
    """Changes are measured before they are made, when no layer is gathered any more."""
    train, _ = compiled
    layer, elsewhere_whole, elsewhere, part = sizes
    assert part + 2 * layer < step_bytes(train).temporaries < 2 * part + elsewhere_whole + elsewhere


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
