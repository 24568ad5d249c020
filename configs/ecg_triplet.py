"""A head on frozen ST-MEM base that draws segments of one class together: 49,801 trained parameters.

python tools/add_labels.py --store STORE --labels superclass.csv
python launch/run.py --config configs/ecg_triplet.py --config.data.store=STORE \\
    --config.train.init_from="(('encoder','EXPORT'),)"                          # an export of st_mem_base.py
python launch/run.py --config configs/ecg_triplet.py:smoke        # two steps on a laptop; classes are rhythms
python launch/run.py --config configs/ecg_triplet.py:semi_hard    # negatives that are hard, but not too hard
python launch/run.py --config configs/ecg_triplet.py:author       # clips nothing, as published
python launch/run.py --config configs/ecg_triplet.py:hybrid       # on an export of st_mem_base.py:hybrid

The published head was fed signals without the filter that its encoder was pretrained behind. Here both have the same
input: --config.data.band_hz=None takes an export that was pretrained so.
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import ecg_vqvae_triplet as family


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("st_mem", "label_triplets"), family.TRIPLETS)
    return presets.apply(config, argument, {**family.PRESETS, "smoke": {**presets.SMOKE, **family.SMOKE}})
