"""A run that trains somebody else's encoder: its family, its fields and its input, from an export's card or a recipe.

What the configuration says of all else stays. The card is read here as the plain text that it is, before JAX is there;
whether the export is whole, and its weights are the card's, is found when they are read.

    config = from_export(config, "runs/base/export")
    config = from_recipe(config, load_recipe("configs/qualityfm_base.py"))
"""

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxbio.config import families, fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.config.local_paths import check_local

FIELD = "train.init_from"
_INPUT = ("rate_hz", "channels", "scaling", "crop_s", "crops", "band_hz", "band_order", "band_design", "standardise")
_MOST_BYTES = 2**20
_REMEDY = "name an export folder; make one with tools/export_params.py"


def from_export(config: ConfigDict, named: Any) -> ConfigDict:
    """Return `config` with the encoder and the input of the export that `named`, a value of train.init_from, names.

    Raises UserError for a folder without a card, and for an export of no encoder that a recipe may name.
    """
    folder = named if isinstance(named, str) else next((folder for name, folder in named if name == "encoder"), None)
    if folder is None:
        return config
    card = _read_card(folder)
    try:
        name, own = card["encoder"], card["encoder_fields"]
        values = {f"data.{field}": card[field] for field in _INPUT if field in card}
        if config.data.target is not None:
            values["data.channels"] = [*values["data.channels"], config.data.target]
        if config.objective.window_s is None:  # else segments are longer than what the encoder was pretrained on
            values["data.segment_s"] = card["length"] / card["rate_hz"]
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise UserError(Fault(FIELD, str(folder), f"its card lacks {error}; export again")) from None
    if name not in families.MODELS or not isinstance(own, Mapping):
        remedy = f"an export of {name!r}, an encoder with something around it: export what is inside, --which encoder"
        raise UserError(Fault(FIELD, str(folder), remedy))
    values |= {
        f"model.{field}": value for field, value in own.items() if f"model.{field}" in families.MODELS[name].fields
    }
    return _rebase(config, name, {field: _as_tuple(value) for field, value in values.items()})


def from_recipe(config: ConfigDict, recipe: ConfigDict) -> ConfigDict:
    """Return `config` with the encoder and the input of another recipe's configuration."""
    values = {f"data.{field}": recipe.data[field] for field in (*_INPUT, "segment_s")}
    name = recipe.model.name
    values |= {field: value for field, value in fields.flatten(recipe).items() if field in families.MODELS[name].fields}
    return _rebase(config, name, values)


def _rebase(config: ConfigDict, model: str, values: Mapping[str, Any]) -> ConfigDict:
    """Return `config` for another model, with these values."""
    rebased = fields.defaults(model, config.objective.name)
    theirs = {"model.name", "objective.name", *families.MODELS[config.model.name].fields}
    kept = {field: value for field, value in fields.flatten(config).items() if field not in theirs}
    return fields.change(fields.change(rebased, kept), values)


def _read_card(folder: str) -> Mapping[str, Any]:
    check_local(FIELD, folder)
    path = Path(folder) / "card.json"
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > _MOST_BYTES:
            raise ValueError("no card of an export")
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(Fault(FIELD, str(folder), f"{error}: {_REMEDY}")) from None
    if not isinstance(card, Mapping):
        raise UserError(Fault(FIELD, str(folder), f"its card is none: {_REMEDY}"))
    return card


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
