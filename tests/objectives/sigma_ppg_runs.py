"""What tests of SIGMA-PPG share: batches of prepared signals, and a tokenizer as a frozen network."""

import jax
import numpy as np

from jaxbio.export import folder
from jaxbio.objectives import Network

KEYS = {"augment": jax.random.key(0), "dropout": jax.random.key(0)}


def batch_of(x_BCT):
    """Return a batch whose input is `x_BCT` where data.scaling is physical."""
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
