"""SiamQuality with ResNet-50: 14.4 M parameters with projector and predictor; 40 Hz PPG.

python tools/prepare_store.py --config configs/siamquality_resnet50.py --source wfdb:RECORDS --out STORE
python launch/run.py --config configs/siamquality_resnet50.py --config.data.store=STORE
python launch/run.py --config configs/siamquality_resnet50.py:smoke     # two steps on a laptop, synthetic recordings
python launch/run.py --config configs/siamquality_resnet50.py:author    # the published recipe
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import siamquality

CHANGES = {**siamquality.PAIRS, "model.depth": 50}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("resnet1d", "quality_siamese"), CHANGES)
    return presets.apply(config, argument, {"smoke": presets.SMOKE, "author": siamquality.AUTHOR})
