"""What tests of SIGMA-PPG share: batches of prepared signals, a frozen tokenizer, small networks."""

import jax
import numpy as np

from jaxbio.config import fields
from jaxbio.config.families import sigma_ppg
from jaxbio.export import folder
from jaxbio.models.sigma_tokenizer import SigmaTokenizer
from jaxbio.objectives import Network, make_objective
from jaxbio.transforms.prepare_input import Input

KEYS = {"augment": jax.random.key(0), "dropout": jax.random.key(0)}
SMALL = {
    "data.segment_s": 20.0,
    "data.streams": 4,
    "model.width": 16,
    "model.layers": 2,
    "model.heads": 2,
    "model.channels": 4,
    "model.patch": 50,
    "model.tokens": 20,
    "train.batch": 16,
    "train.steps": 10,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 1e-2,
    "optimizer.learning_rate_end": 0.0,
    "optimizer.warmup_frac": 0.0,
}
TOKENIZER = {**sigma_ppg.TOKENIZER, **SMALL, "model.codes": 16, "model.code_width": 8, "objective.decoder_layers": 1}
STUDENT = {
    **sigma_ppg.STUDENT,
    **SMALL,
    "objective.tokenizer": "given",
    "objective.mask_width": 8,
    "objective.mask_layers": 1,
    "optimizer.groups": (("^mask_generator/", {"decay_mask": "all", "learning_rate": 1e-3}),),
}


def tokenizer_config(**changes):
    """Return the first stage's configuration of a small network; `changes` with two underscores for a dot."""
    return _config("sigma_tokenizer", "spectral_tokenizer", TOKENIZER, changes)


def student_config(**changes):
    """Return the second stage's."""
    return _config("sigma_ppg", "adversarial_masking", STUDENT, changes)


def small_tokenizer(config):
    """Return the objective of the second stage with a small tokenizer, and the tokenizer's variables by name."""
    module = SigmaTokenizer(16, 2, 2, 4, config.model.patch, config.model.tokens, 16, 8)
    variables = jax.jit(module.init)(jax.random.key(7), np.zeros((1, *Input.of(config).shape), np.float32))
    network = tokenizer_network(module, variables)
    return make_objective(config, {"tokenizer": network}), {"tokenizer": variables}


def batch_of(x_BCT):
    """Return a batch whose input is `x_BCT` where data.scaling is physical and nothing else is done to it."""
    segments = len(x_BCT)
    return {
        "segment_BMCT": np.asarray(x_BCT, np.float32)[:, None],
        "scale_BMC2": np.broadcast_to(np.float32([0, 1]), (segments, 1, 1, 2)),
        "row_BM": np.arange(segments, dtype=np.uint32)[:, None],
    }


def tokenizer_network(module, variables):
    """Return a tokenizer as an objective gets it from an export."""
    name, settings = folder.describe_encoder(module)
    return Network(module, {"encoder": name, "encoder_fields": settings}, variables)


def _config(model, objective, settings, changes):
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return fields.change(fields.defaults(model, objective), {**settings, **named})
