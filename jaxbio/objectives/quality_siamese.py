"""SiamQuality's objective: SimSiam on a good segment and a bad neighbour of it (docs/references.md).

L = - 1/2 [cos(p_good, sg z_bad) + cos(p_bad, sg z_good)]

params: {"encoder", "projector", "predictor"}
state:  {"batch_stats": the same names}
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxbio.objectives.objective import Aux, Batch, Objective, Tree
from jaxbio.objectives.siamese import (
    cosine_similarity,
    dropout_key,
    make_network,
    mean_directions,
    output_spread,
    shared_similarity,
    two_views,
    update_stats,
)
from jaxbio.transforms.prepare_input import Input


def quality_siamese(
    encoder: nn.Module,
    *,
    inputs: Input,
    augmentation: Mapping[str, Any],
    projector_width: int,
    projector_layers: int,
    predictor_hidden: int,
) -> Objective:
    """Return the objective for `encoder`; the arguments are the fields of the same names in jaxbio/config/families/.

    The metric output_spread watches for collapse; outside training loss_constant is what the best prediction that is
    the same for every held-out segment gives, loss_floor the least there is. Batch statistics couple the pairs of a
    batch, so that accumulation is refused.
    """
    network = make_network(encoder, inputs, projector_width, projector_layers, predictor_hidden)

    def loss(
        params: Tree, state: Tree, batch: Batch, keys: Mapping[str, jax.Array], progress: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[Aux, dict[str, jax.Array]]]:
        stats, z, p, moved = state["batch_stats"], {}, {}, {}
        views = zip(("first", "second"), two_views(batch, keys["augment"], inputs, augmentation, train))
        for view, x_BCT in views:
            z[view], moments = network.project(params, stats, x_BCT, dropout_key(keys, view), train)
            p[view], more = network.predict(params, stats, z[view], train)
            moved[view] = {**moments, **more}
        first_BD, second_BD = jax.lax.stop_gradient((z["first"], z["second"]))
        total = -(cosine_similarity(p["first"], second_BD) + cosine_similarity(p["second"], first_BD)) / 2
        metrics = {"output_spread": output_spread(first_BD)}
        return total, (Aux(moved), metrics if train else metrics | mean_directions(z))

    def conclude(means: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {"loss_constant": -shared_similarity(means) / 2, "loss_floor": -1.0}

    judged = {"loss": ("loss_constant", "loss_floor")}
    encoders = network.encoders()
    return Objective(network.start, loss, update_stats, encoders, coupled=True, judged=judged, conclude=conclude)
