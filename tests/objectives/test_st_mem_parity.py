"""ST-MEM: the numbers of the reference implementation, three optimiser steps included, and the published sizes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twelve_lead_parity import KEYS, batch_of, check_after, check_gradients, make_small, optimise, read_arrays

from jaxbio.config.command_line import load_recipe
from jaxbio.config.faults import UserError
from jaxbio.data.batch import random_batch
from jaxbio.export.torch_import import read_reference, to_reference, trees_from_reference
from jaxbio.export.weights import flatten_tree
from jaxbio.models.st_mem import STMEM, LeadDecoder
from jaxbio.objectives import make_objective, patch_reconstruction
from jaxbio.objectives.patch_reconstruction import draw_ranks, kept_patches, masked_error
from jaxbio.transforms.time_masks import ranks

SMALL = {"width": 64, "layers": 2, "heads": 2, "feedforward": 256, "patch": 25}
CHANGES = {
    **{f"model.{name}": value for name, value in SMALL.items()},
    "objective.decoder_width": 32,
    "objective.decoder_layers": 2,
    "objective.decoder_heads": 2,
    "optimizer.b2": 0.95,
    "optimizer.weight_decay": 0.01,
    "optimizer.weight_decay_end": 0.01,
    "optimizer.decay_mask": "all",
}


@pytest.fixture(scope="module")
def arrays(parity_dir):
    return read_arrays(parity_dir, "st_mem.npz")


@pytest.fixture(scope="module")
def params(parity_dir):
    return trees_from_reference("st_mem", read_reference(parity_dir / "st_mem.npz", "model/"), SMALL)["params"]


@pytest.fixture(scope="module")
def loss_of(arrays):
    """loss(params, noise_BCN, normalise) of the objective itself, on the reference's input and masks."""
    batch = batch_of(arrays["x_BCT"])

    def loss(params, noise_BCN, normalise=True):
        _, objective = make_small(
            "st_mem",
            "patch_reconstruction",
            ("i", "ii", "v1", "v2"),
            CHANGES | {"objective.normalise_target": normalise},
        )
        with pytest.MonkeyPatch.context() as context:
            context.setattr(patch_reconstruction, "single_segments", lambda *_: jnp.asarray(arrays["x_BCT"]))
            context.setattr(patch_reconstruction, "draw_ranks", lambda *_: ranks(noise_BCN))
            return objective.loss(params, {}, batch, KEYS, 0.0, True)[0]

    return loss


def test_tokens_patches_and_embedding_are_the_references(arrays, params):
    encoder, x_BCT = STMEM(**SMALL), arrays["x_BCT"]
    rank_BCN = ranks(arrays["noise_BCN"])
    np.testing.assert_array_equal(rank_BCN, arrays["ids_restore_BCN"])
    np.testing.assert_array_equal(rank_BCN >= kept_patches(12, 0.75), arrays["mask_BCN"])
    apply = jax.jit(encoder.apply, static_argnums=2)
    own = {"params": params["encoder"]}
    kept_BCV = jnp.argsort(rank_BCN, -1)[..., :3]
    tok_BCSD = apply(own, x_BCT, False, kept_BCV=kept_BCV)
    np.testing.assert_allclose(tok_BCSD.reshape(3, 20, 64), arrays["latent_BLD"], atol=2e-5)
    np.testing.assert_allclose(apply(own, x_BCT, False)[:, 0], arrays["embedding_BD"], atol=2e-5)
    every_BLD = encoder.clone(output="tokens").apply(own, x_BCT)
    wanted_BCSD = arrays["latent_unmasked_BLD"].reshape(3, 4, 14, 64)
    np.testing.assert_allclose(every_BLD.reshape(3, 4, 12, 64), wanted_BCSD[:, :, 1:-1], atol=2e-5)
    _, inside = encoder.apply(own, x_BCT, capture_intermediates=lambda module, _: module.name == "embed_norm")
    (embedded_BCND,) = inside["intermediates"]["embed_norm"]["__call__"]
    np.testing.assert_allclose(embedded_BCND, arrays["patch_embedding_BCND"], atol=2e-5)
    decoder = LeadDecoder(32, 2, 2, 128, 25)
    decoded_BCNP = decoder.apply({"params": params["decoder"]}, tok_BCSD, rank_BCN)
    np.testing.assert_allclose(decoded_BCNP, arrays["prediction_BCNP"], atol=2e-5)


