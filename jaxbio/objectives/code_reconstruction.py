"""A VQ-VAE from scratch: reconstruct the signal from the nearest codes of its tokens (van den Oord et al. 2017).

Fact sheet of VQ-VAE and triplets, sections 4.1 to 4.3. The codebook starts from k-means over the first batch's tokens
and moves by averages, outside the optimiser; codes that hardly any token chooses start anew from tokens of the batch.

    params: {"encoder", "decoder"}, and {"codebook": {"code"}} where the codes move by gradient
    state:  {"codebook", "sum_KZ"}, empty where the codes move by gradient
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbio.models.lead_patches import present_channels
from jaxbio.models.quantiser import (
    Codebook,
    attraction,
    draw_rows,
    kmeans,
    measure_use,
    members,
    move_by_sums,
    nearest,
    revive,
    steps_to_revival,
    straight_through,
    use,
)
from jaxbio.models.vq_vae import VQVAE, VQVAEDecoder, nearest_of_rows
from jaxbio.objectives.objective import Aux, Batch, Objective, Tree
from jaxbio.objectives.single_segments import row_mean, single_segments
from jaxbio.transforms.prepare_input import Input


def code_reconstruction(
    encoder: VQVAE,
    *,
    inputs: Input,
    augmentation: Mapping[str, Any],
    decoder_width: int,
    decoder_layers: int,
    decoder_heads: int,
    commitment: float,
    codebook: str,
    codebook_decay: float,
    codebook_epsilon: float,
    kmeans_rounds: int,
    revive_below: float,
) -> Objective:
    """Return the objective for `encoder`; the arguments are the fields of the same names in jaxbio/config/families/.

    It reads single segments and gives the metrics reconstruction, commitment; code_perplexity, unused_codes and
    revived_codes of a step's batch; and of an evaluation code_perplexity and unused_codes over all its tokens. `loss`
    raises UserError for segments that come in pairs.
    """
    decoder = VQVAEDecoder(
        decoder_width,
        decoder_layers,
        decoder_heads,
        4 * decoder_width,
        encoder.patch,
        inputs.shape[0],
        encoder.head_width,
        encoder.unroll,
        encoder.dtype,
    )
    learnt = codebook == "gradient"

    def encode(params: Tree, x_BCT: jax.Array, train: bool) -> jax.Array:
        return jnp.asarray(encoder.apply({"params": params["encoder"]}, x_BCT, train))

    def codes_of(params: Tree, state: Tree) -> jax.Array:
        return params["codebook"]["code"] if learnt else state["codebook"].code_KZ

    def init(key: jax.Array, batch: Batch, frozen: Mapping[str, Tree]) -> tuple[Tree, Tree]:
        x_BCT = single_segments(batch, inputs, augmentation)
        encoder_key, decoder_key, code_key = jax.random.split(key, 3)
        z_BNZ, variables = encoder.init_with_output(encoder_key, x_BCT)
        params = {"encoder": variables["params"], "decoder": decoder.init(decoder_key, z_BNZ)["params"]}
        z_NZ = z_BNZ.reshape(-1, encoder.latent)
        book = kmeans(z_NZ, draw_rows(code_key, z_NZ, encoder.codes), kmeans_rounds, on_sphere=False)
        if learnt:
            return {**params, "codebook": {"code": book.code_KZ}}, {}
        uniform_K = jnp.full(encoder.codes, 1.0 / encoder.codes)
        return params, {"codebook": Codebook(book.code_KZ, uniform_K), "sum_KZ": book.code_KZ * uniform_K[:, None]}

    def loss(
        params: Tree, state: Tree, batch: Batch, keys: Mapping[str, jax.Array], progress: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[Aux, dict[str, jax.Array]]]:
        x_BCT = single_segments(batch, inputs, augmentation, keys["augment"] if train else None)
        z_BNZ, code_KZ = encode(params, x_BCT, train), codes_of(params, state)
        z_NZ = z_BNZ.reshape(-1, encoder.latent)
        code_N = nearest(jax.lax.stop_gradient(z_NZ), jax.lax.stop_gradient(code_KZ))
        quantised_NZ = code_KZ[code_N]
        decoded_BCT: Any = decoder.apply(
            {"params": params["decoder"]}, straight_through(z_NZ, quantised_NZ).reshape(z_BNZ.shape)
        )
        terms = {
            "reconstruction": row_mean(
                jnp.square(decoded_BCT - x_BCT),
                jnp.broadcast_to(present_channels(x_BCT)[..., None], x_BCT.shape),
            ),
            "commitment": attraction(z_NZ, quantised_NZ),
        }
        total = terms["reconstruction"] + commitment * terms["commitment"]
        if learnt:
            total += attraction(quantised_NZ, z_NZ)
        found = members(z_NZ, code_N, encoder.codes)
        return total, (Aux(found, jax.lax.stop_gradient(z_BNZ)), terms)

    def update(
        params: Tree, state: Tree, aux: Aux, key: jax.Array, progress: jax.Array
    ) -> tuple[Tree, dict[str, jax.Array]]:
        metrics = use(aux.means.share_K)
        if learnt:
            return state, metrics
        book, sum_KZ = move_by_sums(state["codebook"], state["sum_KZ"], aux.means, codebook_decay, codebook_epsilon)
        book, dead_K = revive(key, book, aux.samples.reshape(-1, encoder.latent), revive_below)
        sum_KZ = jnp.where(dead_K[:, None], book.code_KZ * book.use_K[:, None], sum_KZ)
        return {"codebook": book, "sum_KZ": sum_KZ}, {**metrics, "revived_codes": dead_K.sum()}

    def outputs(params: Tree, state: Tree, batch: Batch) -> dict[str, jax.Array]:
        z_BNZ = encode(params, single_segments(batch, inputs, augmentation), train=False)
        return {"code_BN": nearest_of_rows(z_BNZ, codes_of(params, state))}

    def measure(gathered: Mapping[str, np.ndarray]) -> dict[str, float]:
        revival_steps = 0.0 if learnt else steps_to_revival(codebook_decay, revive_below)
        return {**measure_use(gathered["code_BN"], encoder.codes), "steps_to_revival": revival_steps}

    def quantised_variables(params: Tree, state: Tree) -> Tree:
        return {"params": params["encoder"], "codebook": {"code": codes_of(params, state)}}

    encoders = {
        "latent": (encoder, lambda params, state: {"params": params["encoder"]}),
        "quantised": (encoder.clone(output="quantised"), quantised_variables),
    }
    return Objective(init, loss, update, encoders, outputs=outputs, measure=measure)
