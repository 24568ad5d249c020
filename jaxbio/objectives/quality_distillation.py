"""QualityFM's objective: a student of the worse segment learns from a teacher of the better one.

Three terms (docs/references.md): cross-entropy between teacher's and student's softened features, amplitude and
phase spectra of the augmented better segment, decoded from the student's features alone; as published from each token,
by our recipes from the segment's mean. Ours have a fourth: where in the band of breathing the better segment's power
lies, foretold from that mean. The teacher is a moving average of the student's encoder; a teacher's decoder
would never be used, so there is none.

    params: {"encoder", "decoder", "amplitude_head", "phase_head"}; as fields ask, "head", "predictor", "breathing_head"
    state:  {"teacher": {"encoder"}, "centre" (1, L, D)}
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.distillation_head import DistillationHead, DistillationPredictor
from jaxbio.models.qualityfm import QualityFMEncoder, SpectrumHead
from jaxbio.objectives.distillation import Distillation, conclude
from jaxbio.objectives.objective import Aux, Batch, Objective, Tree
from jaxbio.objectives.pairing import Pairing
from jaxbio.objectives.schedule import cosine, horizon_momentum
from jaxbio.objectives.spread import koleo, variance_hinge
from jaxbio.transforms.augment import augment, row_keys
from jaxbio.transforms.prepare_input import Input, prepare_batch
from jaxbio.transforms.spectra import band_bins, band_shape, targets


def quality_distillation(
    encoder: QualityFMEncoder,
    *,
    inputs: Input,
    augmentation: Mapping[str, Any],
    distill_over: str,
    head: str,
    head_width: int,
    head_hidden: int,
    normalise: str,
    predictor_hidden: int,
    teacher_temperature: float,
    teacher_temperature_start: float,
    teacher_warmup_frac: float,
    student_temperature: float,
    centre_over: str,
    centre_momentum: float,
    amplitude_weight: float,
    phase_weight: float,
    decode_from: str,
    breathing_weight: float,
    breathing_hz: tuple[float, float],
    koleo_weight: float,
    variance_weight: float,
    variance_least: float,
    spectrum: str,
    ema_start: float,
    ema_end: float,
    ema_horizon_frac: float | None,
    teacher_dropout: bool,
) -> Objective:
    """Return the objective for `encoder`; the arguments are the fields of the same names in jaxbio/config/families/.

    It reads `segment_BMCT`, `scale_BMC2` and `row_BM` of a batch of pairs (M = 2, the better member first), or of
    neighbourhoods with what says which of their segments are pairs (`Pairing`), and gives the metrics of
    `Distillation.compare`, amplitude, phase and ema_momentum. `loss` raises UserError for segments that come alone, a
    width whose decoder does not give a token a channel, and fewer samples than its spectral bins need.
    """
    spectrum_head = SpectrumHead(encoder.width, encoder.dtype)
    distillation_head = DistillationHead(head, head_width, head_hidden, normalise, encoder.dtype)
    predictor = DistillationPredictor(predictor_hidden, encoder.dtype) if predictor_hidden else None
    weights = {
        "distill": 1.0,
        "amplitude": amplitude_weight,
        "phase": phase_weight,
        "breathing": breathing_weight,
        "koleo": koleo_weight,
        "variance": variance_weight,
    }
    distillation = Distillation(
        distill_over,
        teacher_temperature,
        teacher_temperature_start,
        teacher_warmup_frac,
        student_temperature,
        centre_over,
        centre_momentum,
    )

    def prepare_pairs(batch: Batch, key: jax.Array | None = None) -> jax.Array:
        members = batch["segment_BMCT"].shape[1]
        if members != 2 and "pair_UP2" not in batch:
            raise UserError(Fault("pairs.rule", f"an index of {members} members", "an index of pairs, better first"))
        return prepare_batch(batch, inputs, key)

    def init(key: jax.Array, batch: Batch, frozen: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        x_BCT = jnp.zeros((1, *inputs.shape_of(batch["segment_BMCT"])))
        encoder_key, decoder_key, amplitude_key, phase_key = jax.random.split(key, 4)
        tok_BLD, encoder_variables = encoder.init_with_output(encoder_key, x_BCT)
        tok_BCD, decoder_variables = encoder.init_with_output(decoder_key, tok_BLD)
        head_key, predictor_key = jax.random.split(jax.random.fold_in(key, 4))
        z_BLK, head_variables = distillation_head.init_with_output(head_key, distillation.gather(tok_BLD))
        params = {
            "encoder": encoder_variables["params"],
            "decoder": decoder_variables["params"],
            "amplitude_head": spectrum_head.init(amplitude_key, tok_BCD)["params"],
            "phase_head": spectrum_head.init(phase_key, tok_BCD)["params"],
        }
        if breathing_weight:
            breathing_head = breathing_head_of(*x_BCT.shape[1:])
            params["breathing_head"] = breathing_head.init(jax.random.fold_in(key, 5), tok_BLD.mean(1))["params"]
        if head_variables:
            params["head"] = head_variables["params"]
        if predictor is not None:
            params["predictor"] = predictor.init(predictor_key, z_BLK)["params"]
        # copies, so that donating params does not take the teacher along
        teacher = jax.tree.map(jnp.copy, _taught(params))
        state = {"teacher": teacher, "centre": distillation.start_centre(z_BLK)}
        return params, state if ema_horizon_frac is None else state | {"progress": jnp.zeros(())}

    def breathing_head_of(channels: int, length: int) -> SpectrumHead:
        return SpectrumHead(channels * len(band_bins(length, inputs.rate_hz, breathing_hz)), encoder.dtype)

    def breathing(params: Tree, student_BLD: Any, better_BCT: jax.Array, pairing: Pairing) -> jax.Array:
        target_BCS = pairing.better(band_shape(better_BCT, inputs.rate_hz, breathing_hz))
        head = breathing_head_of(*better_BCT.shape[1:])
        estimate_BS: Any = head.apply({"params": params["breathing_head"]}, student_BLD.mean(1))
        estimate_BCS = pairing.worse(estimate_BS).reshape(target_BCS.shape)
        return pairing.mean(optax.losses.huber_loss(estimate_BCS, target_BCS, delta=1.0))

    def compared(params: Tree, tok_BLD: Any) -> Any:
        return distillation_head.apply({"params": params.get("head", {})}, distillation.gather(tok_BLD))

    def decoded(params: Tree, tok_BLD: Any, key: jax.Array, train: bool) -> Any:
        if decode_from == "segment":
            tok_BLD = jnp.broadcast_to(tok_BLD.mean(1, keepdims=True), tok_BLD.shape)
        return encoder.apply({"params": params["decoder"]}, tok_BLD, train=train, rngs={"dropout": key})

    def student(params: Tree, x_BCT: jax.Array, key: jax.Array, train: bool) -> tuple[Any, Any, Any]:
        encoder_key, decoder_key = jax.random.split(key)
        tok_BLD = encoder.apply({"params": params["encoder"]}, x_BCT, train=train, rngs={"dropout": encoder_key})
        tok_BCD = decoded(params, tok_BLD, decoder_key, train)
        _check_decoded(tok_BCD, x_BCT, encoder.width)
        amplitude_BCS = spectrum_head.apply({"params": params["amplitude_head"]}, tok_BCD)
        phase_BCS = spectrum_head.apply({"params": params["phase_head"]}, tok_BCD)
        return tok_BLD, amplitude_BCS, phase_BCS

    def loss(
        params: Tree, state: Tree, batch: Batch, keys: Mapping[str, jax.Array], progress: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[Aux, dict[str, jax.Array]]]:
        x_BMCT = prepare_pairs(batch, keys["augment"] if train else None)
        if train:
            augment_row = jax.vmap(jax.vmap(lambda key, x_CT: augment(key, x_CT, **augmentation)))
            x_BMCT = augment_row(row_keys(keys["augment"], batch["row_BM"]), x_BMCT)
        pairing = Pairing.of(batch)
        better_BCT, worse_BCT = pairing.members(x_BMCT)
        teacher_key, student_key = jax.random.split(keys["dropout"])
        teacher_BLD: Any = encoder.apply(
            {"params": state["teacher"]["encoder"]},
            better_BCT,
            train=train and teacher_dropout,
            rngs={"dropout": teacher_key},
        )
        teacher_BLK = pairing.better(jax.lax.stop_gradient(compared(state["teacher"], teacher_BLD)))
        student_BLD, amplitude_BCS, phase_BCS = student(params, worse_BCT, student_key, train)
        student_BLK = compared(params, student_BLD)
        if predictor is not None:
            student_BLK = predictor.apply({"params": params["predictor"]}, student_BLK)
        student_BLK = pairing.worse(student_BLK)
        terms, centre_1LK = distillation.compare(teacher_BLK, student_BLK, state["centre"], progress, train, pairing)
        spectra_BCS = zip((amplitude_BCS, phase_BCS), targets(better_BCT, spectrum_head.bins, spectrum), strict=True)
        for name, (estimate_BCS, target_BCS) in zip(("amplitude", "phase"), spectra_BCS, strict=True):
            estimate_BCS, target_BCS = pairing.worse(estimate_BCS), pairing.better(target_BCS)
            terms[name] = pairing.mean(optax.losses.huber_loss(estimate_BCS, target_BCS, delta=1.0))  # smooth L1
        if breathing_weight:
            terms["breathing"] = breathing(params, student_BLD, better_BCT, pairing)
        if koleo_weight:
            terms["koleo"] = koleo(student_BLD.mean(1), pairing.worse_B)
        if variance_weight:
            terms["variance"] = variance_hinge(student_BLD.mean(1), variance_least, pairing.worse_B)
        total = sum((weights[name] * terms[name] for name in weights if name in terms), start=jnp.zeros(()))
        return total, (Aux({"centre": centre_1LK}), terms)

    def update(
        params: Tree, state: Tree, aux: Aux, key: jax.Array, progress: jax.Array
    ) -> tuple[Tree, dict[str, jax.Array]]:
        moved = {"centre": optax.incremental_update(aux.means["centre"], state["centre"], 1 - centre_momentum)}
        if ema_horizon_frac is None:
            momentum = cosine(ema_start, ema_end, progress)
        else:
            momentum = horizon_momentum(ema_horizon_frac, progress - state["progress"])
            moved["progress"] = progress
        moved["teacher"] = optax.incremental_update(_taught(params), state["teacher"], 1 - momentum)
        return moved, {"ema_momentum": momentum}

    def show(params: Tree, state: Tree, batch: Batch) -> dict[str, Any]:
        x_BMCT = prepare_pairs(batch)
        _, *outputs = student(params, x_BMCT[:, 1], jax.random.key(0), train=False)
        spectra = zip(("amplitude", "phase"), zip(targets(x_BMCT[:, 0], spectrum_head.bins, spectrum), outputs))
        return {"segment": x_BMCT, **dict(spectra)}

    encoders = {
        "teacher": (encoder, lambda params, state: {"params": state["teacher"]["encoder"]}),
        "student": (encoder, lambda params, state: {"params": params["encoder"]}),
    }
    coupled = bool(koleo_weight or variance_weight)
    judged = {"distill": ("distill_constant", "teacher_entropy")}
    return Objective(init, loss, update, encoders, coupled=coupled, show=show, judged=judged, conclude=conclude)


def _taught(params: Tree) -> Tree:
    """Return the parts of the student that the teacher averages."""
    return {name: params[name] for name in ("encoder", "head") if name in params}


def _check_decoded(tok_BCD: Any, x_BCT: jax.Array, width: int) -> None:
    tokens, channels = tok_BCD.shape[1], x_BCT.shape[1]
    if tokens != channels:
        remedy = (
            f"{500 * channels - 499} to {500 * channels}: the decoder's {tokens} tokens stand for {channels} channels"
        )
        raise UserError(Fault("model.width", width, remedy))
