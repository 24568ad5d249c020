"""SIGMA-PPG pro, second stage: an encoder of hidden patches of PPG, four minutes at 50 Hz; 28.2 M parameters.

The published default size. It needs a tokenizer, the export of a run of configs/sigma_ppg_tokenizer.py:

python launch/run.py --config configs/sigma_ppg_pro.py --config.data.store=STORE \\
    --config.objective.tokenizer=runs/tokenizer/export --workdir runs/pro
python launch/run.py --config configs/sigma_ppg_pro.py:patch50 ...    # patches of 1 s; the tokenizer's must be, too
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import sigma_ppg

CHANGES = {**sigma_ppg.STUDENT, **sigma_ppg.SIZES["pro"]}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("sigma_ppg", "adversarial_masking"), CHANGES)
    return presets.apply(config, argument, {"smoke": {**presets.SMOKE, **sigma_ppg.SMOKE}, **sigma_ppg.STUDENT_PRESETS})
