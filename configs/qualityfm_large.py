"""QualityFM large: 319 M parameters, 50 layers ("Huge" in the paper, "pwsa_huge" in the reference code).

python launch/run.py --config configs/qualityfm_large.py --config.data.store=STORE
python launch/run.py --config configs/qualityfm_large.py:smoke     # two steps on a laptop, 12 GiB
python launch/run.py --config configs/qualityfm_large.py:author    # the published recipe to the letter
python launch/run.py --config configs/qualityfm_large.py:short     # for a hundred or two steps
python launch/run.py --config configs/qualityfm_large.py:long      # for many thousands
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import qualityfm

CHANGES = {
    **qualityfm.LEARNS,
    "model.layers": 50,
    "model.heads": 8,
    "model.feedforward": 2048,
}
PRESETS = {"smoke": presets.SMOKE, **qualityfm.PRESETS}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("qualityfm", "quality_distillation"), CHANGES)
    return presets.apply(config, argument, PRESETS)
