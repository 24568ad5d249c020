"""What the siamese objectives share: two views of a pair, and a network whose batch statistics are state.

The two views pass one after the other, the better first, so that batch statistics are per view; every running statistic
moves once for each view (SiamQuality's published code).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbio.models.batch_norm import move
from jaxbio.models.projection import Predictor, Projected
from jaxbio.objectives.objective import Aux, Batch, Tree
from jaxbio.transforms.augment import augment, row_keys
from jaxbio.transforms.prepare_input import Input, prepare_batch


@dataclass(frozen=True)
class SiameseNetwork:
    """Encoder, projector and, where there is one, predictor as functions of (params, batch statistics, input)."""

    encoder: nn.Module
    inputs: Input
    projected: Projected
    predictor: Predictor | None

    def init(self, key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        """Return params and batch statistics, each {"encoder", "projector"} and "predictor" where there is one."""
        x_BCT = jnp.zeros((2, *self.inputs.shape_of(batch["segment_BMCT"])))
        network_key, predictor_key = jax.random.split(key)
        tok_BLD, network = self.projected.init_with_output(network_key, x_BCT)
        params, stats = dict(network["params"]), dict(network.get("batch_stats", {}))
        if self.predictor is not None:
            predictor = self.predictor.init(predictor_key, tok_BLD[:, 0], False)
            params["predictor"], stats["predictor"] = predictor["params"], predictor["batch_stats"]
        return params, stats

    def start(self, key: jax.Array, batch: Batch, frozen: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        """Return params and state of an objective whose state is the batch statistics alone: its `init`."""
        params, stats = self.init(key, batch)
        return params, {"batch_stats": stats}

    def project(
        self, params: Tree, stats: Tree, x_BCT: jax.Array, key: jax.Array, train: bool
    ) -> tuple[jax.Array, Tree]:
        """Return z_BD and the moments of the batch (empty outside training); `key` is for an encoder's dropout."""
        parts = ("encoder", "projector")
        variables = {"params": _pick(params, parts), "batch_stats": _pick(stats, parts)}
        tok_BLD, reported = self.projected.apply(variables, x_BCT, train, rngs={"dropout": key}, mutable=["moments"])
        return tok_BLD[:, 0], reported.get("moments", {})

    def predict(self, params: Tree, stats: Tree, z_BD: jax.Array, train: bool) -> tuple[jax.Array, Tree]:
        """Return p_BD and the moments of the batch (empty outside training)."""
        assert self.predictor is not None
        variables = {"params": params["predictor"], "batch_stats": stats["predictor"]}
        p_BD, reported = self.predictor.apply(variables, z_BD, train, mutable=["moments"])
        return p_BD, {"predictor": reported["moments"]} if "moments" in reported else {}

    def encoders(self) -> dict[str, tuple[Any, Callable[[Tree, Tree], Tree]]]:
        """Return the objective's encoders: pooled features before the projector, and the projector's output."""

        def encoder_variables(params: Tree, state: Tree) -> Tree:
            stats = state["batch_stats"]
            return {"params": params["encoder"]} | ({"batch_stats": stats["encoder"]} if "encoder" in stats else {})

        def projector_variables(params: Tree, state: Tree) -> Tree:
            parts = ("encoder", "projector")
            stats = _pick(state["batch_stats"], parts)
            return {"params": _pick(params, parts)} | ({"batch_stats": stats} if stats else {})

        return {"encoder": (self.encoder, encoder_variables), "projector": (self.projected, projector_variables)}


def make_network(
    encoder: nn.Module,
    inputs: Input,
    projector_width: int,
    projector_layers: int,
    predictor_hidden: int | None = None,
) -> SiameseNetwork:
    """Return the network around `encoder`; without `predictor_hidden` it has no predictor."""
    return SiameseNetwork(
        encoder,
        inputs,
        Projected(encoder, projector_width, projector_layers, encoder.dtype),
        None if predictor_hidden is None else Predictor(predictor_hidden, projector_width, encoder.dtype),
    )


def dropout_key(keys: Mapping[str, jax.Array], view: str) -> jax.Array:
    """Return the key of one view's dropout in the encoder."""
    return jax.random.fold_in(keys["dropout"], ("first", "second").index(view))


def two_views(
    batch: Batch, key: jax.Array, inputs: Input, augmentation: Mapping[str, Any], train: bool
) -> tuple[jax.Array, jax.Array]:
    """Return two views x_BCT of each element: the members of a pair, or one segment cropped and augmented twice."""
    if batch["segment_BMCT"].shape[1] == 1:
        batch = {name: jnp.repeat(batch[name], 2, axis=1) for name in ("segment_BMCT", "scale_BMC2", "row_BM")}
    x_BMCT = prepare_batch(batch, inputs, key if train else None)
    if train:
        augment_row = jax.vmap(jax.vmap(lambda key, x_CT: augment(key, x_CT, **augmentation)))
        x_BMCT = augment_row(row_keys(key, batch["row_BM"]), x_BMCT)
    return x_BMCT[:, 0], x_BMCT[:, 1]


def move_stats(stats: Tree, moments_by_view: Mapping[str, Tree]) -> Tree:
    """Return the running statistics after both views of a step, the first view first."""
    for view in ("first", "second"):
        stats = move(stats, moments_by_view[view])
    return stats


def update_stats(
    params: Tree, state: Tree, aux: Aux, key: jax.Array, progress: jax.Array
) -> tuple[Tree, dict[str, jax.Array]]:
    """Return the state after a step of such an objective, whose means are the moments by view: its `update`."""
    return {"batch_stats": move_stats(state["batch_stats"], aux.means)}, {}


def normalise(x_BD: jax.Array) -> jax.Array:
    """Return each row divided by max(its length, 1e-12), PyTorch's rule."""
    return x_BD / jnp.maximum(jnp.linalg.norm(x_BD, axis=-1, keepdims=True), 1e-12)


def cosine_similarity(x_BD: jax.Array, y_BD: jax.Array) -> jax.Array:
    """Return the mean over the batch of the cosine between rows."""
    return jnp.mean(jnp.sum(normalise(x_BD) * normalise(y_BD), axis=-1))


def mean_directions(z: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Return the mean of the normalised rows (D,) of each view's outputs, for `shared_similarity`."""
    return {f"{view}_mean_D": normalise(z_BD).mean(0) for view, z_BD in z.items()}


def shared_similarity(means: Mapping[str, np.ndarray]) -> float:
    """Return the largest mean cosine that one direction for each view, the same for every row, has with the rows: the
    length of the mean of the normalised rows, summed over both views.
    """
    return float(sum(np.linalg.norm(means[f"{view}_mean_D"]) for view in ("first", "second")))


def output_spread(z_BD: jax.Array) -> jax.Array:
    """Return the deviation over the batch of normalised outputs, mean over features, times sqrt(D): 1 spread, 0 not.

    SimSiam's monitor of collapse (Chen and He 2021, figure 2).
    """
    return jnp.mean(jnp.std(normalise(z_BD), axis=0)) * jnp.sqrt(z_BD.shape[-1] * 1.0)


def _pick(tree: Tree, names: tuple[str, ...]) -> Tree:
    return {name: tree[name] for name in names if name in tree}
