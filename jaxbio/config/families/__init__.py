"""The registry of model families: one line each, the name of a file of this folder that defines `FAMILY`.

`MODELS` and `OBJECTIVES` are what `model.name` and `objective.name` choose from; `ENCODERS` is every encoder that an
export may hold; `REFERENCES` names the tables of reference implementations' weights. No JAX is imported here.
"""

import importlib

from jaxbio.config.families.family import Family, KnownLabel, Model, Training, load

__all__ = ["ENCODERS", "MODELS", "OBJECTIVES", "REFERENCES", "Family", "KnownLabel", "Model", "Training", "load"]

_NAMES = (
    "qualityfm",
    "siamquality",
    "st_mem",
    "ecg_jepa",
    "ecg_vqvae_triplet",
    "sigma_ppg",
    "supervised",
)
_FAMILIES: dict[str, Family] = {
    name: importlib.import_module(f"jaxbio.config.families.{name}").FAMILY for name in _NAMES
}

MODELS: dict[str, Model] = {name: model for family in _FAMILIES.values() for name, model in family.models.items()}
OBJECTIVES: dict[str, Training] = {
    name: objective for family in _FAMILIES.values() for name, objective in family.objectives.items()
}
ENCODERS: dict[str, str] = {name: model.encoder for name, model in MODELS.items()} | {
    name: encoder for family in _FAMILIES.values() for name, encoder in family.encoders.items()
}
REFERENCES: dict[str, tuple[str, ...]] = {
    name: family.references for name, family in _FAMILIES.items() if family.references
}
