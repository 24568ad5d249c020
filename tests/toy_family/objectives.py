"""An objective that uses every part of the contract: two networks, a moving codebook, labels, what no mean can say.

The encoder regresses a label (where known) and what a frozen network makes of the segment, and its codebook follows its
tokens: codes that nothing chose start anew from samples of the batch.

    params: {"encoder", "head"}
    state:  {"tokenizer": the frozen network's variables, "code_KD", "use_K"}
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbio.config.faults import Fault, UserError
from jaxbio.objectives.objective import Aux, Network, Objective
from jaxbio.transforms.prepare_input import Input, prepare_batch


def toy_codes(
    encoder: nn.Module,
    *,
    inputs: Input,
    augmentation: Mapping[str, Any],
    codes: int,
    momentum: float,
    tokenizer: Network,
) -> Objective:
    """Return the objective; `tokenizer` is the frozen network, whose tokens must be as wide as the encoder's."""
    if tokenizer.card["width"] != encoder.width:
        remedy = (
            f"its tokens are {tokenizer.card['width']} wide, the encoder's {encoder.width}: make model.width the same"
        )
        raise UserError(Fault("objective.tokenizer", tokenizer.card["encoder"], remedy))

    def single(batch, key=None):
        return prepare_batch(batch, inputs, key)[:, 0]

    def init(key, batch, frozen):
        x_BCT = single(batch)
        encoder_key, head_key, code_key = jax.random.split(key, 3)
        tok_BLD, variables = encoder.init_with_output(encoder_key, x_BCT)
        labels = batch["label_BMK"].shape[-1]
        head_DK = 0.01 * jax.random.normal(head_key, (tok_BLD.shape[-1], labels))
        rows_ND = tok_BLD.reshape(-1, tok_BLD.shape[-1])
        first_K = jax.random.choice(code_key, len(rows_ND), (codes,), replace=False)  # of the real first batch
        state = {"tokenizer": frozen["tokenizer"], "code_KD": rows_ND[first_K], "use_K": jnp.ones(codes)}
        return {"encoder": variables["params"], "head": head_DK}, state

    def choose(code_KD, tok_BLD):
        distance_BLK = jnp.square(tok_BLD[:, :, None] - code_KD[None, None]).sum(-1)
        return jnp.argmin(distance_BLK, axis=-1)

    def loss(params, state, batch, keys, progress, train):
        x_BCT = single(batch, keys["augment"] if train else None)
        tok_BLD = encoder.apply({"params": params["encoder"]}, x_BCT, train=train)
        target_BLD = tokenizer.module.apply(state["tokenizer"], x_BCT)
        label_BK, guess_BK = batch["label_BMK"][:, 0], tok_BLD.mean(1) @ params["head"]
        known_BK = jnp.isfinite(label_BK)
        miss_BK = jnp.where(known_BK, jnp.square(guess_BK - jnp.where(known_BK, label_BK, 0.0)), 0.0)
        terms = {"distill": jnp.square(tok_BLD - target_BLD).mean(), "label": miss_BK.mean()}
        chosen_BLK = jax.nn.one_hot(choose(state["code_KD"], tok_BLD), codes)
        tok_BLD = jax.lax.stop_gradient(tok_BLD)
        means = {
            "use_K": chosen_BLK.mean((0, 1)),
            "sum_KD": jnp.einsum("blk,bld->kd", chosen_BLK, tok_BLD) / chosen_BLK[..., 0].size,
        }
        return terms["distill"] + terms["label"], (Aux(means, {"tok_BD": tok_BLD[:, 0]}), terms)

    def update(params, state, aux, key, progress):
        use_K, sum_KD = aux.means["use_K"], aux.means["sum_KD"]
        found_K = use_K > 0
        mean_KD = sum_KD / jnp.where(found_K, use_K, 1.0)[:, None]
        moved_KD = jnp.where(found_K[:, None], momentum * state["code_KD"] + (1 - momentum) * mean_KD, state["code_KD"])
        kept_K = momentum * state["use_K"] + (1 - momentum) * use_K
        dead_K = kept_K < 1e-3
        fresh_KD = jax.random.choice(key, aux.samples["tok_BD"], (codes,))
        code_KD = jnp.where(dead_K[:, None], fresh_KD, moved_KD)
        revived_K = jnp.where(dead_K, 1.0, kept_K)
        return {**state, "code_KD": code_KD, "use_K": revived_K}, {"revived_codes": dead_K.sum() * 1.0}

    def outputs(params, state, batch):
        tok_BLD = encoder.apply({"params": params["encoder"]}, single(batch))
        return {"code_BL": choose(state["code_KD"], tok_BLD)}

    def measure(gathered):
        share_K = np.bincount(gathered["code_BL"].ravel(), minlength=codes) / gathered["code_BL"].size
        used_K = share_K[share_K > 0]
        return {"code_perplexity": float(np.exp(-(used_K * np.log(used_K)).sum()))}

    encoders = {"encoder": (encoder, lambda params, state: {"params": params["encoder"]})}
    return Objective(init, loss, update, encoders, outputs=outputs, measure=measure)
