"""The second stage: what is hidden, who is rewarded for it, and what it must not accept."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_run import make_batches, start, walk_with
from sigma_ppg_runs import KEYS, small_tokenizer, student_config, tokenizer_network

from jaxbio.config.faults import UserError
from jaxbio.export import folder
from jaxbio.export.frozen import read_networks
from jaxbio.models.qualityfm import QualityFMEncoder
from jaxbio.models.sigma_tokenizer import SigmaTokenizer
from jaxbio.objectives import make_objective, patch_masks
from jaxbio.objectives.single_segments import share_still
from jaxbio.training.sharding import dispatch_sharding
from jaxbio.training.step import make_train_step, seeded
from jaxbio.transforms.prepare_input import Input

STEPS = 5


def walk(devices, **changes):
    config = student_config(model__dropout=0.0, model__attention_dropout=0.0, model__drop_path=0.0, **changes)
    objective, frozen = small_tokenizer(config)
    mesh, optimizer, placement, state = start(config, objective, jax.devices()[:devices], frozen)
    step = seeded(make_train_step(config, objective, optimizer, mesh, placement.shardings), config, mesh)
    batches = jax.device_put(make_batches(config, STEPS), dispatch_sharding(mesh))
    return list(walk_with(step, state, batches))


@pytest.mark.slow
def test_eight_devices_equal_one_baseline_included():
    for (one, found), (eight, other) in zip(walk(1), walk(8)):
        for name, value in found.items():
            # the policy's value is a small difference of products of some ten nats: 9e-6 apart where this was measured
            tolerance = 5e-5 if name == "train/policy" else 1e-5
            np.testing.assert_allclose(other[name], value, rtol=0, atol=tolerance, err_msg=name)
        for ours, theirs in zip(jax.tree.leaves(eight.params), jax.tree.leaves(one.params)):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_accumulation_is_refused_by_name():
    config = student_config(train__microbatches=2)
    objective, frozen = small_tokenizer(config)
    mesh, optimizer, placement, _ = start(config, objective, jax.devices()[:1], frozen)
    with pytest.raises(UserError, match=r"train\.microbatches = 2.*couples"):
        make_train_step(config, objective, optimizer, mesh, placement.shardings)


@pytest.fixture(scope="module")
def started():
    config = student_config()
    objective, frozen = small_tokenizer(config)
    batch = {name: array[0] for name, array in make_batches(config, 1).items()}
    params, state = jax.jit(lambda batch: objective.init(jax.random.key(0), batch, frozen))(batch)
    loss = jax.jit(objective.loss, static_argnums=5)
    return params, state, batch, loss


def test_every_evaluation_hides_the_same_patches_whatever_step_and_seed(started):
    params, state, batch, loss = started
    values = [
        loss(params, state, batch, {"augment": key, "dropout": key}, jnp.float32(progress), False)[0]
        for key, progress in ((jax.random.key(0), 0.0), (jax.random.key(5), 0.5))
    ]
    assert values[0] == values[1]


def test_the_value_is_the_cross_entropy_and_the_gradient_that_of_both(started):
    params, state, batch, loss = started
    gradient = jax.jit(jax.value_and_grad(lambda params: loss(params, state, batch, KEYS, jnp.float32(0), True)[0]))
    value, grads = gradient(params)
    terms = loss(params, state, batch, KEYS, jnp.float32(0), True)[1][1]
    np.testing.assert_allclose(value, terms["cross_entropy"], rtol=1e-6)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads["head"]))
    assert np.any(grads["mask_generator"]["head"]["kernel"])
    assert np.any(grads["encoder"]["mask_token"])


def test_the_tokenizers_products_are_in_full_float32_whatever_the_encoders_are():
    config = student_config()
    objective, frozen = small_tokenizer(config)
    batch = {name: array[0] for name, array in make_batches(config, 1).items()}
    with jax.default_matmul_precision("default"):
        params, state = jax.eval_shape(lambda batch: objective.init(jax.random.key(0), batch, frozen), batch)
        lowered = jax.jit(objective.loss, static_argnums=5).lower(params, state, batch, KEYS, jnp.float32(0), True)
        tokenizer = SigmaTokenizer(16, 2, 2, 4, config.model.patch, config.model.tokens, 16, 8)
        codes_of = jax.jit(lambda x_BCT: tokenizer.apply(frozen["tokenizer"], x_BCT, method="codes_of"))
        alone = codes_of.lower(jnp.zeros((16, 1, 1000))).as_text()
    products = [line for line in lowered.as_text().splitlines() if "dot_general" in line]
    assert sum("HIGHEST" in line for line in products) == alone.count("dot_general") < len(products)


def test_hidden_shares_follow_ratio_punching_and_runs(started):
    params, state, batch, loss = started
    hidden = [
        loss(params, state, batch, {**KEYS, "augment": jax.random.key(seed)}, jnp.float32(0), True)[1][1]["hidden"]
        for seed in range(20)
    ]
    assert np.mean(hidden) == pytest.approx(0.5 * 0.7, abs=0.02)


def test_a_batch_in_which_nothing_moves_is_not_learnt_from_and_said(started):
    params, state, batch, loss = started
    still = {**batch, "segment_BMCT": np.zeros_like(batch["segment_BMCT"])}
    value, (_, terms) = loss(params, state, still, KEYS, jnp.float32(0), True)
    assert np.isnan(value)
    assert terms["still"] == 1
    assert loss(params, state, batch, KEYS, jnp.float32(0), True)[1][1]["still"] == 0


def test_segments_whose_chosen_patches_are_all_released_move_no_baseline(monkeypatch):
    def draw(key_B, patches):
        choice_BA = jax.vmap(lambda key: jax.random.uniform(key, (patches,)))(key_B)
        released_B1 = (jnp.arange(len(key_B)) % 2 == 0)[:, None]
        return patch_masks.Uniforms(choice_BA, jnp.broadcast_to(jnp.where(released_B1, 0.0, 1.0), choice_BA.shape))

    monkeypatch.setattr(patch_masks, "draw_uniforms", draw)
    config = student_config(objective__mask_ratio=0.1, objective__punch_prob=0.5)
    objective, frozen = small_tokenizer(config)
    batch = {name: array[0] for name, array in make_batches(config, 1).items()}

    @jax.jit
    def first(batch):
        params, state = objective.init(jax.random.key(0), batch, frozen)
        return objective.loss(params, state, batch, KEYS, jnp.float32(0), True)[1][1]

    terms = first(batch)
    assert terms["hidden"] == pytest.approx(0.05)
    # two hidden patches in each of the others: the mean of their rewards is the mean over all hidden patches
    assert terms["reward"] == pytest.approx(float(terms["cross_entropy"]), rel=1e-5)
    assert terms["advantage_spread"] < 0.25 * terms["reward"]


def test_masks_by_logits_prefer_what_the_logits_prefer():
    logit_BA = jnp.tile(jnp.linspace(-2.0, 2.0, 20)[None], (4000, 1))
    uniform_BA = jax.random.uniform(jax.random.key(0), logit_BA.shape)
    first_B = patch_masks.choose_by_logits(logit_BA, uniform_BA)[:, 0]
    share_A = np.bincount(first_B, minlength=20) / 4000
    np.testing.assert_allclose(share_A, jax.nn.softmax(logit_BA[0]), atol=0.03)


def test_the_exact_likelihood_sums_to_one_over_all_orders():
    logit_A = np.array([0.3, -1.0, 2.0, 0.5])
    orders = np.array([(*chosen, *(set(range(4)) - set(chosen))) for chosen in itertools.permutations(range(4), 2)])
    exact_B = patch_masks.log_likelihood(jnp.tile(logit_A, (len(orders), 1)), orders, 2, "plackett_luce")
    assert np.exp(exact_B).sum() == pytest.approx(1.0, rel=1e-5)
    p = np.exp(logit_A) / np.exp(logit_A).sum()
    np.testing.assert_allclose(np.exp(exact_B[0]), p[0] * p[1] / (1 - p[0]), rtol=1e-5)


def test_no_run_is_longer_than_allowed_and_short_ones_stay():
    hidden_BA = np.random.default_rng(0).random((50, 60)) < 0.8
    limited_BA = np.asarray(patch_masks.limit_runs(hidden_BA, 3))
    longest = max(len(run) for row in limited_BA for run in "".join(map(str, row.astype(int))).split("0"))
    assert longest == 3
    assert not (limited_BA & ~hidden_BA).any()


def test_a_patch_that_pays_is_chosen_more_often_after_a_few_steps_of_the_policy():
    logit_1A, rate = jnp.zeros((1, 10)), 0.5

    @jax.jit
    def step(logit_1A, key):
        uniform_BA = jax.random.uniform(key, (64, 10))
        order_BA = patch_masks.choose_by_logits(jnp.repeat(logit_1A, 64, axis=0), uniform_BA)
        reward_B = (order_BA[:, :3] == 7).any(-1) * 1.0
        advantage_B = reward_B - reward_B.mean()

        def policy(logit_1A):
            logit_BA = jnp.repeat(logit_1A, 64, axis=0)
            return -(advantage_B * patch_masks.log_likelihood(logit_BA, order_BA, 3, "plackett_luce")).mean()

        return logit_1A - rate * jax.grad(policy)(logit_1A)

    for number in range(60):
        logit_1A = step(logit_1A, jax.random.key(number))
    assert jnp.argmax(logit_1A) == 7
    assert jax.nn.softmax(logit_1A)[0, 7] > 0.3


@pytest.mark.parametrize("masking", ["prior", "random"])
def test_other_ways_of_masking_have_no_generator(masking):
    config = student_config(objective__masking=masking, optimizer__groups=())
    objective, frozen = small_tokenizer(config)
    batch = {name: array[0] for name, array in make_batches(config, 1).items()}
    params, _ = jax.eval_shape(lambda batch: objective.init(jax.random.key(0), batch, frozen), batch)
    assert params.keys() == {"encoder", "head"}


def test_prior_masks_lie_where_the_prior_is_high():
    prior_BA = np.random.default_rng(0).random((200, 20)).astype(np.float32)
    uniform_BA = jax.random.uniform(jax.random.key(0), prior_BA.shape)
    chosen_BN = patch_masks.choose_by_logits(patch_masks.prior_logits(prior_BA), uniform_BA)[:, :5]
    assert np.take_along_axis(prior_BA, np.asarray(chosen_BN), 1).mean() > prior_BA.mean() + 0.15


def test_a_foreign_tokenizer_and_one_of_another_patch_are_refused():
    config = student_config()
    foreign = tokenizer_network(QualityFMEncoder(100, 1, 1, 8, 8, 0.0), {})
    with pytest.raises(UserError, match=r"objective\.tokenizer = 'qualityfm': an encoder without codes"):
        make_objective(config, {"tokenizer": foreign})
    other = tokenizer_network(SigmaTokenizer(16, 1, 2, 4, 100, 10, 16, 8), {})
    with pytest.raises(UserError, match=r"patches have 100 samples, the encoder's 50"):
        make_objective(config, {"tokenizer": other})


def test_a_tokenizer_of_other_crops_is_refused_by_the_fields_name(tmp_path):
    module, inputs = SigmaTokenizer(16, 1, 2, 4, 50, 20, 16, 8), Input.of(student_config())
    variables = jax.jit(module.init)(jax.random.key(0), np.zeros((1, *inputs.shape), np.float32))
    origin = folder.Origin("a test", "tokenizer")
    folder.write_export(tmp_path / "export", module, variables, inputs=inputs, origin=origin)
    named = {"objective__tokenizer": str(tmp_path / "export")}
    assert read_networks(student_config(**named)).keys() == {"tokenizer"}
    with pytest.raises(UserError, match=r"an export with data\.crop_s = None': the run has 10\.0"):
        read_networks(student_config(data__crop_s=10.0, **named))


@pytest.mark.parametrize("rows", [3, 41, 96, 192])
def test_none_of_a_batch_that_moves_is_said_to_stand_still(rows):
    x_BCT = jnp.asarray(np.random.default_rng(0).normal(size=(rows, 1, 8)), jnp.float32)
    assert jax.jit(share_still)(x_BCT) == 0
    assert jax.jit(share_still)(x_BCT.at[0].set(1.0)) == pytest.approx(1 / rows)
