"""Resuming with a changed configuration: machine fields may change, science fields only by name."""

import json

import pytest

from jaxbio.config import changes, fields
from jaxbio.config.faults import UserError


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
