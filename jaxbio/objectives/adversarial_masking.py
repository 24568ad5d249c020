"""SIGMA-PPG's second stage: an encoder names the codes of hidden patches, and a small network learns which to hide.

The encoder's loss is the cross-entropy of the codes that a frozen tokenizer gives the hidden patches. The mask
generator is rewarded with that loss by policy gradient (REINFORCE; its baseline is the mean over those segments of the
global batch that have anything hidden), a statistical prior being added to its logits, so that it looks for patches
that are hard and physiological, not noisy (docs/references.md). Random and prior-only masks are there to
compare with, and every evaluation hides the same patches, drawn at random by a segment's row alone: held-out losses of
all ways of masking, steps and seeds compare.

    params: {"encoder", "head", "mask_generator" where it is learnt}
    state:  {"tokenizer": the frozen network's variables}
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.sigma import CodeHead, MaskGenerator, SigmaEncoder
from jaxbio.objectives import patch_masks
from jaxbio.objectives.objective import Aux, Batch, Network, Objective, Tree
from jaxbio.objectives.single_segments import anything_moves, share_still
from jaxbio.transforms.augment import augment, row_keys
from jaxbio.transforms.patches import patch_prior
from jaxbio.transforms.prepare_input import Input, prepare_batch

_MASK = 1  # folded into the key of the augmentation


class Masks(NamedTuple):
    """What a way of masking gives: `chosen_BN` the patches that it wanted hidden, `hidden_BA` those that are, after
    some were released; `log_likelihood_B` of the choice and `logit_BA` behind it, where they are learnt.
    """

    chosen_BN: jax.Array
    hidden_BA: jax.Array
    log_likelihood_B: jax.Array | None = None
    logit_BA: jax.Array | None = None


def adversarial_masking(
    encoder: SigmaEncoder,
    *,
    inputs: Input,
    augmentation: Mapping[str, Any],
    tokenizer: Network,
    masking: str,
    mask_ratio: float,
    punch_prob: float,
    longest_run: int,
    amplitude_share: float,
    prior_weight: float,
    likelihood: str,
    mask_width: int,
    mask_layers: int,
    mask_heads: int,
) -> Objective:
    """Return the objective for `encoder`; the arguments are the fields of the same names in jaxbio/config/families/.

    `tokenizer` is the frozen network, an export of the first stage; UserError where it gives no codes, or its patch is
    not the encoder's. Metrics: cross_entropy, policy, accuracy (share of exact codes; accuracy_peak and accuracy_flat
    where the prior is above, or not, its mean over hidden patches), reward, advantage_spread, mask_entropy,
    encoder_entropy, hidden (share of patches), prior_of_hidden (over the mean of all), prior_overlap (share of the
    hidden that are among as many patches of largest prior) and still. The loss is a mean over all hidden patches of a
    batch and its baseline that of the batch, so that accumulation is refused.
    """
    _check_tokenizer(tokenizer, encoder)
    patch = encoder.patch
    head = CodeHead(tokenizer.module.codes, encoder.dtype)
    generator = MaskGenerator(mask_width, mask_layers, mask_heads, patch, encoder.tokens, encoder.dtype)
    augments = any(value > 0 for name, value in augmentation.items() if name.endswith("_prob"))

    def prepare(batch: Batch, key: jax.Array | None = None) -> jax.Array:
        return prepare_batch(batch, inputs, key)[:, 0]

    def init(key: jax.Array, batch: Batch, frozen: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        encoder_key, head_key, mask_key = jax.random.split(key, 3)
        x_BCT = jnp.zeros((1, *inputs.shape_of(batch["segment_BMCT"])))
        tok_BAD, variables = encoder.init_with_output(encoder_key, x_BCT)
        params = {"encoder": variables["params"], "head": head.init(head_key, tok_BAD)["params"]}
        if masking == "adversarial":
            params["mask_generator"] = generator.init(mask_key, x_BCT)["params"]
        return params, {"tokenizer": frozen["tokenizer"]}

    def codes_of(state: Tree, x_BCT: jax.Array) -> Any:
        with jax.default_matmul_precision("highest"):  # float32 in full: coarser products give patches other codes
            return tokenizer.module.apply(state["tokenizer"], x_BCT, method="codes_of")

    def hide(params: Tree, x_BCT: jax.Array, prior_BA: jax.Array, key_B: jax.Array, way: str) -> Masks:
        """Return masks of `way`, drawn by each row's key."""
        patches = prior_BA.shape[1]
        chosen = int(patches * mask_ratio)
        uniform = patch_masks.draw_uniforms(key_B, patches)
        log_likelihood_B = logit_BA = None
        match way:
            case "random":
                order_BA = patch_masks.choose_at_random(uniform.choice_BA)
            case "prior":
                order_BA = patch_masks.choose_by_logits(patch_masks.prior_logits(prior_BA), uniform.choice_BA)
            case _:
                learnt_BA: Any = generator.apply({"params": params["mask_generator"]}, x_BCT)
                logit_BA = learnt_BA + prior_weight * patch_masks.z_score(prior_BA)
                order_BA = patch_masks.choose_by_logits(jax.lax.stop_gradient(logit_BA), uniform.choice_BA)
                log_likelihood_B = patch_masks.log_likelihood(logit_BA, order_BA, chosen, likelihood)
        chosen_BN = order_BA[:, :chosen]
        hidden_BA = patch_masks.punch(patch_masks.as_mask(chosen_BN, patches), uniform.punch_BA, punch_prob)
        return Masks(chosen_BN, patch_masks.limit_runs(hidden_BA, longest_run), log_likelihood_B, logit_BA)

    def loss(
        params: Tree, state: Tree, batch: Batch, keys: Mapping[str, jax.Array], progress: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[Aux, dict[str, jax.Array]]]:
        x_BCT = prepare(batch, keys["augment"] if train else None)
        prior_BA = patch_prior(x_BCT[:, 0], patch, amplitude_share)
        masks = hide(params, x_BCT, prior_BA, _mask_keys(keys, batch, train), masking if train else "random")
        code_BA = codes_of(state, x_BCT)
        seen_BCT = _augment(x_BCT, batch, keys["augment"], augmentation) if train and augments else x_BCT
        variables, streams = {"params": params["encoder"]}, {"dropout": keys["dropout"]}
        tok_BAD: Any = encoder.apply(variables, seen_BCT, train, masks.hidden_BA, rngs=streams)

        # only patches that were wanted hidden can be: logits of the others are not computed
        logit_BNK: Any = head.apply({"params": params["head"]}, _at(tok_BAD, masks.chosen_BN))
        label_BN, hidden_BN, prior_BN = (_at(array, masks.chosen_BN) for array in (code_BA, masks.hidden_BA, prior_BA))
        miss_BN = -jnp.take_along_axis(jax.nn.log_softmax(logit_BNK), label_BN[..., None], axis=-1)[..., 0]
        cross_entropy = _mean(miss_BN, hidden_BN)
        reward_B = (miss_BN * hidden_BN).sum(-1) / (hidden_BN.sum(-1) + 1e-6)
        paid_B = hidden_BN.any(-1)  # where every chosen patch was released there is nothing to pay for
        baseline = _mean(reward_B, paid_B)
        correct_BN = jnp.argmax(logit_BNK, axis=-1) == label_BN
        terms = {
            "cross_entropy": cross_entropy,
            "reward": baseline,
            "still": share_still(x_BCT),
            "encoder_entropy": _mean(patch_masks.entropy(logit_BNK), hidden_BN),
            **_accuracies(correct_BN, hidden_BN, prior_BN),
            **_mask_metrics(masks.hidden_BA, prior_BA),
        }
        total = cross_entropy
        if masks.log_likelihood_B is not None and masks.logit_BA is not None:
            advantage_B = jax.lax.stop_gradient(reward_B - baseline)
            policy = -_mean(advantage_B * masks.log_likelihood_B, paid_B)
            terms |= {"policy": policy, "advantage_spread": jnp.sqrt(_mean(jnp.square(advantage_B), paid_B))}
            terms["mask_entropy"] = patch_masks.entropy(masks.logit_BA).mean()
            # the gradient of both; the value of what is to fall
            total = total + policy - jax.lax.stop_gradient(policy)
        # nothing can be learnt from a batch in which nothing moves: the run stops and says so
        return jnp.where(anything_moves(x_BCT), total, jnp.nan), (Aux(()), terms)

    def update(
        params: Tree, state: Tree, aux: Aux, key: jax.Array, progress: jax.Array
    ) -> tuple[Tree, dict[str, jax.Array]]:
        return state, {}

    def show(params: Tree, state: Tree, batch: Batch) -> dict[str, Any]:
        x_BCT = prepare(batch)
        prior_BA = patch_prior(x_BCT[:, 0], patch, amplitude_share)
        masks = hide(params, x_BCT, prior_BA, _fixed_keys(batch), masking)
        return {"segment": x_BCT[:, None], "maps": {"prior": prior_BA, "hidden": masks.hidden_BA.astype(jnp.float32)}}

    encoders = {"encoder": (encoder, lambda params, state: {"params": params["encoder"]})}
    return Objective(init, loss, update, encoders, coupled=True, show=show)


