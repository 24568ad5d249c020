"""SIGMA-PPG base, second stage: an encoder of hidden patches of PPG, four minutes at 50 Hz; 5.9 M parameters.

It needs a tokenizer, the export of a run of configs/sigma_ppg_tokenizer.py:

python launch/run.py --config configs/sigma_ppg_base.py --config.data.store=STORE \\
    --config.objective.tokenizer=runs/tokenizer/export --workdir runs/base
python launch/run.py --config configs/sigma_ppg_base.py:smoke --config.objective.tokenizer=EXPORT    # on a laptop
python launch/run.py --config configs/sigma_ppg_base.py:random ...    # random masks; :prior by the prior alone

The width is our choice, that of the tokenizer's encoder; the paper says 5.8 M.
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import sigma_ppg

CHANGES = {**sigma_ppg.STUDENT, **sigma_ppg.SIZES["base"]}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("sigma_ppg", "adversarial_masking"), CHANGES)
    return presets.apply(config, argument, {"smoke": {**presets.SMOKE, **sigma_ppg.SMOKE}, **sigma_ppg.STUDENT_PRESETS})