def test_losses_and_gradients_are_the_references(arrays, params, loss_of):
    loss, grads = jax.jit(jax.value_and_grad(loss_of))(params, arrays["noise_BCN"])
    np.testing.assert_allclose(loss, arrays["loss"], atol=1e-5)
    check_gradients("st_mem", grads, arrays)
    raw = jax.jit(partial(loss_of, normalise=False))(params, arrays["noise_BCN"])
    np.testing.assert_allclose(raw, arrays["loss_raw_target"], atol=1e-5)


def test_three_steps_are_the_references(arrays, params, loss_of):
    config, _ = make_small("st_mem", "patch_reconstruction", ("i", "ii", "v1", "v2"), CHANGES)
    init, step = optimise(config, steps=3)
    gradient, moved, opt_state = jax.jit(jax.value_and_grad(loss_of)), params, init(params)
    for number, noise_BCN in enumerate(arrays["steps/noise_SBCN"]):
        loss, grads = gradient(moved, noise_BCN)
        np.testing.assert_allclose(loss, arrays["steps/loss_S"][number], atol=1e-5)
        moved, opt_state = step(moved, opt_state, grads, number)
    check_after(to_reference("st_mem", {"params": moved}), arrays, worst=2e-4)


def test_the_references_arrays_come_in_and_go_out_unchanged(arrays, params):
    back = to_reference("st_mem", {"params": params}, input_shape=(4, 300))
    stored = {name.removeprefix("model/") for name in arrays if name.startswith("model/")}
    assert back.keys() == stored
    for name in stored:
        np.testing.assert_allclose(back[name], arrays[f"model/{name}"], atol=2e-6, err_msg=name)


def test_a_trained_position_table_is_refused(parity_dir):
    weights = read_reference(parity_dir / "st_mem.npz", "model/")
    weights["encoder.pos_embedding"] = weights["encoder.pos_embedding"] + 0.1
    with pytest.raises(UserError, match=r"encoder\.pos_embedding.*not the fixed table"):
        trees_from_reference("st_mem", weights, SMALL)


@pytest.mark.parametrize(
    ("size", "trained", "encoder"), [("small", 24_607_073, 21_341_718), ("base", 88_501_985, 85_150_614)]
)
def test_sizes_are_the_published_ones(size, trained, encoder):
    config = load_recipe(f"configs/st_mem_{size}.py:smoke")
    objective = make_objective(config)
    params, _ = jax.eval_shape(objective.init, jax.random.key(0), random_batch(config, np.random.default_rng(0)), {})
    counts = {part: sum(leaf.size for leaf in flatten_tree(tree).values()) for part, tree in params.items()}
    assert sum(counts.values()) == trained
    # the reference counts its table of 32 fixed positions
    assert counts["encoder"] + 32 * config.model.width == encoder


def test_masks_follow_row_and_step_and_leave_seven_of_thirty():
    row_BM = np.array([[5], [9], [5]], np.uint32)
    first, second = (np.asarray(draw_ranks(row_BM, jax.random.key(step), 12, 30)) for step in (0, 1))
    np.testing.assert_array_equal(first[0], first[2])
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[0, ::-1])
    assert not np.array_equal(first, second)
    assert kept_patches(30, 0.75) == 7
    np.testing.assert_array_equal(np.sort(first, -1), np.broadcast_to(np.arange(30), first.shape))


def test_the_loss_counts_no_patch_of_an_absent_lead():
    rng = np.random.default_rng(0)
    x_BCT = rng.normal(size=(2, 3, 100)).astype(np.float32)
    x_BCT[0, 1] = 0
    patch_BCNP = rng.normal(size=(2, 3, 4, 25)).astype(np.float32)
    rank_BCN = np.broadcast_to(np.arange(4), (2, 3, 4))
    whole = masked_error(jnp.asarray(x_BCT), jnp.asarray(patch_BCNP), jnp.asarray(rank_BCN), 0.75, True)
    changed_BCNP = patch_BCNP.copy()
    changed_BCNP[0, 1] += 5.0
    changed_BCNP[:, :, 0] += 5.0  # the patches that stay
    changed = masked_error(jnp.asarray(x_BCT), jnp.asarray(changed_BCNP), jnp.asarray(rank_BCN), 0.75, True)
    np.testing.assert_allclose(whole, changed)
