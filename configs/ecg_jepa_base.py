"""ECG-JEPA base, the published size: 96.3 M trained parameters, 85.1 M in the encoder; eight leads, 10 s at 250 Hz.

python tools/prepare_store.py --config configs/ecg_jepa_base.py --source wfdb:RECORDS --out STORE
python launch/run.py --config configs/ecg_jepa_base.py --config.data.store=STORE
python launch/run.py --config configs/ecg_jepa_base.py:smoke     # two steps on a laptop, synthetic recordings
python launch/run.py --config configs/ecg_jepa_base.py:author    # the published code: one mask a batch, and its quirks
python launch/run.py --config configs/ecg_jepa_base.py:blocks    # masks of blocks; :twelve takes all twelve leads
python launch/run.py --config configs/ecg_jepa_base.py:hybrid    # hand-made features as further channels
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import ecg_jepa

CHANGES = {
    **ecg_jepa.RECIPE,
    "model.width": 768,
    "model.heads": 16,
    "model.feedforward": 3072,
    "objective.predictor_width": 384,
    "objective.predictor_layers": 6,
    "objective.predictor_heads": 12,
}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("ecg_jepa", "feature_prediction"), CHANGES)
    return presets.apply(config, argument, {**ecg_jepa.PRESETS, "smoke": presets.SMOKE})
