"""SIGMA-PPG, first stage: a tokenizer of PPG patches, 7.5 M parameters and 4096 codes; four minutes at 50 Hz.

python tools/prepare_store.py --config configs/sigma_ppg_tokenizer.py --source wfdb:RECORDS --out STORE
python launch/run.py --config configs/sigma_ppg_tokenizer.py --config.data.store=STORE --workdir runs/tokenizer
python tools/export_params.py --workdir runs/tokenizer --out runs/tokenizer/export
python launch/run.py --config configs/sigma_ppg_tokenizer.py:smoke    # two steps on a laptop, synthetic recordings
python launch/run.py --config configs/sigma_ppg_tokenizer.py:author   # mean square, codes moved twice a step
python launch/run.py --config configs/sigma_ppg_tokenizer.py:phase    # decode the phase too; :patch50 patches of 1 s
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import sigma_ppg


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("sigma_tokenizer", "spectral_tokenizer"), sigma_ppg.TOKENIZER)
    return presets.apply(
        config, argument, {"smoke": {**presets.SMOKE, **sigma_ppg.TOKENIZER_SMOKE}, **sigma_ppg.TOKENIZER_PRESETS}
    )
