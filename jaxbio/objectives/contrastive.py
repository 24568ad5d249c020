"""SimCLR (Chen et al. 2020) on quality pairs, or on single segments augmented twice: a baseline of SiamQuality.

The loss is NT-Xent over the 2 B outputs of a batch. Encoder and projector are SiamQuality's, so that only the objective
differs (the paper's code gives this baseline a head of 256-128-256).

    params: {"encoder", "projector"}
    state:  {"batch_stats": the same names}
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.objectives.objective import Aux, Batch, Objective, Tree
from jaxbio.objectives.siamese import dropout_key, make_network, normalise, output_spread, two_views, update_stats
from jaxbio.transforms.prepare_input import Input


def contrastive(
    encoder: nn.Module,
    *,
    inputs: Input,
    augmentation: Mapping[str, Any],
    projector_width: int,
    projector_layers: int,
    temperature: float,
) -> Objective:
    """Return the objective for `encoder`; the arguments are the fields of the same names in jaxbio/config/families/."""
    network = make_network(encoder, inputs, projector_width, projector_layers)

    def loss(
        params: Tree, state: Tree, batch: Batch, keys: Mapping[str, jax.Array], progress: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[Aux, dict[str, jax.Array]]]:
        first_BCT, second_BCT = two_views(batch, keys["augment"], inputs, augmentation, train)
        stats, first_key, second_key = state["batch_stats"], dropout_key(keys, "first"), dropout_key(keys, "second")
        first_BD, first_moments = network.project(params, stats, first_BCT, first_key, train)
        second_BD, second_moments = network.project(params, stats, second_BCT, second_key, train)
        aux = Aux({"first": first_moments, "second": second_moments})
        return nt_xent(first_BD, second_BD, temperature), (aux, {"output_spread": output_spread(first_BD)})

    return Objective(network.start, loss, update_stats, network.encoders(), coupled=True)


def nt_xent(first_BD: jax.Array, second_BD: jax.Array, temperature: float) -> jax.Array:
    """Return the normalised temperature-scaled cross-entropy of two views, mean over all 2 B outputs."""
    z_ND = normalise(jnp.concatenate([first_BD, second_BD]))
    batch = first_BD.shape[0]
    similarity_NN = jnp.where(jnp.eye(2 * batch, dtype=bool), -jnp.inf, z_ND @ z_ND.T / temperature)
    partner_N = jnp.roll(jnp.arange(2 * batch), batch)
    log_p_NN = jax.nn.log_softmax(similarity_NN, axis=-1)
    return -jnp.mean(jnp.take_along_axis(log_p_NN, partner_N.reshape(-1, 1), axis=-1))
