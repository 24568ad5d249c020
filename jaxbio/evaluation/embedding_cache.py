"""Embeddings kept by content: the same weights and the same segments are embedded once, whatever they are called.

vector_BD = embed_cached(model, x_BCT, Path("~/.cache/jaxbio/embeddings").expanduser(), embed_segments)
"""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxbio.data.whole_files import whole_file
from jaxbio.export.weights import flatten_tree

_VERSION = b"jaxbio embedding 2"  # of what `embed` computes from the same weights and segments
log = logging.getLogger(__name__)


def embed_cached(
    model: Any, x_BCT: np.ndarray, folder: Path | None, embed: Callable[[Any, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return what `embed`, a named function, makes of the segments, from `folder` if it is there; None: computed.

    A folder that cannot be written costs its use, not the evaluation.
    """
    if folder is None:
        return embed(model, x_BCT)
    path = folder / f"{content_key(model, x_BCT, embed.__name__)}.npy"
    try:
        if path.is_file():
            return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        log.warning("%s is computed again: %s", path, error)
    embedded = embed(model, x_BCT)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, embedded)
    except OSError as error:
        log.warning("embeddings are not kept: %s", error)
    return embedded


def content_key(model: Any, x_BCT: np.ndarray, embedded_by: str) -> str:
    """Return a hash of the encoder's fields, input and weights, of the segments, and of what is made of them."""
    digest = hashlib.blake2b(_VERSION, digest_size=20)
    card = model.card
    said = {"encoder": card.encoder, "fields": card.encoder_fields, "inputs": repr(card.inputs), "shape": x_BCT.shape}
    said["by"] = embedded_by
    digest.update(json.dumps(said, sort_keys=True).encode())
    for name, array in sorted(flatten_tree(jax.device_get(model.variables)).items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(np.ascontiguousarray(x_BCT).tobytes())
    return digest.hexdigest()
