"""VQ-VAE on twelve-lead ECG: 25.0 M parameters, a code of 512 for each 0.3 s.

python tools/prepare_store.py --config configs/ecg_vqvae.py --source wfdb:RECORDS --out STORE
python launch/run.py --config configs/ecg_vqvae.py --config.data.store=STORE
python launch/run.py --config configs/ecg_vqvae.py:smoke     # two steps on a laptop, synthetic recordings
python launch/run.py --config configs/ecg_vqvae.py:author    # codes are learnt by gradient, nothing is clipped
python launch/run.py --config configs/ecg_vqvae.py:hybrid    # hand-made features as further channels
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import ecg_vqvae_triplet
from jaxbio.config.features import FEATURES

# Of the published two ways to move a codebook, the one that works alone; it decays every parameter.
AUTHOR = {"objective.codebook": "gradient", "optimizer.clip_norm": None, "optimizer.decay_mask": "all"}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("vq_vae", "code_reconstruction"), ecg_vqvae_triplet.CODES)
    hybrid = {"data.features": tuple(FEATURES)}
    return presets.apply(config, argument, {"smoke": presets.SMOKE, "author": AUTHOR, "hybrid": hybrid})
