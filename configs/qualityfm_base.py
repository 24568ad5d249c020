"""QualityFM base: 9.6 M parameters, 2 layers.

python launch/run.py --config configs/qualityfm_base.py --config.data.store=STORE
python launch/run.py --config configs/qualityfm_base.py:smoke     # two steps on a laptop, synthetic recordings
python launch/run.py --config configs/qualityfm_base.py:author    # the published recipe to the letter
python launch/run.py --config configs/qualityfm_base.py:short     # for a hundred or two steps
python launch/run.py --config configs/qualityfm_base.py:long      # for many thousands
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import qualityfm

CHANGES = {
    **qualityfm.LEARNS,
    "optimizer.learning_rate": 1e-3,  # at batch 64; docs/recipe.md
    "model.layers": 2,
    "model.heads": 4,
    "model.feedforward": 256,
    "model.unroll": 2,  # both layers: a twelfth faster on a CPU
}
PRESETS = {"smoke": presets.SMOKE, **qualityfm.PRESETS}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("qualityfm", "quality_distillation"), CHANGES)
    return presets.apply(config, argument, PRESETS)
