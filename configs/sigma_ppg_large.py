"""SIGMA-PPG large, second stage: an encoder of hidden patches of PPG, four minutes at 50 Hz; 75.9 M parameters.

Width, depth and heads are our choice for the paper's 80 M. It needs a tokenizer, as configs/sigma_ppg_pro.py does.

python launch/run.py --config configs/sigma_ppg_large.py:gpu --config.data.store=STORE \\
    --config.objective.tokenizer=runs/tokenizer/export --workdir runs/large
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import sigma_ppg

CHANGES = {**sigma_ppg.STUDENT, **sigma_ppg.SIZES["large"]}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("sigma_ppg", "adversarial_masking"), CHANGES)
    return presets.apply(config, argument, {"smoke": {**presets.SMOKE, **sigma_ppg.SMOKE}, **sigma_ppg.STUDENT_PRESETS})
