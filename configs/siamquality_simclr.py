"""SimCLR on SiamQuality's pairs, a baseline: ResNet-50, 40 Hz PPG.

python launch/run.py --config configs/siamquality_simclr.py --config.data.store=STORE
python launch/run.py --config configs/siamquality_simclr.py:smoke     # two steps on a laptop, synthetic recordings
python launch/run.py --config configs/siamquality_simclr.py:single    # single segments, each augmented twice
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import siamquality

CHANGES = {**siamquality.PAIRS, "model.depth": 50}

# The usual SimCLR: no pairs, each segment augmented twice.
SINGLE = {
    "pairs.rule": "all_segments",
    "data.curriculum": (),
    "augment.noise_prob": 0.5,
    "augment.noise_sigma": 0.1,
    "augment.scale_prob": 0.5,
    "augment.scale_range": (0.5, 1.5),
    "augment.offset_prob": 0.5,
    "augment.offset_max": 0.5,
    "augment.block_prob": 0.5,
}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("resnet1d", "contrastive"), CHANGES)
    return presets.apply(config, argument, {"smoke": presets.SMOKE, "single": SINGLE})
