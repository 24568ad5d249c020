import jax
import numpy as np
import pytest

from jaxbio.config import fields
from jaxbio.config.resolve import resolve
from jaxbio.export import folder, initial, weights
from jaxbio.objectives import make_objective


def leaves(tree):
    return weights.flatten_tree(jax.tree.map(np.asarray, tree))


def test_every_encoder_starts_from_the_export_and_the_rest_stays(export_folder, small_objective):
    objective, params, state = small_objective
    params = jax.tree.map(lambda leaf: leaf + 1, params)
    new_params, new_state = initial.start_from(export_folder, objective, params, state)
    _, _, variables = folder.read_export(export_folder)
    exported = leaves(variables["params"])
    for name in ("teacher", "student"):
        _, take = objective.encoders[name]
        found = leaves(take(new_params, new_state)["params"])
        assert found.keys() == exported.keys()
        for path, array in exported.items():
            np.testing.assert_array_equal(found[path], array)
    for path, array in leaves(new_params).items():
        if not path.startswith("encoder/"):
            np.testing.assert_array_equal(array, leaves(params)[path])
    np.testing.assert_array_equal(new_state["centre"], state["centre"])


def test_an_export_of_other_shapes_is_refused(export_folder, small_objective, small_config):
    wider = resolve(fields.change(small_config.copy_and_resolve_references(), {"model.feedforward": 32}))
    objective = make_objective(wider)
    _, params, state = small_objective
    grown = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf], axis=-1), params)
    with pytest.raises(weights.WeightsMismatch, match="expected"):
        initial.start_from(export_folder, objective, grown, state)
