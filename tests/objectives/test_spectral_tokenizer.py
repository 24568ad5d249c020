"""The first stage: its codebook is the same on any devices and in any parts, and what it must not accept it refuses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_run import make_batches, run
from sigma_ppg_runs import KEYS, tokenizer_config

from jaxbio.objectives import make_objective

STEPS = 5
WAYS = {"one device": (1, 1), "eight devices": (8, 1), "four microbatches": (1, 4)}


def walk(way):
    devices, microbatches = WAYS[way]
    config = tokenizer_config(train__microbatches=microbatches, objective__revive_below=0.5)
    state, metrics = run(config, make_objective(config), STEPS, jax.devices()[:devices])
    return jax.device_get((state.params, state.objective_state, metrics))


@pytest.fixture(scope="module")
def alone():
    return walk("one device")


@pytest.mark.slow
@pytest.mark.parametrize(("way", "atol"), [("eight devices", 1e-5), ("four microbatches", 5e-5)])  # a norm: 1.2e-5
def test_networks_codebook_and_losses_are_those_of_one_device_and_one_batch(alone, way, atol):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=atol), walk(way), alone)


@pytest.fixture(scope="module")
def started():
    config = tokenizer_config()
    objective = make_objective(config)
    batch = {name: array[0] for name, array in make_batches(config, 1).items()}
    params, state = jax.jit(lambda batch: objective.init(jax.random.key(0), batch, {}))(batch)
    return objective, params, state, batch


def outputs_of(started):
    objective, params, state, batch = started
    return jax.device_get(jax.jit(objective.outputs)(params, state, batch))


def test_codes_start_from_the_first_batch_and_are_all_used(started):
    objective, _, state, found = *started[:3], outputs_of(started)
    assert len(np.unique(found["code_BA"])) == 16
    np.testing.assert_allclose(np.linalg.norm(state["code_KZ"], axis=1), 1.0, rtol=1e-5)
    # k-means left each code among the points of its members
    measured = objective.measure(found)
    assert measured["unused_codes"] == 0
    assert objective.targets_given  # spectra of the segments: a small distance is no sign that they are all the same
    assert 8 < measured["code_perplexity"] <= 16


def test_a_decoder_starts_as_good_as_the_best_spectrum_that_is_the_same_for_every_patch(started):
    objective, params, state, batch = started

    def terms_of(params):
        return objective.loss(params, state, batch, KEYS, jnp.float32(0), False)[1][1]

    layer = params["decoder"]["amplitude_output"]
    author = {
        **params,
        "decoder": {**params["decoder"], "amplitude_output": {**layer, "bias": jnp.zeros_like(layer["bias"])}},
    }
    typical, zeros = (jax.device_get(jax.jit(terms_of)(tree)) for tree in (params, author))
    assert typical["amplitude"] == pytest.approx(float(typical["amplitude_constant"]), rel=0.1)
    assert zeros["amplitude"] > 2 * typical["amplitude"]


def test_identical_codes_are_those_that_the_perturbation_leaves(started):
    objective, found = started[0], outputs_of(started)
    measured = objective.measure(found)
    assert measured["identical_codes"] == pytest.approx((found["code_BA"] == found["code_again_BA"]).mean())
    assert 1 / 16 < measured["identical_codes"] < 1


def test_a_batch_in_which_nothing_moves_is_not_learnt_from(started):
    objective, params, state, batch = started
    still = {**batch, "segment_BMCT": np.zeros_like(batch["segment_BMCT"])}
    one = {**still, "segment_BMCT": still["segment_BMCT"].copy()}
    one["segment_BMCT"][3] = batch["segment_BMCT"][3]
    loss = jax.jit(lambda batch: objective.loss(params, state, batch, KEYS, jnp.float32(0), True))
    (of_still, (_, said)), (of_one, (_, other)) = loss(still), loss(one)
    assert np.isnan(of_still)
    assert said["still"] == 1
    assert np.isfinite(of_one)
    assert other["still"] == pytest.approx(15 / 16)


def test_most_used_codes_come_with_the_mean_of_their_patches(started):
    objective, params, state, batch = started
    shown = jax.device_get(jax.jit(objective.show)(params, state, batch))
    code, code_BA = shown["waveforms"]["code"], outputs_of(started)["code_BA"]
    patch_BAT = shown["segment"][:, 0, 0].reshape(16, 20, 50)
    number = code["number_N"][0]
    assert code["share_N"][0] == pytest.approx((code_BA == number).mean())
    assert code["share_N"][0] == np.max([(code_BA == k).mean() for k in range(16)]).astype(np.float32)
    np.testing.assert_allclose(code["mean_NT"][0], patch_BAT[code_BA == number].mean(0), atol=1e-5)


def test_phase_is_decoded_where_it_is_asked_for():
    config = tokenizer_config(objective__phase_weight=1.0, objective__one_sided=True)
    objective = make_objective(config)
    batch = {name: array[0] for name, array in make_batches(config, 1).items()}

    def first(batch):
        params, state = objective.init(jax.random.key(0), batch, {})
        return params["decoder"], objective.loss(params, state, batch, KEYS, jnp.float32(0), False)[1][1]

    decoder, terms = jax.eval_shape(first, batch)
    assert decoder["phase_output"]["kernel"].shape == (16, 26)
    assert "phase" in terms
