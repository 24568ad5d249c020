"""Export folders from, and back to, the layout of a reference implementation.

card = import_reference("qualityfm", config, "weights.npz", "out", prefix="student/")
written = write_reference("back", module, variables, inputs)   # back/reference.safetensors
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
from etils import epath
from ml_collections import ConfigDict
from safetensors import numpy as safetensors_numpy

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.whole_files import whole_file
from jaxbio.export import folder as folders
from jaxbio.export import torch_import
from jaxbio.export.card import Card
from jaxbio.objectives import make_encoder
from jaxbio.transforms.prepare_input import Input

REFERENCE = "reference.safetensors"


def import_reference(
    family: str,
    config: ConfigDict,
    path: epath.PathLike,
    out: epath.PathLike,
    *,
    prefix: str = "",
    licence: str = "not stated",
) -> Card:
    """Write the encoder among a reference's weights into the export folder `out`; return its card.

    `config` is the recipe whose encoder the weights are of; `prefix` begins the names to take. Raises UserError for a
    recipe of another family, an unreadable file, and names or shapes that are not the encoder's.
    """
    if torch_import.family_of(config.model.name) != family:
        raise UserError(Fault("--family", family, f"the recipe's encoder is {config.model.name}"))
    module = make_encoder(config)
    encoder, fields = folders.describe_encoder(module)
    variables = torch_import.from_reference(family, torch_import.read_reference(path, prefix), fields, encoder)
    origin = folders.Origin(source=f"reference weights {epath.Path(path).name}", which="imported", licence=licence)
    return folders.write_export(out, module, variables, inputs=Input.of(config), origin=origin)


def write_reference(
    out: epath.PathLike, module: nn.Module, variables: Mapping[str, Any], inputs: Input
) -> dict[str, Any]:
    """Write the encoder's weights under the reference's names into `out`/reference.safetensors; return what was done.

    Raises UserError for a family without a table of names.
    """
    encoder, _ = folders.describe_encoder(module)
    trees = {kind: {"encoder": tree} for kind, tree in variables.items()}
    arrays = torch_import.to_reference(torch_import.family_of(encoder), trees, encoder, inputs.shape)
    path = Path(out) / REFERENCE
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        unfinished.write_bytes(safetensors_numpy.save(arrays))
    return {"reference": str(path), "encoder": encoder, "arrays": len(arrays)}
