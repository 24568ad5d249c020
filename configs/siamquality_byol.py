"""BYOL on SiamQuality's pairs, a baseline: ResNet-50, 40 Hz PPG.

python launch/run.py --config configs/siamquality_byol.py --config.data.store=STORE
python launch/run.py --config configs/siamquality_byol.py:smoke     # two steps on a laptop, synthetic recordings
"""

from ml_collections import ConfigDict

from jaxbio.config import presets


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    return presets.siamquality("byol", 50, argument)
