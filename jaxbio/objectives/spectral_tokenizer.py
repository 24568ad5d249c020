"""SIGMA-PPG's first stage: a codebook of patches, learnt by decoding each patch's spectrum from its code.

Terms (docs/references.md): the amplitude spectrum of every patch, and its phase where that is asked for; commitment
of the normalised points to their codes; consistency, which pulls the points of a perturbed view, before they are
normalised, to those of the clean one. The perturbed view is the common augmentation. Codes move by averages once a
step, after the optimiser, and start from k-means of the first batch. The decoder starts from the first batch's typical
spectrum: else its first gradients, the same for every patch, push all points to one code (docs/benchmarks.md).

    params: {"encoder", "decoder"}
    state:  {"code_KZ", "use_K"}
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbio.models import quantiser
from jaxbio.models.quantiser import Codebook
from jaxbio.models.sigma_tokenizer import CODEBOOK, SigmaTokenizer, SpectrumDecoder
from jaxbio.objectives.objective import Aux, Batch, Objective, Tree
from jaxbio.objectives.single_segments import anything_moves, share_still
from jaxbio.transforms.augment import augment, row_keys
from jaxbio.transforms.patches import cut_patches, patch_spectra
from jaxbio.transforms.prepare_input import Input, prepare_batch

_SAMPLES = 32  # points of a segment that a dead code may start anew from: however many rows a microbatch has
_SHOWN_CODES = 8


def spectral_tokenizer(
    encoder: SigmaTokenizer,
    *,
    inputs: Input,
    augmentation: Mapping[str, Any],
    decoder_layers: int,
    decoder_start: str,
    spectrum_loss: str,
    one_sided: bool,
    phase_weight: float,
    commitment_weight: float,
    consistency_weight: float,
    code_decay: float,
    codebook_moves: str,
    kmeans_rounds: int,
    revive_below: float,
) -> Objective:
    """Return the objective for `encoder`; the arguments are the fields of the same names in jaxbio/config/families/.

    It reads single segments of one channel. Metrics: amplitude, phase, commitment, consistency, identical_codes (share
    of patches whose code the perturbation leaves), still, and of the codebook code_perplexity, unused_codes (share of
    them, both of the batch) and revived_codes. Outside training amplitude_constant is what the typical spectrum gives
    for every patch, amplitude_floor 0.
    """
    patch, codes = encoder.patch, encoder.codes
    decoder = SpectrumDecoder(
        encoder.width,
        decoder_layers,
        encoder.heads,
        encoder.tokens,
        patch // 2 + 1 if one_sided else patch,
        phase_weight > 0,
        encoder.remat,
        encoder.unroll,
        encoder.dtype,
    )

    def prepare(batch: Batch, key: jax.Array | None = None) -> jax.Array:
        return prepare_batch(batch, inputs, key)[:, 0]

    def perturb(x_BCT: jax.Array, batch: Batch, key: jax.Array) -> jax.Array:
        key_B = row_keys(key, batch["row_BM"])[:, 0]
        return jax.vmap(lambda key, x_CT: augment(key, x_CT, **augmentation))(key_B, x_BCT)

    def points(params: Tree, state: Tree, x_BCT: jax.Array) -> Any:
        return encoder.apply(_encoder_variables(params, state), x_BCT, method="points_of")

    def codes_of(code_KZ: jax.Array, z_BAZ: jax.Array) -> jax.Array:
        flat_NZ = quantiser.unit(z_BAZ).reshape(-1, encoder.code_width)
        return quantiser.nearest(flat_NZ, code_KZ).reshape(z_BAZ.shape[:2])

    def members(z_BAZ: jax.Array, code_BA: jax.Array) -> quantiser.Members:
        return quantiser.members(quantiser.unit(z_BAZ).reshape(-1, encoder.code_width), code_BA.ravel(), codes)

    def targets_of(x_BCT: jax.Array) -> dict[str, jax.Array]:
        return patch_spectra(x_BCT[:, 0], patch, one_sided=one_sided, phase=phase_weight > 0)

    def reconstruct(params: Tree, code_KZ: jax.Array, z_BAZ: jax.Array, code_BA: jax.Array) -> Any:
        through_BAZ = quantiser.straight_through(quantiser.unit(z_BAZ), code_KZ[code_BA])
        return decoder.apply({"params": params["decoder"]}, through_BAZ)

    def init(key: jax.Array, batch: Batch, frozen: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        encoder_key, decoder_key, code_key = jax.random.split(key, 3)
        x_BCT = prepare(batch)
        own = encoder.init(encoder_key, x_BCT[:1])
        quantised_BAZ = jnp.zeros((1, x_BCT.shape[-1] // patch, encoder.code_width))
        params = {"encoder": own["params"], "decoder": decoder.init(decoder_key, quantised_BAZ)["params"]}
        if decoder_start == "typical":
            for name, target_BAS in targets_of(x_BCT).items():
                params["decoder"][f"{name}_output"]["bias"] = _typical(target_BAS, spectrum_loss)
        book = Codebook(own[CODEBOOK]["code_KZ"], jnp.full(codes, 1 / codes))
        if kmeans_rounds:
            z_BAZ = quantiser.unit(points(params, book._asdict(), x_BCT))
            z_NZ = z_BAZ.reshape(-1, encoder.code_width)
            start_KZ = quantiser.draw_rows(code_key, z_NZ, codes)
            book = quantiser.kmeans(z_NZ, start_KZ, kmeans_rounds, on_sphere=True)
        return params, book._asdict()

    def loss(
        params: Tree, state: Tree, batch: Batch, keys: Mapping[str, jax.Array], progress: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[Aux, dict[str, jax.Array]]]:
        x_BCT = prepare(batch, keys["augment"] if train else None)
        code_KZ = state["code_KZ"]
        views = [x_BCT, perturb(x_BCT, batch, keys["augment"])] if train else [x_BCT]
        # the encoder sees both in one pass; a segment's views lie side by side, so that they stay on its device
        seen_BCT = jnp.stack(views, axis=1).reshape(-1, *x_BCT.shape[1:])
        z_BVAZ = points(params, state, seen_BCT).reshape(len(x_BCT), len(views), -1, encoder.code_width)
        z_BAZ = z_BVAZ[:, 0]
        code_BA = codes_of(code_KZ, z_BAZ)
        found = reconstruct(params, code_KZ, z_BAZ, code_BA)
        target = targets_of(x_BCT)
        terms = {name: _distance(found[name], target[name], spectrum_loss) for name in target}
        terms["commitment"] = quantiser.attraction(quantiser.unit(z_BAZ), code_KZ[code_BA])
        weights = {"amplitude": 1.0, "phase": phase_weight, "commitment": commitment_weight}
        aux = Aux(members(z_BAZ, code_BA), _samples(z_BAZ) if revive_below else ())
        if train:
            z_again_BAZ = z_BVAZ[:, 1]
            terms["consistency"] = quantiser.attraction(z_again_BAZ, z_BAZ)
            weights["consistency"] = consistency_weight
            if codebook_moves == "both":
                aux = aux._replace(samples={"pool": aux.samples, "again": jax.lax.stop_gradient(z_again_BAZ)})
        total = sum(weights[name] * term for name, term in terms.items())
        if train:
            terms["identical_codes"] = (codes_of(code_KZ, z_again_BAZ) == code_BA).mean()
        else:
            same_S = _typical(target["amplitude"], spectrum_loss)
            terms["amplitude_constant"] = _distance(same_S[None, None], target["amplitude"], spectrum_loss)
            terms["amplitude_floor"] = jnp.zeros(())
        terms["still"] = share_still(x_BCT)
        # nothing can be learnt from a batch in which nothing moves: the run stops and says so
        return jnp.where(anything_moves(x_BCT), total, jnp.nan), (aux, terms)

    def update(
        params: Tree, state: Tree, aux: Aux, key: jax.Array, progress: jax.Array
    ) -> tuple[Tree, dict[str, jax.Array]]:
        book = quantiser.move_on_sphere(Codebook(**state), aux.means, code_decay)
        pool = aux.samples
        if codebook_moves == "both":
            pool, z_BAZ = aux.samples["pool"], aux.samples["again"]
            book = quantiser.move_on_sphere(book, members(z_BAZ, codes_of(book.code_KZ, z_BAZ)), code_decay)
        metrics = quantiser.use(aux.means.share_K)
        if revive_below:
            book, dead_K = quantiser.revive(key, book, pool.reshape(-1, encoder.code_width), revive_below)
            metrics["revived_codes"] = dead_K.sum()
        return book._asdict(), metrics

    def outputs(params: Tree, state: Tree, batch: Batch) -> dict[str, jax.Array]:
        x_BCT = prepare(batch)
        again_BCT = perturb(x_BCT, batch, jax.random.key(0, impl="threefry2x32"))  # of the row alone: always the same
        seen = {"code_BA": x_BCT, "code_again_BA": again_BCT}
        return {name: codes_of(state["code_KZ"], points(params, state, view)) for name, view in seen.items()}

    def measure(gathered: Mapping[str, np.ndarray]) -> dict[str, float]:
        code_BA = gathered["code_BA"]
        return {
            **quantiser.measure_use(code_BA, codes),
            "steps_to_revival": quantiser.steps_to_revival(code_decay, revive_below),
            "identical_codes": float((code_BA == gathered["code_again_BA"]).mean()),
        }

    def show(params: Tree, state: Tree, batch: Batch) -> dict[str, Any]:
        x_BCT = prepare(batch)
        z_BAZ = points(params, state, x_BCT)
        code_BA = codes_of(state["code_KZ"], z_BAZ)
        found = reconstruct(params, state["code_KZ"], z_BAZ, code_BA)
        target = targets_of(x_BCT)
        middle, half = code_BA.shape[1] // 2, slice(patch // 2 + 1)
        curves = {name: (target[name][:, middle, None, half], found[name][:, middle, None, half]) for name in target}
        waveforms = _most_used(code_BA, cut_patches(x_BCT[:, 0], patch), codes)
        return {"segment": x_BCT[:, None], "curve_samples": patch, "waveforms": {"code": waveforms}, **curves}

    encoders = {"tokenizer": (encoder, _encoder_variables)}
    judged = {"amplitude": ("amplitude_constant", "amplitude_floor")}
    return Objective(
        init,
        loss,
        update,
        encoders,
        targets_given=True,
        judged=judged,
        show=show,
        outputs=outputs,
        measure=measure,
    )


def _encoder_variables(params: Tree, state: Tree) -> Tree:
    return {"params": params["encoder"], CODEBOOK: {"code_KZ": state["code_KZ"]}}


def _distance(found_BAS: jax.Array, target_BAS: jax.Array, kind: str) -> jax.Array:
    difference_BAS = found_BAS - target_BAS
    match kind:
        case "l1":
            return jnp.abs(difference_BAS).mean()
        case "mse":
            return jnp.square(difference_BAS).mean()
    return optax.losses.huber_loss(difference_BAS, delta=1.0).mean()


def _typical(target_BAS: jax.Array, kind: str) -> jax.Array:
    """Return the spectrum (S,) that is near all patches' by `kind`: their mean, or the segments' mean median, which
    microbatches and devices can share.
    """
    return (target_BAS.mean(axis=1) if kind == "mse" else jnp.median(target_BAS, axis=1)).mean(axis=0)


def _samples(z_BAZ: jax.Array) -> jax.Array:
    """Return points of every segment for codes to start anew from, evenly spaced ones."""
    patches = z_BAZ.shape[1]
    wanted = min(patches, _SAMPLES)
    return jax.lax.stop_gradient(quantiser.unit(z_BAZ[:, np.arange(wanted) * patches // wanted]))


def _most_used(code_BA: jax.Array, patch_BAT: jax.Array, codes: int) -> dict[str, jax.Array]:
    """Return number, share and mean waveform of the codes that most patches have, most used first."""
    chosen_NK = jax.nn.one_hot(code_BA.ravel(), codes)
    count_K = chosen_NK.sum(axis=0)
    most_N, number_N = jax.lax.top_k(count_K, min(_SHOWN_CODES, codes))
    sum_NT = jnp.einsum("nk,nt->kt", chosen_NK[:, number_N], patch_BAT.reshape(-1, patch_BAT.shape[-1]))
    mean_NT = sum_NT / jnp.maximum(most_N, 1.0)[:, None]
    return {"number_N": number_N, "share_N": most_N / code_BA.size, "mean_NT": mean_NT}
