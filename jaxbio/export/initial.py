"""Starting a run from an export: `train.init_from`.

An objective says only how to take an encoder's variables out of (params, state). The way back is found by taking out
labels instead of arrays, so no family has to write it.

    params, state = start_from(folder, objective, params, state)
    seen = data.seen().unite(seen_before(config))
"""

from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from jaxbio.config import families
from jaxbio.config.faults import Fault, UserError
from jaxbio.data.seen import Seen, unite_all
from jaxbio.export import folder as folders
from jaxbio.export import weights


def start_from(folder: epath.PathLike, objective: Any, params: Any, state: Any) -> tuple[Any, Any]:
    """Return `params` and `state` with the export's weights in every encoder of `objective`, the rest as it was.

    Raises UserError where the export is not whole, or is of another family or of other shapes than the run's.
    """
    card, _, variables = folders.read_export(folder)
    found = weights.flatten_tree(variables)
    leaves, structure = jax.tree.flatten((params, state))
    labels_params, labels_state = jax.tree.unflatten(structure, list(range(len(leaves))))
    for name, (module, take) in objective.encoders.items():
        family, _ = folders.describe_encoder(module)
        if family != card.encoder:
            raise UserError(Fault("train.init_from", card.encoder, f"the run's {name} encoder is of family {family}"))
        places: Mapping[str, int] = weights.flatten_tree(take(labels_params, labels_state))
        weights.match_weights(found, {path: leaves[place] for path, place in places.items()}, str(folder))
        for path, place in places.items():
            leaves[place] = found[path].astype(leaves[place].dtype)
    return jax.tree.unflatten(structure, leaves)


def seen_before(config: ConfigDict) -> Seen:
    """Return what the exports have seen that a fresh run starts from, or learns from as frozen networks."""
    named = [] if config.train.init_from is None else [config.train.init_from]
    named += [config.objective[name] for name in families.OBJECTIVES[config.objective.name].frozen]
    return unite_all(folders.read_seen(folder) for folder in named)
