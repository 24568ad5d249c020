"""What a batch is: the names, shapes and dtypes of its arrays, said once for all who make, place, compile or count it.

The loader makes these arrays, the feed places whatever it is given, the step is compiled for them, plans and benches
count them. The leading axis is that of the global batch, of which a host holds some rows.

    batch_spec(config)["segment_BMCT"]      # ArraySpec(shape=(512, 2, 2, 9000), dtype=dtype('int16'))
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ml_collections import ConfigDict

from jaxbio.data.labels import Label
from jaxbio.data.several import Stores
from jaxbio.data.store import Store

DTYPES: dict[str, np.dtype] = {
    "segment_BMCT": np.dtype("<i2"),  # physical = offset + gain * q
    "scale_BMC2": np.dtype("<f4"),  # (offset, gain)
    "row_BM": np.dtype("<u4"),  # rows of the store
    "label_BMK": np.dtype("<f4"),  # NaN: unknown
    "present_BMC": np.dtype(bool),  # False: the channel was missing, and the segment holds zeros for it
    # Of neighbourhoods (M = 1), by neighbourhood: its G better segments lead its rows, its H worse ones follow.
    "pair_UP2": np.dtype("<i4"),  # places of a pair's segments among the better and among the worse
    "weight_UP": np.dtype("<f4"),  # what a pair counts; 0: there is none
    "better_UG": np.dtype(bool),  # False: the place is left over, and repeats another
    "worse_UH": np.dtype(bool),
}
PAIRS_PER_WORSE = 4  # that a neighbourhood has room for: what the default cap of pairs a segment allows


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of one array of a batch."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize


def batch_spec(config: ConfigDict) -> dict[str, ArraySpec]:
    """Return the arrays of one global batch of `config`, by name.

    Always `segment_BMCT` int16, `scale_BMC2` float32 and `row_BM` uint32, M = 1 where the index is of single segments;
    `label_BMK` float32 where `data.labels` names K labels, in that order; `present_BMC` bool where
    `prepare.missing_channel` is "mask". Feature channels lie behind the recorded ones, and are not in `present_BMC`.

    Under `data.batching = neighbourhoods` M = 1, and the arrays of neighbourhoods say which rows form pairs.
    """
    if config.data.batching == "pairs":
        return held_out_spec(config)
    (better, worse), drawn = config.data.neighbourhood, elements(config)
    of_neighbourhoods = {
        "pair_UP2": (drawn, PAIRS_PER_WORSE * worse, 2),
        "weight_UP": (drawn, PAIRS_PER_WORSE * worse),
        "better_UG": (drawn, better),
        "worse_UH": (drawn, worse),
    }
    return _spec(config, (drawn * (better + worse), 1)) | {
        name: ArraySpec(shape, DTYPES[name]) for name, shape in of_neighbourhoods.items()
    }


def held_out_spec(config: ConfigDict) -> dict[str, ArraySpec]:
    """Return the arrays of a batch of an evaluation, which is of pairs whatever is trained on."""
    return _spec(config, (config.train.batch, 1 if config.pairs.rule == "all_segments" else 2))


def elements(config: ConfigDict) -> int:
    """Return how many elements of its index a step draws: pairs, segments or neighbourhoods."""
    return config.train.batch // per_element(config)


def per_element(config: ConfigDict) -> int:
    """Return how much of `train.batch` an element of the index is: 1, or a neighbourhood's worse segments."""
    return 1 if config.data.batching == "pairs" else config.data.neighbourhood[1]


def _spec(config: ConfigDict, pair: tuple[int, int]) -> dict[str, ArraySpec]:
    channels = len(config.data.channels)
    stored = channels + len(config.data.features)
    shapes = {
        "segment_BMCT": (*pair, stored, round(config.data.rate_hz * config.data.segment_s)),
        "scale_BMC2": (*pair, stored, 2),
        "row_BM": pair,
    }
    if config.data.labels:
        shapes["label_BMK"] = (*pair, len(config.data.labels))
    if config.prepare.missing_channel == "mask":
        shapes["present_BMC"] = (*pair, channels)
    return {name: ArraySpec(shape, DTYPES[name]) for name, shape in shapes.items()}


def arrays_by_row(store: Store | Stores, config: ConfigDict, labels: Sequence[Label]) -> dict[str, np.ndarray]:
    """Return what a batch of `config` holds beside segments and rows, for every row of `store`: (R, ...), by name.

    `labels` are those that `data.labels` names, opened. A loader takes a step's rows from these arrays; they stay in
    memory, a few bytes a segment.
    """
    by_row = {"scale_BMC2": store.scale_NC2}
    if labels:
        by_row["label_BMK"] = np.stack([label.value_R for label in labels], axis=-1)
    if config.prepare.missing_channel == "mask":
        by_row["present_BMC"] = store.present_NC
    return by_row


def random_batch(config: ConfigDict, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a batch of noise over the whole range of int16, scaled to [-1, 1], for benches and tests.

    Labels are 0 or 1, and every channel is present; of neighbourhoods every place is filled and all pairs count alike.
    """
    spec = batch_spec(config)
    batch = {name: np.zeros(array.shape, array.dtype) for name, array in spec.items()}
    batch["segment_BMCT"] = rng.integers(-32767, 32768, spec["segment_BMCT"].shape, np.int16)
    batch["scale_BMC2"][...] = (0.0, 1 / 32767)
    batch["row_BM"] = rng.integers(0, 2**31, spec["row_BM"].shape, np.uint32)
    if "label_BMK" in batch:
        batch["label_BMK"] = rng.integers(0, 2, spec["label_BMK"].shape).astype(np.float32)
    for name in ("present_BMC", "better_UG", "worse_UH"):
        if name in batch:
            batch[name][...] = True
    if "pair_UP2" in batch:
        rooms = config.data.neighbourhood
        batch["pair_UP2"] = rng.integers(0, rooms, spec["pair_UP2"].shape).astype(np.int32)
        batch["weight_UP"][...] = 1 / batch["weight_UP"].size
    return batch
