"""Supervised learning, on an encoder from an export or from scratch: a head answers with a class, a number or a signal.

What of the encoder is not trained lies in the state: it has no gradient and no moments, and is saved with the rest.
Adapters are added to the kernels before the network runs, so every encoder that leaves the run holds plain weights.

    params: {"encoder": its trained part, "head"}, "pool" where there are windows, "adapters" where there are any
    state:  {"encoder": the part that stays}, "batch_stats" of an encoder that has any
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbio.models.adapters import init_adapters, merge_adapters
from jaxbio.models.answering import Answering
from jaxbio.models.batch_norm import move
from jaxbio.models.layers import Layer, depths_of, first_of_last, trace_layers
from jaxbio.models.partition import join_parts, scale_by_depth, split_at
from jaxbio.objectives import answers
from jaxbio.objectives.objective import Aux, Batch, Objective, Tree
from jaxbio.objectives.single_segments import single_segments
from jaxbio.objectives.targets import class_loss, number_loss
from jaxbio.transforms.channel_subsets import drop_channels, keep_channels, kinds_alone, split_target
from jaxbio.transforms.prepare_input import Input, join_crops, prepare_crops

_OWN = ("head", "pool")  # what an Answering has beside its encoder
_BY_DEPTH = ("encoder", "adapters")
_SAMPLES = 64  # at least so many of each held-out waveform are gathered, for the best constant


def supervised(
    encoder: nn.Module,
    *,
    inputs: Input,
    augmentation: Mapping[str, Any],
    adapters: str,
    answer: str,
    classes: tuple[str, ...],
    class_weights: tuple[float, ...],
    focal: float,
    label_smoothing: float,
    offset: float,
    scale: float,
    huber: float,
    trained: str,
    layer_decay: float,
    head_hidden: int,
    window_s: float | None,
) -> Objective:
    """Return the objective for `encoder`; the arguments are the fields of the same names in jaxbio/config/families/.

    It reads single segments with one label, or with a channel to be learnt behind those of `inputs`, and gives the
    metrics of `answers` over all held-out segments, also from each kind of channels alone. `loss` raises UserError for
    segments that come in pairs.
    """
    augmentation = dict(augmentation)
    drop_prob = augmentation.pop("drop_channel")
    window = None if window_s is None else round(window_s * inputs.rate_hz)
    outputs = len(classes) if answer == "classes" else 1
    if answer == "waveforms":
        outputs = _samples_of_a_token(encoder, inputs)
    answering = Answering(
        encoder, outputs, answer, head_hidden, window, offset=offset, scale=scale, dtype=encoder.dtype
    )
    layers = trace_layers(encoder, inputs.shape if window is None else (inputs.shape[0], window))
    first = _first_trained(trained, adapters, layers)
    encoder_moves = first < depths_of(layers)[1] or adapters != "none"
    subsets = {answers.ALL: np.ones(len(inputs.channels), bool), **kinds_alone(inputs.channels)}

    def init(key: jax.Array, batch: Batch, frozen: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        x_BCT = jnp.ones((1, *inputs.shape_of(batch["segment_BMCT"])))
        network_key, adapter_key = jax.random.split(key)
        variables = answering.init(network_key, x_BCT)
        whole = dict(variables["params"])
        moving, kept = split_at(whole["encoder"], layers, first)
        params, state = {**_own(whole), **_part(moving)}, _part(kept)
        if adapters != "none":
            rank = int(adapters.removeprefix("lora:"))
            params["adapters"] = init_adapters(adapter_key, whole["encoder"], layers, rank)
        if "batch_stats" in variables:
            state["batch_stats"] = variables["batch_stats"]["encoder"]
        return params, state

    def encoder_variables(params: Tree, state: Tree) -> Tree:
        joined = join_parts(params.get("encoder", {}), state.get("encoder", {}))
        if adapters != "none":
            joined = merge_adapters(joined, params["adapters"])
        return {"params": joined} | ({"batch_stats": state["batch_stats"]} if "batch_stats" in state else {})

    def answering_variables(params: Tree, state: Tree) -> Tree:
        parts = {name: {"encoder": part} for name, part in encoder_variables(params, state).items()}
        return {**parts, "params": {**_own(params), **parts["params"]}}

    def loss(
        params: Tree, state: Tree, batch: Batch, keys: Mapping[str, jax.Array], progress: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[Aux, dict[str, jax.Array]]]:
        batch, label_BT = labelled(batch)
        if train and drop_prob:
            batch = drop_channels(batch, drop_prob, keys["augment"], inputs)
        x_BCT = single_segments(batch, inputs, augmentation, keys["augment"] if train else None)
        variables, rngs = answering_variables(params, state), {"dropout": keys["dropout"]}
        tok_B1K, reported = answering.apply(variables, x_BCT, train and encoder_moves, rngs=rngs, mutable=["moments"])
        known_B = jnp.isfinite(label_BT).all(-1)  # a batch of noise, in a plan or a bench, is none to fail on
        loss_B = row_losses(tok_B1K[:, 0], jnp.where(known_B[:, None], label_BT, 0.0))
        moments = reported.get("moments", {}).get("encoder", {})
        return jnp.where(known_B, loss_B, 0.0).mean(), (Aux(moments), {})

    @jax.jit  # once for all evaluations, whose labels are of one shape
    @jax.value_and_grad
    def loss_of_same(same_K: jax.Array, label_NT: jax.Array) -> jax.Array:
        shape = (len(label_NT), outputs) if answer == "classes" else label_NT.shape
        return row_losses(jnp.broadcast_to(same_K, shape), label_NT).mean()

    def loss_of_constant(label_NT: np.ndarray) -> float:
        """Return what the best answer that is the same for all of these rows, (N, 1) or (N, T), gives."""
        start_K = np.zeros(outputs) if answer == "classes" else np.median(label_NT)[None]
        return answers.find_least(lambda same_K: loss_of_same(same_K, label_NT), start_K)

    def least_loss(label_NT: np.ndarray) -> float:
        """Return what answers give that are the best for each row: above 0 where targets are smoothed."""
        if answer != "classes" or not label_smoothing:
            return 0.0
        codes, counts = np.unique(label_NT, return_counts=True)
        return float(np.average([loss_of_constant(code[None, None]) for code in codes], weights=counts))

    def labelled(batch: Batch) -> tuple[Batch, jax.Array]:
        """Return what is seen of a batch, and what is to be learnt of it, (B, 1) or (B, T), NaN where unknown."""
        if answer == "waveforms":
            return split_target(batch, len(inputs.channels))
        return batch, batch["label_BMK"][:, 0]

    def row_losses(answer_BK: jax.Array, label_BT: jax.Array) -> jax.Array:
        if answer == "classes":
            label_B = label_BT[:, 0]
            return class_loss(answer_BK, label_B, weights=class_weights, focal=focal, smoothing=label_smoothing)
        return number_loss(answer_BK, label_BT, scale=scale, huber=huber)

    def update(
        params: Tree, state: Tree, aux: Aux, key: jax.Array, progress: jax.Array
    ) -> tuple[Tree, dict[str, jax.Array]]:
        if "batch_stats" not in state or not aux.means:
            return state, {}
        return {**state, "batch_stats": move(state["batch_stats"], aux.means)}, {}

    def rate_scale(params: Tree) -> Tree:
        by_depth = {name: scale_by_depth(params[name], layers, layer_decay) for name in _BY_DEPTH if name in params}
        return {name: by_depth.get(name, jax.tree.map(lambda _: 1.0, part)) for name, part in params.items()}

    def place(name: str, params: Tree, state: Tree, variables: Tree) -> tuple[Tree, Tree]:
        whole = {"encoder": variables["params"]} if name == "encoder" else variables["params"]
        moving, kept = split_at(whole["encoder"], layers, first)
        params, state = {**params, **_own(whole), **_part(moving)}, {**state, **_part(kept)}
        if "batch_stats" in variables:
            stats = variables["batch_stats"]
            state["batch_stats"] = stats if name == "encoder" else stats["encoder"]
        return params, state

    def outputs_of(params: Tree, state: Tree, batch: Batch) -> dict[str, jax.Array]:
        variables, (batch, label_BT) = answering_variables(params, state), labelled(batch)
        told = {"row": batch["row_BM"][:, 0], "label": label_BT[:, 0]}
        if answer == "waveforms":
            told["label"] = label_BT[:, :: max(1, label_BT.shape[1] // _SAMPLES)]
            told["flat"] = jnp.abs(label_BT - jnp.median(label_BT, axis=1, keepdims=True)).mean(axis=1)
        for name, keep_C in subsets.items():
            part = keep_channels(batch, keep_C, inputs) if name != answers.ALL else batch
            x_BCT = prepare_crops(part["segment_BMCT"][:, 0], part["scale_BMC2"][:, 0], inputs)
            tok_B1K: Any = answering.apply(variables, x_BCT)
            answer_BLK = join_crops(tok_B1K, inputs.crops)
            if answer == "waveforms":  # whose samples are too many to be gathered
                answer_BLK = jnp.abs(answer_BLK[:, 0] - label_BT).mean(axis=1)
            told[f"answer_{name}"] = answer_BLK
        return told

    def measure(gathered: Mapping[str, np.ndarray]) -> dict[str, float]:
        first_N = answers.first_of_each(gathered["row"])
        label_N = gathered["label"][first_N]
        told = {name: gathered[f"answer_{name}"][first_N] for name in subsets}
        label_NT = label_N.reshape(len(label_N), -1)
        judged_by = {"loss_constant": loss_of_constant(label_NT), "loss_floor": least_loss(label_NT)}
        return judged_by | measure_answers(label_N, told, gathered, first_N)

    def measure_answers(
        label_N: np.ndarray, told: Mapping[str, np.ndarray], gathered: Mapping[str, np.ndarray], first_N: np.ndarray
    ) -> dict[str, float]:
        match answer:
            case "numbers":
                return answers.measure_numbers(label_N, {name: value.mean(axis=1) for name, value in told.items()})
            case "waveforms":
                return answers.measure_waveforms(told, gathered["flat"][first_N])
        return answers.measure_classes(label_N, {name: answers.mean_probability(value) for name, value in told.items()})

    return Objective(
        init,
        loss,
        update,
        judged={"loss": ("loss_constant", "loss_floor")},
        targets_given=True,
        encoders={"answering": (answering, answering_variables), "encoder": (encoder, encoder_variables)},
        windows={} if window is None else {"encoder": window},
        outputs=outputs_of,
        measure=measure,
        place=place,
        rate_scale=rate_scale if layer_decay < 1 else None,
    )


def _samples_of_a_token(encoder: nn.Module, inputs: Input) -> int:
    """Return how many samples of a waveform each token gives, so that all of them give at least a segment."""
    x_BCT = jax.ShapeDtypeStruct((1, *inputs.shape), jnp.float32)
    tok_BLD, _ = jax.eval_shape(lambda x_BCT: encoder.init_with_output(jax.random.key(0), x_BCT), x_BCT)
    return -(-inputs.samples // tok_BLD.shape[1])


def _own(params: Tree) -> Tree:
    """Return what is beside the encoder among the parameters of an `Answering`."""
    return {name: params[name] for name in _OWN if name in params}


def _part(tree: Tree) -> Tree:
    """Return the part of an encoder under its name; nothing where it is empty, since no checkpoint holds that."""
    return {"encoder": tree} if tree else {}


def _first_trained(trained: str, adapters: str, layers: Sequence[Layer]) -> int:
    """Return the depth from which the encoder's own weights are trained."""
    if trained == "head" or (trained == "auto" and adapters != "none"):
        return depths_of(layers)[1]
    if trained.startswith("last:"):
        return first_of_last(layers, int(trained.removeprefix("last:")))
    return 0