def _check_tokenizer(tokenizer: Network, encoder: SigmaEncoder) -> None:
    named, patch = tokenizer.card["encoder"], tokenizer.card["encoder_fields"].get("patch")
    if not hasattr(tokenizer.module, "codes_of"):
        remedy = "an encoder without codes: name the export of a run of the first stage, which learns them"
        raise UserError(Fault("objective.tokenizer", named, remedy))
    if patch != encoder.patch:
        remedy = f"its patches have {patch} samples, the encoder's {encoder.patch}: make model.patch the same"
        raise UserError(Fault("objective.tokenizer", named, remedy))


def _mask_keys(keys: Mapping[str, jax.Array], batch: Batch, train: bool) -> jax.Array:
    """Return each row's key: of the step and the row in training, else of the row alone."""
    if not train:
        return _fixed_keys(batch)
    return row_keys(jax.random.fold_in(keys["augment"], _MASK), batch["row_BM"])[:, 0]


def _fixed_keys(batch: Batch) -> jax.Array:
    return row_keys(jax.random.key(0, impl="threefry2x32"), batch["row_BM"])[:, 0]


def _augment(x_BCT: jax.Array, batch: Batch, key: jax.Array, augmentation: Mapping[str, Any]) -> jax.Array:
    key_B = row_keys(key, batch["row_BM"])[:, 0]
    return jax.vmap(lambda key, x_CT: augment(key, x_CT, **augmentation))(key_B, x_BCT)


