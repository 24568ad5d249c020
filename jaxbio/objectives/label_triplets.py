"""Triplets by label: a segment lies nearer to one of its own class than to one of another, by a margin.

Fact sheet of VQ-VAE and triplets, section 3, with shapes that match. Distances are squared, on the unit sphere: 0 to 4.

    mean over anchors of max(0, d(anchor, positive) - d(anchor, negative) + margin)

    params: {"encoder", "head"}
    state:  {}
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.models.headed import Headed
from jaxbio.objectives.objective import Aux, Batch, Objective, Tree
from jaxbio.objectives.single_segments import single_segments
from jaxbio.transforms.augment import row_keys
from jaxbio.transforms.prepare_input import Input


def label_triplets(
    encoder: nn.Module,
    *,
    inputs: Input,
    augmentation: Mapping[str, Any],
    head_hidden: int,
    head_width: int,
    margin: float,
    mining: str,
) -> Objective:
    """Return the objective for `encoder`; the arguments are the fields of the same names in jaxbio/config/families/.

    It reads single segments with one label, a class. Every segment that has another of its class and one of another
    class in the global batch is an anchor; what has no label is none, and nobody's partner. The metrics are anchors and
    active, shares of the batch and of the anchors. `loss` raises UserError for segments that come in pairs.
    """
    headed = Headed(encoder, head_hidden, head_width, encoder.dtype)

    def init(key: jax.Array, batch: Batch, frozen: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        x_BCT = jnp.ones((1, *inputs.shape_of(batch["segment_BMCT"])))
        return dict(headed.init(key, x_BCT)["params"]), {}

    def loss(
        params: Tree, state: Tree, batch: Batch, keys: Mapping[str, jax.Array], progress: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[Aux, dict[str, jax.Array]]]:
        x_BCT = single_segments(batch, inputs, augmentation, keys["augment"] if train else None)
        rngs = {"dropout": keys["dropout"]}
        tok_BLD: Any = headed.apply({"params": params}, x_BCT, train, rngs=rngs)
        distance_BB = squared_distances(tok_BLD[:, 0])
        row_B, class_B = batch["row_BM"][:, 0], batch["label_BMK"][:, 0, 0]
        key_B = row_keys(keys["augment"], batch["row_BM"])[:, 0]
        limit = margin if mining == "semi_hard" else None
        positive_B, negative_B, anchor_B = mine(key_B, row_B, class_B, distance_BB, limit)
        own_B = jnp.arange(len(anchor_B))
        excess_B = distance_BB[own_B, positive_B] - distance_BB[own_B, negative_B] + margin
        anchors = jnp.maximum(anchor_B.sum(), 1)
        total = jnp.where(anchor_B, jnp.maximum(excess_B, 0.0), 0.0).sum() / anchors
        metrics = {
            "anchors": anchor_B.mean(dtype=jnp.float32),
            "active": (anchor_B & (excess_B > 0)).sum() / anchors,
        }
        return total, (Aux({}), metrics)

    def update(
        params: Tree, state: Tree, aux: Aux, key: jax.Array, progress: jax.Array
    ) -> tuple[Tree, dict[str, jax.Array]]:
        return state, {}

    encoders = {
        "headed": (headed, lambda params, state: {"params": params}),
        "encoder": (encoder, lambda params, state: {"params": params["encoder"]}),
    }
    return Objective(init, loss, update, encoders, coupled=True)


def squared_distances(x_BE: jax.Array) -> jax.Array:
    """Return the squared distances (B, B) between rows; exact for equal ones, whose gradient is zero."""
    return jnp.square(x_BE[:, None] - x_BE[None]).sum(-1)


def mine(
    key_B: jax.Array, row_B: jax.Array, class_B: jax.Array, distance_BB: jax.Array, margin: float | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return each segment's positive and negative, int32 (B,), and whether it has both, bool (B,): a random segment of
    its class, and one of another.

    `row_B` are the segments' rows of the store: in an evaluation one may come twice, and is no positive of itself. With
    `margin` the negative is semi-hard where there is one: farther than the positive, by less than the margin. Keys are
    a row's own; no gradient passes. NaN is no class.
    """
    distance_BB = jax.lax.stop_gradient(distance_BB)
    rows, known_B = len(class_B), jnp.isfinite(class_B)
    both_BB = known_B[:, None] & known_B[None]
    same_BB = both_BB & (class_B[:, None] == class_B[None]) & (row_B[:, None] != row_B[None])
    other_BB = both_BB & (class_B[:, None] != class_B[None])
    draw_B2B = jax.vmap(lambda key: jax.random.uniform(key, (2, rows)))(key_B)
    positive_B = jnp.argmax(jnp.where(same_BB, draw_B2B[:, 0], -1.0), axis=1)
    wanted_BB = draw_B2B[:, 1]
    if margin is not None:
        own_B1 = jnp.take_along_axis(distance_BB, positive_B[:, None], axis=1)
        semi_hard_BB = (distance_BB > own_B1) & (distance_BB < own_B1 + margin)
        wanted_BB = wanted_BB + semi_hard_BB  # any of them before all others
    negative_B = jnp.argmax(jnp.where(other_BB, wanted_BB, -1.0), axis=1)
    return positive_B, negative_B, same_BB.any(1) & other_BB.any(1)
