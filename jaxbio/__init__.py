"""jaxbio: pretraining foundation models of ECG and PPG, from raw clinical recordings to exported encoders.

The front door is three names, loaded when first used, so that preparation workers never import JAX:

    jaxbio.store_from_arrays(...)      a segment store from arrays
    jaxbio.signals.score(ppg=x, ecg=y, rate_hz=125)      what a waveform is worth
    jaxbio.load_pretrained(folder)     an encoder, or a detector

Arrays carry their axes as a suffix, in the order of the axes (`x_BCT`, `tok_BLD`):

    B  pairs or segments in a batch      C  signal channels
    T  samples in a segment              L  tokens
    D  model width                       H  heads
    K  width per head, labels, codes     F  feed-forward width
    N  layers (scan axis), rows          S  spectral bins
    M  members of a pair (0 the better)  G  microbatches
    R  rows of a store                   J  beats (R peaks or pulses)
    W  samples of a beat window          A  patches of a segment
    Z  width of a code                   U  neighbourhoods in a batch
    I  intervals between beats           P  pairs, parts of an index, samples of a patch
    E  stages, width of an embedding     V  streams of an order, visible times or patches
    X  what no other letter stands for: several axes in one, or any

Quantities carry their unit (`rate_hz`, `gap_s`, `limit_bytes`).
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_FRONT_DOOR = {
    "store_from_arrays": ("jaxbio.data.from_arrays", "store_from_arrays"),
    "load_pretrained": ("jaxbio.export.pretrained", "load_pretrained"),
    "signals": ("jaxbio.signals", None),
}
__all__ = ["__version__", *_FRONT_DOOR]


def __getattr__(name: str) -> Any:
    if name not in _FRONT_DOOR:
        raise AttributeError(f"module 'jaxbio' has no attribute {name!r}")
    module, attribute = _FRONT_DOOR[name]
    loaded = importlib.import_module(module)
    return loaded if attribute is None else getattr(loaded, attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