def _at(array_BA: jax.Array, chosen_BN: jax.Array) -> jax.Array:
    """Return what `array_BA` (B, A, ...) has for the chosen patches: (B, N, ...)."""
    index = chosen_BN.reshape(*chosen_BN.shape, *(1,) * (array_BA.ndim - 2))
    return jnp.take_along_axis(array_BA, index, axis=1)


def _mean(value_BN: jax.Array, counts_BN: jax.Array) -> jax.Array:
    return jnp.where(counts_BN, value_BN, 0.0).sum() / jnp.maximum(counts_BN.sum(), 1)


def _accuracies(correct_BN: jax.Array, hidden_BN: jax.Array, prior_BN: jax.Array) -> dict[str, jax.Array]:
    """Return the share of exact codes, of all hidden patches and of those above and below their mean prior."""
    peak_BN = prior_BN > _mean(prior_BN, hidden_BN)
    parts = {"accuracy": hidden_BN, "accuracy_peak": hidden_BN & peak_BN, "accuracy_flat": hidden_BN & ~peak_BN}
    return {name: _mean(correct_BN * 1.0, counts_BN) for name, counts_BN in parts.items()}


def _mask_metrics(hidden_BA: jax.Array, prior_BA: jax.Array) -> dict[str, jax.Array]:
    """Return how much is hidden, and how far the prior says so."""
    count_B1 = hidden_BA.sum(axis=-1, keepdims=True)
    rank_BA = jnp.argsort(jnp.argsort(-prior_BA, axis=-1), axis=-1)
    return {
        "hidden": hidden_BA.mean(),
        "prior_of_hidden": _mean(prior_BA, hidden_BA) / (prior_BA.mean() + 1e-6),
        "prior_overlap": _mean((rank_BA < count_B1) * 1.0, hidden_BA),
    }
