"""SIGMA-PPG huge, second stage: an encoder of hidden patches of PPG, four minutes at 50 Hz; 353.1 M parameters.

Width, depth and heads are our choice for the paper's 350 M. It needs a tokenizer, as configs/sigma_ppg_pro.py does.

python launch/run.py --config configs/sigma_ppg_huge.py:tpu,remat --config.data.store=STORE \\
    --config.objective.tokenizer=runs/tokenizer/export --workdir runs/huge
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import sigma_ppg

CHANGES = {**sigma_ppg.STUDENT, **sigma_ppg.SIZES["huge"]}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("sigma_ppg", "adversarial_masking"), CHANGES)
    return presets.apply(config, argument, {"smoke": {**presets.SMOKE, **sigma_ppg.SMOKE}, **sigma_ppg.STUDENT_PRESETS})
