"""What `optimizer.groups` may say: whole sections, checked as the section itself is, all faults together."""

import json

import pytest

from jaxbio.config import changes, fields
from jaxbio.config.faults import UserError
from jaxbio.config.resolve import resolve

GROUPS = (("^encoder/", {"name": "sgd", "learning_rate": 1e-5, "clip_norm": None}), ("bias$", {"frozen": True}))


def grouped(*groups, **more):
    return fields.change(fields.defaults(), {"optimizer.groups": groups, **more})


def faults_of(config):
    with pytest.raises(UserError) as caught:
        resolve(config)
    return {fault.field: fault.remedy for fault in caught.value.faults}


def test_a_group_may_change_any_field_of_the_section_and_survives_json():
    whole = {name: value for name, value in fields.defaults().optimizer.items() if name != "groups"}
    config = resolve(grouped(*GROUPS, ("kernel", whole)))
    saved = json.loads(json.dumps(changes.to_plain(config)))
    assert changes.check_resume(saved, changes.from_plain(saved)) == []
    assert changes.from_plain(saved).optimizer.groups == config.optimizer.groups


def test_faults_of_settings_are_those_of_the_section_and_come_with_all_others():
    config = grouped(
        ("a", {"learning_rte": 1.0, "warmup_frac": 2.0, "groups": ()}),
        ("b", {"name": "adamm", "b1": "0.9", "weight_decay": None}),
        ("c", {"frozen": False}),
        ("d", {"frozen": True, "learning_rate": 1.0}),
        ("e", 0.5),
        **{"train.batch": 0},
    )
    faults = faults_of(config)
    of_settings = {"[0].learning_rte", "[0].warmup_frac", "[0].groups", "[1].name", "[1].b1", "[1].weight_decay"}
    of_groups = {"[2]", "[3]", "[4]"}
    assert set(faults) == {"train.batch", *(f"optimizer.groups{name}" for name in of_settings | of_groups)}
    assert "optimizer.learning_rate" in faults["optimizer.groups[0].learning_rte"]
    assert "adamw?" in faults["optimizer.groups[1].name"]


@pytest.mark.parametrize("group", ["encoder", ("encoder",), ("(", {}), (3, {})])
def test_what_is_no_pair_or_no_regular_expression_is_refused(group):
    assert "optimizer.groups" in faults_of(grouped(group))


def test_what_a_group_leaves_as_it_is_must_go_with_what_it_changes():
    faults = faults_of(grouped(("encoder", {"learning_rate": 1e-7})))
    assert faults == {"optimizer.groups[0].learning_rate_end": "at most optimizer.groups[0].learning_rate = 1e-07"}
