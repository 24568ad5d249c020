"""ECG-JEPA's objective: from the times that a student sees, predict a teacher's features of the hidden ones.

Fact sheet, sections 4 to 6. The teacher is a moving average of the student and sees every time.

    params: {"encoder", "predictor"}
    state:  {"teacher": {"encoder"}}
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbio.models.ecg_jepa import ECGJEPA, TimePredictor
from jaxbio.models.lead_patches import present_channels
from jaxbio.objectives.objective import Aux, Batch, Objective, Tree
from jaxbio.objectives.schedule import linear
from jaxbio.objectives.single_segments import row_mean, single_segments
from jaxbio.transforms.augment import row_keys
from jaxbio.transforms.prepare_input import Input
from jaxbio.transforms.time_masks import block_times, random_times

_MASK = np.uint32(0x6D61736B)  # folded into the key of augmentation, so that augmentation and mask differ


def feature_prediction(
    encoder: ECGJEPA,
    *,
    inputs: Input,
    augmentation: Mapping[str, Any],
    predictor_width: int,
    predictor_layers: int,
    predictor_heads: int,
    distance: str,
    mask: str,
    mask_share: tuple[float, float],
    mask_blocks: int,
    mask_last: bool,
    mask_by: str,
    most_visible: int,
    ema_start: float,
    ema_end: float,
    teacher_drop_path: bool,
) -> Objective:
    """Return the objective for `encoder`; the arguments are the fields of the same names in jaxbio/config/families/.

    It reads single segments and gives the metrics hidden_times (mean over rows), teacher_spread (the deviation of the
    targets over rows, 1 where they tell rows apart and 0 where the teacher has collapsed) and ema_momentum; outside
    training loss_constant, what the mean target of the batch's other rows at the same lead and time foretells. `loss`
    raises UserError for segments that come in pairs.
    """
    predictor = TimePredictor(
        predictor_width,
        predictor_layers,
        predictor_heads,
        4 * predictor_width,
        encoder.drop_path,
        encoder.dtype,
        encoder.unroll,
    )
    tokens = encoder.clone(output="tokens")

    def draw(key: jax.Array, times: int) -> jax.Array:
        if mask == "random":
            return random_times(key, times, mask_share)
        return block_times(key, times, mask_share, mask_blocks, mask_last)

    def draw_rows(batch: Batch, key: jax.Array) -> jax.Array:
        times = inputs.shape_of(batch["segment_BMCT"])[1] // encoder.patch
        key = jax.random.fold_in(key, _MASK)
        if mask_by == "batch":
            rows = batch["row_BM"].shape[0]
            return jnp.broadcast_to(draw(key, times)[None], (rows, times))
        return jax.vmap(lambda key: draw(key, times))(row_keys(key, batch["row_BM"])[:, 0])

    def init(key: jax.Array, batch: Batch, frozen: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        x_BCT = jnp.ones((1, *inputs.shape_of(batch["segment_BMCT"])))
        encoder_key, predictor_key = jax.random.split(key)
        time_1V = jnp.arange(x_BCT.shape[-1] // encoder.patch)[None]
        visible = (time_1V, jnp.ones_like(time_1V, bool))
        tok_BCVD, variables = encoder.init_with_output(encoder_key, x_BCT, visible=visible)
        predicted = predictor.init(predictor_key, tok_BCVD, time_1V)
        params = {"encoder": variables["params"], "predictor": predicted["params"]}
        # copies, so that donating params does not take the teacher along
        return params, {"teacher": jax.tree.map(jnp.copy, {"encoder": params["encoder"]})}

    def loss(
        params: Tree, state: Tree, batch: Batch, keys: Mapping[str, jax.Array], progress: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[Aux, dict[str, jax.Array]]]:
        x_BCT = single_segments(batch, inputs, augmentation, keys["augment"] if train else None)
        visible, place_BN = choose_visible(draw_rows(batch, keys["augment"]), most_visible)
        teacher_key, student_key, predictor_key = jax.random.split(keys["dropout"], 3)
        target_BCND = teach(state, x_BCT, teacher_key, train)
        student = {"params": params["encoder"]}
        tok_BCVD = encoder.apply(student, x_BCT, train, visible=visible, rngs={"dropout": student_key})
        rngs = {"dropout": predictor_key}
        predicted_BCND: Any = predictor.apply({"params": params["predictor"]}, tok_BCVD, place_BN, train, rngs=rngs)
        hidden_BN = place_BN == visible[0].shape[1]
        counts_BCN = hidden_BN[:, None] & present_channels(x_BCT)[..., None]
        metrics = {
            "hidden_times": hidden_BN.sum(-1).mean(dtype=jnp.float32),
            "teacher_spread": target_BCND.std(axis=0).mean(),
        }
        if not train:
            others_BCND = mean_of_others(target_BCND, present_channels(x_BCT))
            metrics["loss_constant"] = row_mean(_distance(others_BCND, target_BCND, distance), counts_BCN)
            metrics["loss_floor"] = jnp.zeros(())
        return row_mean(_distance(predicted_BCND, target_BCND, distance), counts_BCN), (Aux({}), metrics)

    def teach(state: Tree, x_BCT: jax.Array, key: jax.Array, train: bool) -> jax.Array:
        """Return the targets (B, C, N, D): the teacher's features, each token normalised."""
        teacher = {"params": state["teacher"]["encoder"]}
        drops = train and teacher_drop_path
        tok_BLD: Any = tokens.apply(teacher, x_BCT, drops, rngs={"dropout": key})
        tok_BCND = tok_BLD.reshape(*x_BCT.shape[:2], -1, tok_BLD.shape[-1])
        return jax.lax.stop_gradient(jax.nn.standardize(tok_BCND, epsilon=1e-5))

    def update(
        params: Tree, state: Tree, aux: Aux, key: jax.Array, progress: jax.Array
    ) -> tuple[Tree, dict[str, jax.Array]]:
        momentum = linear(ema_start, ema_end, 1.0, progress)
        teacher = optax.incremental_update({"encoder": params["encoder"]}, state["teacher"], 1 - momentum)
        return {"teacher": teacher}, {"ema_momentum": momentum}

    def student_variables(params: Tree, state: Tree) -> Tree:
        return {"params": params["encoder"]}

    encoders = {
        "student": (encoder, student_variables),
        "teacher": (encoder, lambda params, state: {"params": state["teacher"]["encoder"]}),
        "tokens": (tokens, student_variables),
    }
    return Objective(init, loss, update, encoders, judged={"loss": ("loss_constant", "loss_floor")})


