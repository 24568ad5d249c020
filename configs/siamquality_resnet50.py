"""SiamQuality with ResNet-50: 14.4 M parameters with projector and predictor; 40 Hz PPG.

python tools/prepare_store.py --config configs/siamquality_resnet50.py --source wfdb:RECORDS --out STORE
python launch/run.py --config configs/siamquality_resnet50.py --config.data.store=STORE
python launch/run.py --config configs/siamquality_resnet50.py:smoke     # two steps on a laptop, synthetic recordings
python launch/run.py --config configs/siamquality_resnet50.py:author    # the published recipe
"""

from ml_collections import ConfigDict

from jaxbio.config import presets


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    return presets.siamquality("quality_siamese", 50, argument, author=presets.SIAMQUALITY_AUTHOR)
