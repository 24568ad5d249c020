"""QualityFM's objective: a student of the worse segment learns from a teacher of the better one.

Three terms (fact sheet, section 6): cross-entropy between teacher's and student's softened features, token by token;
amplitude and phase spectra of the augmented better segment, decoded from the student's features alone. The teacher is a
moving average of the student's encoder; a teacher's decoder would never be used, so there is none.

    params: {"encoder", "decoder", "amplitude_head", "phase_head"}
    state:  {"teacher": {"encoder"}, "centre" (1, L, D)}
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.qualityfm import QualityFMEncoder, SpectrumHead
from jaxbio.objectives.objective import Aux, Batch, Objective, Tree
from jaxbio.objectives.schedule import cosine
from jaxbio.transforms.augment import augment, row_keys
from jaxbio.transforms.prepare_input import Input, prepare_batch
from jaxbio.transforms.spectra import targets


def quality_distillation(
    encoder: QualityFMEncoder,
    *,
    inputs: Input,
    augmentation: Mapping[str, Any],
    teacher_temperature: float,
    student_temperature: float,
    centre_momentum: float,
    amplitude_weight: float,
    phase_weight: float,
    spectrum: str,
    ema_start: float,
    ema_end: float,
    teacher_dropout: bool,
) -> Objective:
    """Return the objective for `encoder`; the arguments are the fields of the same names in jaxbio/config/families/.

    It reads `segment_BMCT`, `scale_BMC2` and `row_BM` of a batch of pairs (M = 2, the better member first), and gives
    the metrics distill, amplitude, phase, teacher_entropy (nats a token) and ema_momentum. `loss` raises UserError for
    segments that come alone, a width whose decoder does not give a token a channel, and fewer samples than its
    spectral bins need.
    """
    head = SpectrumHead(encoder.width, encoder.dtype)

    def prepare_pairs(batch: Batch, key: jax.Array | None = None) -> jax.Array:
        members = batch["segment_BMCT"].shape[1]
        if members != 2:
            raise UserError(Fault("pairs.rule", f"an index of {members} members", "an index of pairs, better first"))
        return prepare_batch(batch, inputs, key)

    def init(key: jax.Array, batch: Batch, frozen: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        x_BCT = jnp.zeros((1, *inputs.shape_of(batch["segment_BMCT"])))
        encoder_key, decoder_key, amplitude_key, phase_key = jax.random.split(key, 4)
        tok_BLD, encoder_variables = encoder.init_with_output(encoder_key, x_BCT)
        tok_BCD, decoder_variables = encoder.init_with_output(decoder_key, tok_BLD)
        params = {
            "encoder": encoder_variables["params"],
            "decoder": decoder_variables["params"],
            "amplitude_head": head.init(amplitude_key, tok_BCD)["params"],
            "phase_head": head.init(phase_key, tok_BCD)["params"],
        }
        # copies, so that donating params does not take the teacher along
        teacher = jax.tree.map(jnp.copy, {"encoder": params["encoder"]})
        return params, {"teacher": teacher, "centre": jnp.zeros_like(tok_BLD)}

    def student(params: Tree, x_BCT: jax.Array, key: jax.Array, train: bool) -> tuple[Any, Any, Any]:
        encoder_key, decoder_key = jax.random.split(key)
        tok_BLD = encoder.apply({"params": params["encoder"]}, x_BCT, train=train, rngs={"dropout": encoder_key})
        tok_BCD = encoder.apply({"params": params["decoder"]}, tok_BLD, train=train, rngs={"dropout": decoder_key})
        _check_decoded(tok_BCD, x_BCT, encoder.width)
        amplitude_BCS = head.apply({"params": params["amplitude_head"]}, tok_BCD)
        phase_BCS = head.apply({"params": params["phase_head"]}, tok_BCD)
        return tok_BLD, amplitude_BCS, phase_BCS

    def loss(
        params: Tree, state: Tree, batch: Batch, keys: Mapping[str, jax.Array], progress: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[Aux, dict[str, jax.Array]]]:
        x_BMCT = prepare_pairs(batch, keys["augment"] if train else None)
        if train:
            augment_row = jax.vmap(jax.vmap(lambda key, x_CT: augment(key, x_CT, **augmentation)))
            x_BMCT = augment_row(row_keys(keys["augment"], batch["row_BM"]), x_BMCT)
        better_BCT, worse_BCT = x_BMCT[:, 0], x_BMCT[:, 1]
        teacher_key, student_key = jax.random.split(keys["dropout"])
        teacher = {"params": state["teacher"]["encoder"]}
        rngs = {"dropout": teacher_key}
        teacher_BLD: Any = encoder.apply(teacher, better_BCT, train=train and teacher_dropout, rngs=rngs)
        teacher_BLD = jax.lax.stop_gradient(teacher_BLD)
        student_BLD, amplitude_BCS, phase_BCS = student(params, worse_BCT, student_key, train)
        target_BLD = jax.nn.softmax((teacher_BLD - state["centre"]) / teacher_temperature)
        target_amplitude_BCS, target_phase_BCS = targets(better_BCT, head.bins, spectrum)
        terms = {
            "distill": _cross_entropy(target_BLD, student_BLD / student_temperature),
            "amplitude": _smooth_l1(amplitude_BCS, target_amplitude_BCS),
            "phase": _smooth_l1(phase_BCS, target_phase_BCS),
        }
        total = terms["distill"] + amplitude_weight * terms["amplitude"] + phase_weight * terms["phase"]
        metrics = {
            **terms,
            "teacher_entropy": jax.scipy.special.entr(target_BLD).sum(-1).mean(),
        }
        return total, (Aux({"centre": teacher_BLD.mean(0, keepdims=True)}), metrics)

    def update(
        params: Tree, state: Tree, aux: Aux, key: jax.Array, progress: jax.Array
    ) -> tuple[Tree, dict[str, jax.Array]]:
        momentum = cosine(ema_start, ema_end, progress)
        moved = {
            "teacher": optax.incremental_update({"encoder": params["encoder"]}, state["teacher"], 1 - momentum),
            "centre": optax.incremental_update(aux.means["centre"], state["centre"], 1 - centre_momentum),
        }
        return moved, {"ema_momentum": momentum}

    def show(params: Tree, state: Tree, batch: Batch) -> dict[str, Any]:
        x_BMCT = prepare_pairs(batch)
        _, *outputs = student(params, x_BMCT[:, 1], jax.random.key(0), train=False)
        spectra = zip(("amplitude", "phase"), zip(targets(x_BMCT[:, 0], head.bins, spectrum), outputs))
        return {"segment": x_BMCT, **dict(spectra)}

    encoders = {
        "teacher": (encoder, lambda params, state: {"params": state["teacher"]["encoder"]}),
        "student": (encoder, lambda params, state: {"params": params["encoder"]}),
    }
    return Objective(init, loss, update, encoders, show=show)


def _check_decoded(tok_BCD: Any, x_BCT: jax.Array, width: int) -> None:
    tokens, channels = tok_BCD.shape[1], x_BCT.shape[1]
    if tokens != channels:
        remedy = (
            f"{500 * channels - 499} to {500 * channels}: the decoder's {tokens} tokens stand for {channels} channels"
        )
        raise UserError(Fault("model.width", width, remedy))


def _cross_entropy(target_BLD: jax.Array, logit_BLD: jax.Array) -> jax.Array:
    return -(target_BLD * jax.nn.log_softmax(logit_BLD)).sum(-1).mean()


def _smooth_l1(estimate_BCS: jax.Array, target_BCS: jax.Array) -> jax.Array:
    return optax.losses.huber_loss(estimate_BCS, target_BCS, delta=1.0).mean()