def choose_visible(hidden_BN: jax.Array, most: int) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Return ((time_BV, used_BV), place_BN) of rows whose hidden times are given, V = `most` at the most.

    The visible times come first, in order; `place_BN` says which of the V a time is, V where it is hidden. A row that
    leaves more than V visible hides the last of them too, so that every row is of one shape.
    """
    slots = min(most, hidden_BN.shape[1])
    order_BN = jnp.argsort(hidden_BN, axis=-1, stable=True)
    place_BN = jnp.where(hidden_BN, slots, jnp.minimum(jnp.argsort(order_BN, axis=-1), slots))
    time_BV = order_BN[:, :slots]
    return (time_BV, ~jnp.take_along_axis(hidden_BN, time_BV, axis=1)), place_BN


def mean_of_others(target_BCND: jax.Array, present_BC: jax.Array) -> jax.Array:
    """Return, for each row, the mean target of the other rows that have the channel; zeros where there is none."""
    weight_BC11 = present_BC[..., None, None].astype(jnp.float32)
    others_BCND = (weight_BC11 * target_BCND).sum(0) - weight_BC11 * target_BCND
    return others_BCND / jnp.maximum(weight_BC11.sum(0) - weight_BC11, 1.0)


def _distance(predicted_BCND: jax.Array, target_BCND: jax.Array, kind: str) -> jax.Array:
    """Return smooth L1 (bend at 1) or L1, mean over the features: (B, C, N)."""
    if kind == "l1":
        return jnp.abs(predicted_BCND - target_BCND).mean(-1)
    return optax.losses.huber_loss(predicted_BCND, target_BCND, delta=1.0).mean(-1)
