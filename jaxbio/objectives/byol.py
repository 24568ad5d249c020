"""BYOL (Grill et al. 2020) on quality pairs: a baseline of SiamQuality.

The online network predicts, from one view, the projection that a moving average of itself gives the other view.

    L = 1/2 [2 - 2 cos(p_good, z'_bad) + 2 - 2 cos(p_bad, z'_good)]

    params: {"encoder", "projector", "predictor"}
    state:  {"batch_stats": the same names, "target": {"encoder", "projector"}, "target_stats": the same names}
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxbio.objectives.objective import Aux, Batch, Objective, Tree
from jaxbio.objectives.schedule import cosine
from jaxbio.objectives.siamese import (
    cosine_similarity,
    dropout_key,
    make_network,
    mean_directions,
    move_stats,
    output_spread,
    shared_similarity,
    two_views,
)
from jaxbio.transforms.prepare_input import Input

_TARGET = ("encoder", "projector")


def byol(
    encoder: nn.Module,
    *,
    inputs: Input,
    augmentation: Mapping[str, Any],
    projector_width: int,
    projector_layers: int,
    predictor_hidden: int,
    ema_start: float,
    ema_end: float,
) -> Objective:
    """Return the objective for `encoder`; the arguments are the fields of the same names in jaxbio/config/families/."""
    network = make_network(encoder, inputs, projector_width, projector_layers, predictor_hidden)

    def init(key: jax.Array, batch: Batch, frozen: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        params, stats = network.init(key, batch)
        # copies, so that donating params does not take the target along
        target, target_stats = jax.tree.map(jnp.copy, (_target_part(params), _target_part(stats)))
        return params, {"batch_stats": stats, "target": target, "target_stats": target_stats}

    def loss(
        params: Tree, state: Tree, batch: Batch, keys: Mapping[str, jax.Array], progress: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[Aux, dict[str, jax.Array]]]:
        stats = state["batch_stats"]
        views = dict(zip(("first", "second"), two_views(batch, keys["augment"], inputs, augmentation, train)))
        online: dict[str, Tree] = {}
        target: dict[str, Tree] = {}
        p, z = {}, {}
        for view, x_BCT in views.items():
            key = dropout_key(keys, view)
            z_BD, moments = network.project(params, stats, x_BCT, key, train)
            p[view], more = network.predict(params, stats, z_BD, train)
            z[view], target[view] = network.project(state["target"], state["target_stats"], x_BCT, key, train)
            online[view] = {**moments, **more}
        z = jax.lax.stop_gradient(z)
        total = 2 - cosine_similarity(p["first"], z["second"]) - cosine_similarity(p["second"], z["first"])
        metrics = {"output_spread": output_spread(z["first"])} | ({} if train else mean_directions(z))
        return total, (Aux({"online": online, "target": target}), metrics)

    def conclude(means: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {"loss_constant": 2 - shared_similarity(means), "loss_floor": 0.0}

    def update(
        params: Tree, state: Tree, aux: Aux, key: jax.Array, progress: jax.Array
    ) -> tuple[Tree, dict[str, jax.Array]]:
        momentum = cosine(ema_start, ema_end, progress)
        moved = {
            "batch_stats": move_stats(state["batch_stats"], aux.means["online"]),
            "target": optax.incremental_update(_target_part(params), state["target"], 1 - momentum),
            "target_stats": move_stats(state["target_stats"], aux.means["target"]),
        }
        return moved, {"ema_momentum": momentum}

    def target_variables(params: Tree, state: Tree) -> Tree:
        part = {"params": state["target"]["encoder"]}
        return part | ({"batch_stats": state["target_stats"]["encoder"]} if "encoder" in state["target_stats"] else {})

    encoders = network.encoders() | {"target": (encoder, target_variables)}
    judged = {"loss": ("loss_constant", "loss_floor")}
    return Objective(init, loss, update, encoders, coupled=True, judged=judged, conclude=conclude)


def _target_part(tree: Tree) -> Tree:
    return {name: tree[name] for name in _TARGET if name in tree}
