"""QualityFM medium: 70.6 M parameters, 21 layers ("pwsa_large" in the reference code).

python launch/run.py --config configs/qualityfm_medium.py --config.data.store=STORE
python launch/run.py --config configs/qualityfm_medium.py:smoke     # two steps on a laptop
python launch/run.py --config configs/qualityfm_medium.py:author    # the published recipe to the letter
python launch/run.py --config configs/qualityfm_medium.py:short     # for a hundred or two steps
python launch/run.py --config configs/qualityfm_medium.py:long      # for many thousands
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import qualityfm

CHANGES = {
    **qualityfm.LEARNS,
    "model.layers": 21,
    "model.heads": 4,
    "model.feedforward": 512,
}
PRESETS = {"smoke": presets.SMOKE, **qualityfm.PRESETS}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("qualityfm", "quality_distillation"), CHANGES)
    return presets.apply(config, argument, PRESETS)
