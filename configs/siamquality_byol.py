"""BYOL on SiamQuality's pairs, a baseline: ResNet-50, 40 Hz PPG.

python launch/run.py --config configs/siamquality_byol.py --config.data.store=STORE
python launch/run.py --config configs/siamquality_byol.py:smoke     # two steps on a laptop, synthetic recordings
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import siamquality

CHANGES = {**siamquality.PAIRS, "model.depth": 50}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("resnet1d", "byol"), CHANGES)
    return presets.apply(config, argument, {"smoke": presets.SMOKE})
