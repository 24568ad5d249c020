"""The training step of every family at its smallest, compiled for the simulated devices or for a described TPU."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxbio.config import fields
from jaxbio.config.families import qualityfm, siamquality, sigma_ppg
from jaxbio.export import folder
from jaxbio.models.sigma_tokenizer import SigmaTokenizer
from jaxbio.objectives import Network, make_objective
from jaxbio.planning.topology import open_topology, parse_topology
from jaxbio.training.program import lay_out, lower_train_step
from jaxbio.training.sharding import network_order
from jaxbio.transforms.prepare_input import Input
from launch import environment

RUN = {"train.batch": 16, "train.steps": 10, "data.segment_s": 5.0}
QUALITYFM = {
    **RUN,
    "data.channels": ("ppg",),
    "model.width": 128,
    "model.layers": 2,
    "model.heads": 2,
    "model.window": None,
}
SIAMQUALITY = {**siamquality.PAIRS, **RUN, "data.segment_s": 10.0, "model.depth": 18, "model.blocks": (1, 1, 1, 1)}
LEADS = {
    **RUN,
    "data.rate_hz": 100.0,
    "data.channels": ("i", "ii", "v1"),
    "data.scaling": "physical",
    "pairs.rule": "all_segments",
    "model.width": 16,
    "model.layers": 2,
    "model.heads": 2,
    "model.feedforward": 16,
    "model.patch": 10,
}
DECODER = {
    "model.head_width": 8,
    "objective.decoder_width": 8,
    "objective.decoder_layers": 1,
    "objective.decoder_heads": 1,
}
PREDICTOR = {"objective.predictor_width": 8, "objective.predictor_layers": 1, "objective.predictor_heads": 2}
SIGMA = {
    **RUN,
    "data.segment_s": 20.0,
    "model.width": 16,
    "model.layers": 2,
    "model.heads": 2,
    "model.channels": 4,
    "model.patch": 50,
    "model.tokens": 20,
}
TOKENIZER = {"model.codes": 16, "model.code_width": 8, "objective.decoder_layers": 1}
MASKS = {"objective.tokenizer": "given", "objective.mask_width": 8, "objective.mask_layers": 1}
CODES = {"model.latent": 4, "model.codes": 8}
LABEL = {"model.head_width": 8, "data.labels": ("fast",)}
LABELS = {"data.labels": ("fast",), "objective.classes": ("slow", "fast"), "pairs.rule": "all_segments"}

# name -> model, objective, changes
STEPS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "qualityfm": ("qualityfm", "quality_distillation", {**qualityfm.LEARNS, **QUALITYFM}),
    "siamquality": ("resnet1d", "quality_siamese", {**SIAMQUALITY, "objective.projector_width": 32}),
    "contrastive": ("resnet1d", "contrastive", {**SIAMQUALITY, "objective.projector_width": 32}),
    "byol": ("resnet1d", "byol", {**SIAMQUALITY, "objective.projector_width": 32}),
    "st_mem": ("st_mem", "patch_reconstruction", {**LEADS, **DECODER}),
    "ecg_jepa": ("ecg_jepa", "feature_prediction", {**LEADS, **PREDICTOR}),
    "ecg_vqvae": ("vq_vae", "code_reconstruction", {**LEADS, **DECODER, **CODES}),
    "sigma_tokenizer": ("sigma_tokenizer", "spectral_tokenizer", {**sigma_ppg.TOKENIZER, **SIGMA, **TOKENIZER}),
    "sigma_ppg": ("sigma_ppg", "adversarial_masking", {**sigma_ppg.STUDENT, **SIGMA, **MASKS}),
    "label_triplets": ("vq_vae", "label_triplets", {**LEADS, **CODES, **LABEL}),
    "finetune": ("qualityfm", "supervised", {**QUALITYFM, **LABELS}),
}


def compile_text(name: str, topology: str) -> str:
    """Return the compiled HLO text of the step `name` for all devices of `topology`: cpu:8, or a TPU's, in bfloat16."""
    config, networks = family(name)
    if topology == "cpu:8":
        return _lower(config, networks, None).compile().as_text()
    environment.compile_only()
    devices = open_topology(parse_topology(topology))
    in_order = network_order((len(devices), 1, 1), devices)
    with jax.default_matmul_precision("default"):
        near = fields.change(config, {"precision.compute": "bfloat16"})
        return _lower(near, networks, in_order).compile().as_text()


def family(name: str) -> tuple[ConfigDict, Mapping[str, Network]]:
    """Return the configuration of the step `name` and the networks that it uses and does not train, as shapes."""
    model, objective_name, settings = STEPS[name]
    config = fields.change(fields.defaults(model, objective_name), settings)
    return config, _networks(config)


def with_weights(networks: Mapping[str, Network]) -> Mapping[str, Network]:
    """Return `networks` with weights of their own instead of shapes: normal, of deviation 0.02."""
    rng = np.random.default_rng(0)
    return {
        name: replace(network, variables=jax.tree.map(lambda leaf: _normal(rng, leaf), network.variables))
        for name, network in networks.items()
    }


def _normal(rng: np.random.Generator, leaf: Any) -> np.ndarray:
    return rng.normal(0, 0.02, leaf.shape).astype(leaf.dtype)


def _lower(config: ConfigDict, networks: Mapping[str, Network], devices: Sequence[jax.Device] | None) -> Any:
    objective = make_objective(config, networks)
    return lower_train_step(config, objective, lay_out(config, objective, devices))


def _networks(config: ConfigDict) -> Mapping[str, Network]:
    """Return the tokenizer of the second stage of SIGMA-PPG, of which the shapes suffice."""
    if config.objective.name != "adversarial_masking":
        return {}
    own = config.model
    module = SigmaTokenizer(own.width, own.layers, own.heads, own.channels, own.patch, own.tokens, 16, 8)
    init: Callable[..., Any] = module.init
    variables = jax.eval_shape(init, jax.random.key(0), np.zeros((1, *Input.of(config).shape), np.float32))
    encoder, settings = folder.describe_encoder(module)
    return {"tokenizer": Network(module, {"encoder": encoder, "encoder_fields": settings}, variables)}
