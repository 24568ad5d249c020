"""Resuming with a changed configuration: machine fields may change, science fields only by name."""

import json

import pytest

from jaxbio.config import changes, fields
from jaxbio.config.command_line import load_recipe
from jaxbio.config.faults import UserError
from jaxbio.config.resolve import resolve


def saved_run() -> dict:
    return json.loads(json.dumps(changes.to_plain(fields.defaults())))


def test_unchanged_configuration_survives_json():
    assert changes.check_resume(saved_run(), fields.defaults()) == []


def test_machine_fields_may_change():
    config = fields.change(fields.defaults(), {"mesh.fsdp": 4, "data.store": "elsewhere"})
    assert changes.check_resume(saved_run(), config) == ["data.store", "mesh.fsdp"]


def test_every_changed_science_field_is_named():
    config = fields.change(fields.defaults(), {"train.batch": 64, "objective.ema_start": 0.5, "mesh.fsdp": 4})
    with pytest.raises(UserError) as caught:
        changes.check_resume(saved_run(), config)
    assert {fault.field for fault in caught.value.faults} == {"train.batch", "objective.ema_start"}
    assert "--allow_change=train.batch" in str(caught.value)


def test_science_field_may_change_when_allowed_by_name():
    config = fields.change(fields.defaults(), {"train.steps": 50_000})
    assert changes.check_resume(saved_run(), config, allowed=["train.steps"]) == ["train.steps"]


def test_field_that_a_saved_run_does_not_know_is_a_change():
    saved = saved_run()
    del saved["train.seed"]
    with pytest.raises(UserError, match=r"train\.seed"):
        changes.check_resume(saved, fields.defaults())


def faults_of(saved, config, on_the_line):
    with pytest.raises(UserError) as caught:
        changes.check_resume(saved, config, on_the_line=on_the_line)
    return [str(fault) for fault in caught.value.faults]


def plain_recipe(repository, recipe):
    return changes.to_plain(load_recipe(str(repository / "configs" / recipe)))


def test_run_of_another_kind_is_one_line_that_names_the_kinds(repository):
    config = load_recipe(str(repository / "configs/siamquality_resnet50.py"))
    for named in ((), ("train.batch", "data.segment_s")):
        (line,) = faults_of(plain_recipe(repository, "qualityfm_base.py"), config, named)
        assert "model.name was 'qualityfm', is 'resnet1d'" in line
        assert "objective.name was 'quality_distillation'" in line
        assert "more fields" in line
        assert "another --workdir" in line
        assert "\n" not in line


@pytest.mark.parametrize("recipe", ["qualityfm_large.py", "qualityfm_base.py:smoke", "qualityfm_base.py:author"])
def test_another_recipe_of_one_family_is_one_line_that_names_fields(repository, recipe):
    config = load_recipe(str(repository / "configs" / recipe))
    (line,) = faults_of(plain_recipe(repository, "qualityfm_base.py"), config, ())
    assert line.count(" was ") in (3, 4)
    assert "another --workdir" in line
    changed = fields.change(config, {"train.seed": 5})
    of_recipe, on_the_line = faults_of(plain_recipe(repository, "qualityfm_base.py"), changed, ("train.seed",))
    assert "another recipe" in of_recipe
    assert "--allow_change=train.seed" in on_the_line


def test_one_field_that_the_line_does_not_name_is_no_other_recipe():
    saved = saved_run() | {"train.steps": 300}
    (line,) = faults_of(saved, fields.defaults(), ())
    assert line.startswith("train.steps = 42000: the run was started with 300")


def test_a_run_of_an_earlier_version_goes_on_without_a_field_that_was_retired():
    saved = saved_run() | {"log.tensorboard": True}
    assert changes.check_resume(saved, fields.defaults()) == []
    assert changes.to_plain(changes.from_plain(saved)) == saved_run()


def test_a_run_of_an_earlier_version_goes_on_as_it_began_where_a_field_was_added():
    saved = saved_run()
    for name in fields.ADDED:
        del saved[name]
    assert changes.check_resume(saved, fields.defaults()) == []
    with pytest.raises(UserError, match=r"data\.label_share = 0\.1: the run was started with 1\.0"):
        changes.check_resume(saved, fields.change(fields.defaults(), {"data.label_share": 0.1}))
    assert changes.to_plain(changes.from_plain(saved)) == saved_run()


def test_a_run_that_began_before_a_rule_between_fields_is_still_read(repository):
    saved = plain_recipe(repository, "qualityfm_base.py") | {"model.window": 64}
    with pytest.raises(UserError, match=r"model\.window"):
        resolve(fields.change(fields.defaults(), saved))
    assert changes.from_plain(saved).model.window == 64


def test_a_saved_value_out_of_its_own_bounds_is_refused():
    with pytest.raises(UserError, match=r"train\.batch"):
        changes.from_plain(saved_run() | {"train.batch": -1})
