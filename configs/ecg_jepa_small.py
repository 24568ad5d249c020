"""ECG-JEPA small: 23.2 M trained parameters, 21.3 M in the encoder; eight leads of an ECG, 10 s at 250 Hz.

python tools/prepare_store.py --config configs/ecg_jepa_small.py --source wfdb:RECORDS --out STORE
python launch/run.py --config configs/ecg_jepa_small.py --config.data.store=STORE
python launch/run.py --config configs/ecg_jepa_small.py:smoke     # two steps on a laptop, synthetic recordings
python launch/run.py --config configs/ecg_jepa_small.py:author    # the published code: one mask a batch, and its quirks
python launch/run.py --config configs/ecg_jepa_small.py:blocks    # masks of blocks; :twelve takes all twelve leads
python launch/run.py --config configs/ecg_jepa_small.py:hybrid    # hand-made features as further channels
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import ecg_jepa

CHANGES = ecg_jepa.RECIPE


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("ecg_jepa", "feature_prediction"), CHANGES)
    return presets.apply(config, argument, {**ecg_jepa.PRESETS, "smoke": presets.SMOKE})
