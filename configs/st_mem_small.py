"""ST-MEM small: 24.6 M parameters in pretraining, 21.3 M in the encoder; twelve-lead ECG, 10 s at 250 Hz.

python tools/prepare_store.py --config configs/st_mem_small.py --source wfdb:RECORDS --out STORE
python launch/run.py --config configs/st_mem_small.py --config.data.store=STORE
python launch/run.py --config configs/st_mem_small.py:smoke     # two steps on a laptop, synthetic recordings
python launch/run.py --config configs/st_mem_small.py:author    # clips nothing and decays every parameter, as published
python launch/run.py --config configs/st_mem_small.py:hybrid    # hand-made features as further channels
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import st_mem

CHANGES = {**st_mem.RECIPE, "model.width": 384, "model.heads": 6, "model.feedforward": 1536}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("st_mem", "patch_reconstruction"), CHANGES)
    return presets.apply(config, argument, {"smoke": presets.SMOKE, "author": st_mem.AUTHOR, "hybrid": st_mem.HYBRID})
