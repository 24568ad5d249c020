"""ST-MEM's objective: reconstruct removed patches of each lead from those that stay (docs/references.md).

params: {"encoder", "decoder"}
state:  {}
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbio.models.lead_patches import cut_patches, present_channels
from jaxbio.models.st_mem import STMEM, LeadDecoder
from jaxbio.objectives.objective import Aux, Batch, Objective, Tree
from jaxbio.objectives.single_segments import row_mean, single_segments
from jaxbio.transforms.augment import row_keys
from jaxbio.transforms.prepare_input import Input
from jaxbio.transforms.time_masks import random_ranks

_MASK = np.uint32(0x6D61736B)  # folded into the key of augmentation, so that crop and mask differ


def patch_reconstruction(
    encoder: STMEM,
    *,
    inputs: Input,
    augmentation: Mapping[str, Any],
    mask_share: float,
    normalise_target: bool,
    decoder_width: int,
    decoder_layers: int,
    decoder_heads: int,
) -> Objective:
    """Return the objective for `encoder`; the arguments are the fields of the same names in jaxbio/config/families/.

    It reads single segments. Of each lead's N patches floor(N (1 - mask_share)) stay, drawn by row and step; the loss
    counts removed patches of leads that are there. `loss` raises UserError for segments that come in pairs.
    """
    decoder = LeadDecoder(
        decoder_width,
        decoder_layers,
        decoder_heads,
        4 * decoder_width,
        encoder.patch,
        encoder.head_width,
        encoder.dtype,
        encoder.unroll,
    )

    def reconstruct(params: Tree, x_BCT: jax.Array, rank_BCN: jax.Array, train: bool) -> jax.Array:
        kept_BCV = jnp.argsort(rank_BCN, axis=-1)[..., : kept_patches(rank_BCN.shape[-1], mask_share)]
        tok_BCSD = encoder.apply({"params": params["encoder"]}, x_BCT, train, kept_BCV=kept_BCV)
        return jnp.asarray(decoder.apply({"params": params["decoder"]}, tok_BCSD, rank_BCN))

    def init(key: jax.Array, batch: Batch, frozen: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        leads, samples = inputs.shape_of(batch["segment_BMCT"])
        encoder_key, decoder_key = jax.random.split(key)
        rank_BCN = jnp.broadcast_to(jnp.arange(samples // encoder.patch), (1, leads, samples // encoder.patch))
        kept_BCV = rank_BCN[..., : kept_patches(rank_BCN.shape[-1], mask_share)]
        tok_BCSD, variables = encoder.init_with_output(encoder_key, jnp.ones((1, leads, samples)), kept_BCV=kept_BCV)
        decoded = decoder.init(decoder_key, tok_BCSD, rank_BCN)
        return {"encoder": variables["params"], "decoder": decoded["params"]}, {}

    def loss(
        params: Tree, state: Tree, batch: Batch, keys: Mapping[str, jax.Array], progress: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[Aux, dict[str, jax.Array]]]:
        x_BCT = single_segments(batch, inputs, augmentation, keys["augment"] if train else None)
        rank_BCN = draw_ranks(batch["row_BM"], keys["augment"], x_BCT.shape[1], x_BCT.shape[2] // encoder.patch)
        patch_BCNP = reconstruct(params, x_BCT, rank_BCN, train)
        return masked_error(x_BCT, patch_BCNP, rank_BCN, mask_share, normalise_target), (Aux({}), {})

    def update(
        params: Tree, state: Tree, aux: Aux, key: jax.Array, progress: jax.Array
    ) -> tuple[Tree, dict[str, jax.Array]]:
        return state, {}

    def variables(params: Tree, state: Tree) -> Tree:
        return {"params": params["encoder"]}

    encoders = {"encoder": (encoder, variables), "tokens": (encoder.clone(output="tokens"), variables)}
    return Objective(init, loss, update, encoders)


def draw_ranks(row_BM: jax.Array, key: jax.Array, leads: int, patches: int) -> jax.Array:
    """Return the ranks of the patches of every row's leads, (B, C, N): those of low rank stay."""
    key_B = row_keys(jax.random.fold_in(key, _MASK), row_BM)[:, 0]
    return jax.vmap(lambda key: random_ranks(key, leads, patches))(key_B)


def kept_patches(patches: int, mask_share: float) -> int:
    """Return how many patches of a lead stay: floor(N (1 - mask_share)), 7 of 30 where 0.75 are to go."""
    return int(patches * (1 - mask_share) + 1e-9)


def target_patches(x_BCT: jax.Array, patch: int, normalise: bool) -> jax.Array:
    """Return the patches (B, C, N, P) that are reconstructed; `normalise` each by its mean and deviation (n - 1)."""
    patch_BCNP = cut_patches(x_BCT, patch)
    if not normalise:
        return patch_BCNP
    centred_BCNP = patch_BCNP - patch_BCNP.mean(-1, keepdims=True)
    return centred_BCNP / jnp.sqrt(patch_BCNP.var(-1, ddof=1, keepdims=True) + 1e-6)


def masked_error(
    x_BCT: jax.Array, patch_BCNP: jax.Array, rank_BCN: jax.Array, mask_share: float, normalise: bool
) -> jax.Array:
    """Return the mean squared error of the removed patches of leads that are there."""
    target_BCNP = target_patches(x_BCT, patch_BCNP.shape[-1], normalise)
    error_BCN = jnp.square(patch_BCNP - target_BCNP).mean(-1)
    removed_BCN = rank_BCN >= kept_patches(rank_BCN.shape[-1], mask_share)
    return row_mean(error_BCN, removed_BCN & present_channels(x_BCT)[..., None])
