"""ST-MEM base, the published size: 88.5 M parameters in pretraining, the encoder 85.1 M; twelve leads, 10 s at 250 Hz.

python tools/prepare_store.py --config configs/st_mem_base.py --source wfdb:RECORDS --out STORE
python launch/run.py --config configs/st_mem_base.py --config.data.store=STORE
python launch/run.py --config configs/st_mem_base.py:smoke     # two steps on a laptop, synthetic recordings
python launch/run.py --config configs/st_mem_base.py:author    # clips nothing and decays every parameter, as published
python launch/run.py --config configs/st_mem_base.py:hybrid    # hand-made features as further channels
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import st_mem

CHANGES = {**st_mem.RECIPE, "model.width": 768, "model.heads": 12, "model.feedforward": 3072}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("st_mem", "patch_reconstruction"), CHANGES)
    return presets.apply(config, argument, {"smoke": presets.SMOKE, "author": st_mem.AUTHOR, "hybrid": st_mem.HYBRID})
