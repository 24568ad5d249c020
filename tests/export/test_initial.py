import hashlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.config.resolve import resolve
from jaxbio.data.seen import SEEN, Seen
from jaxbio.export import folder, initial, weights
from jaxbio.export.card import WEIGHTS
from jaxbio.objectives import make_objective


def leaves(tree):
    return weights.flatten_tree(jax.tree.map(np.asarray, tree))


def test_every_encoder_starts_from_the_export_and_the_rest_stays(export_folder, small_objective):
    objective, params, state = small_objective
    params = jax.tree.map(lambda leaf: leaf + 1, params)
    new_params, new_state = initial.start_from(str(export_folder), objective, params, state)
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


def test_a_named_encoder_alone_starts_from_its_export(export_folder, small_objective):
    objective, params, state = small_objective
    params = jax.tree.map(lambda leaf: leaf + 1, params)
    new_params, new_state = initial.start_from((("teacher", str(export_folder)),), objective, params, state)
    _, _, variables = folder.read_export(export_folder)
    taught = leaves(objective.encoders["teacher"][1](new_params, new_state)["params"])
    for path, array in leaves(variables["params"]).items():
        np.testing.assert_array_equal(taught[path], array)
    for path, array in leaves(new_params).items():
        np.testing.assert_array_equal(array, leaves(params)[path])
    with pytest.raises(UserError, match="the objective's encoders are teacher, student"):
        initial.start_from((("pupil", str(export_folder)),), objective, params, state)


def test_a_start_that_does_not_fit_is_found_from_shapes(export_folder, small_objective, small_config):
    objective, *_ = small_objective
    config = fields.change(small_config.copy_and_resolve_references(), {"train.init_from": str(export_folder)})
    initial.check_start(config, objective)
    fields.change(config, {"model.feedforward": 32})
    with pytest.raises(weights.WeightsMismatch):
        initial.check_start(config, make_objective(config))


@pytest.mark.parametrize(
    "named", [(), ("student", "A"), (("student", "A", "B"),), (("student", "A"), ("student", "B"))]
)
def test_parts_that_are_no_pairs_are_refused(small_config, named):
    config = fields.change(small_config.copy_and_resolve_references(), {"train.init_from": named})
    with pytest.raises(UserError, match=r"train\.init_from"):
        resolve(config)


def test_what_the_exports_of_a_run_have_seen_is_united(small_config, tmp_path, monkeypatch):
    """Of the weights it starts from and of the frozen networks it learns from."""
    parts = {"start": Seen(np.uint64([1]), np.uint64([1, 7])), "tokenizer": Seen(np.uint64([2]), np.uint64([7, 9]))}
    for name, seen in parts.items():
        (tmp_path / name).mkdir()
        seen.write(tmp_path / name / SEEN)
    config = small_config.copy_and_resolve_references()
    assert initial.seen_before(config).complete
    assert initial.seen_before(config).segment_N.size == 0
    fields.change(config, {"train.init_from": str(tmp_path / "start")})
    assert initial.seen_before(config).segment_N.tolist() == [1, 7]
    config.objective.unlock().tokenizer = str(tmp_path / "tokenizer")
    asking = {config.objective.name: SimpleNamespace(frozen=("tokenizer",))}
    monkeypatch.setattr(initial.families, "OBJECTIVES", asking)
    assert initial.seen_before(config).segment_N.tolist() == [1, 7, 9]
    assert initial.seen_before(config).subject_S.tolist() == [1, 2]
    (tmp_path / "tokenizer" / SEEN).unlink()
    assert not initial.seen_before(config).complete


def test_the_weights_of_a_start_are_known_by_their_hashes(export_folder, small_config):
    sha256 = hashlib.sha256((export_folder / WEIGHTS).read_bytes()).hexdigest()
    for named, parts in ((str(export_folder), 1), ((("teacher", str(export_folder)),) * 2, 2), (None, 0)):
        config = fields.change(small_config.copy_and_resolve_references(), {"train.init_from": named})
        assert initial.weights_before(config) == [sha256] * parts


def test_an_export_of_other_shapes_is_refused(export_folder, small_objective, small_config):
    wider = resolve(fields.change(small_config.copy_and_resolve_references(), {"model.feedforward": 32}))
    objective = make_objective(wider)
    _, params, state = small_objective
    grown = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf], axis=-1), params)
    with pytest.raises(weights.WeightsMismatch, match="expected"):
        initial.start_from(str(export_folder), objective, grown, state)
