"""What a recipe of supervised learning may say, and the encoder that it takes from an export or from another recipe."""

import json

import pytest

from jaxbio.config import adopt, fields
from jaxbio.config.command_line import load_recipe, parse_command
from jaxbio.config.faults import UserError
from jaxbio.config.resolve import find_faults
from launch.run import make_parser

RECIPE = "configs/finetune.py:vt_alarm"
CARD = {
    "encoder": "ecg_jepa",
    "encoder_fields": {"width": 64, "layers": 2, "heads": 2, "feedforward": 64, "dtype": "float32"},
    "rate_hz": 250.0,
    "length": 2500,
    "channels": ["i", "ii"],
    "scaling": "physical",
    "crop_s": None,
    "crops": 1,
    "band_hz": [0.5, 40.0],
    "band_order": 2,
    "band_design": "band_pass",
    "standardise": "z_score",
}


@pytest.fixture
def export(tmp_path):
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    return tmp_path


def faults_of(**changes):
    config = fields.change(load_recipe(RECIPE), {name.replace("__", "."): value for name, value in changes.items()})
    return {fault.field: fault.remedy for fault in find_faults(config)}


def test_the_recipe_alone_is_right_and_trains_from_scratch():
    assert faults_of() == {}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"data__labels": ()}, "data.labels"),
        ({"data__label_share": 0.0}, "data.label_share"),
        ({"data__label_share": 1.1}, "data.label_share"),
        ({"pairs__rule": "good_bad"}, "pairs.rule"),
        ({"objective__classes": ("true",)}, "objective.classes"),
        ({"objective__classes": ("true", "true")}, "objective.classes"),
        ({"objective__class_weights": (1.0,)}, "objective.class_weights"),
        ({"objective__class_weights": (1.0, -1.0)}, "objective.class_weights"),
        ({"objective__answer": "numbers"}, "objective.classes"),
        ({"objective__trained": "first:2", "train__init_from": "E"}, "objective.trained"),
        ({"objective__trained": "all", "model__adapters": "lora:2", "train__init_from": "E"}, "objective.trained"),
        ({"model__adapters": "lora:0", "train__init_from": "E"}, "model.adapters"),
        ({"model__adapters": "lora:8"}, "train.init_from"),
        ({"objective__trained": "head"}, "train.init_from"),
        ({"data__target": "ecg", "objective__answer": "waveforms", "objective__classes": ()}, "data.labels"),
        ({"data__target": "ppg"}, "data.target"),
        ({"objective__window_s": 31.0}, "objective.window_s"),
        ({"objective__window_s": 10.0, "data__crop_s": 20.0}, "objective.window_s"),
    ],
)
def test_what_does_not_go_together_is_named(changes, field):
    assert set(faults_of(**changes)) == {field}


def test_only_who_learns_from_labels_may_have_few_of_them():
    config = fields.change(load_recipe("configs/quickstart.py"), {"data.label_share": 0.1})
    assert [fault.field for fault in find_faults(config)] == ["data.label_share"]


def test_an_exports_card_says_family_fields_and_input_and_the_line_has_the_last_word(export):
    line = ["--config", RECIPE, f"--config.train.init_from={export}", "--config.data.standardise=none"]
    _, config = parse_command(line, make_parser())
    assert config.model.name == "ecg_jepa"
    assert (config.model.width, config.model.layers, config.model.adapters) == (64, 2, "none")
    assert (config.data.rate_hz, config.data.segment_s, config.data.channels) == (250.0, 10.0, ("i", "ii"))
    assert config.data.band_hz == (0.5, 40.0)
    assert config.data.standardise == "none"
    assert config.objective.classes == ("false", "true")
    long = ["--config", f"{RECIPE},five_minutes", line[2], "--config.objective.window_s=10"]
    _, config = parse_command(long, make_parser())
    assert (config.data.segment_s, config.objective.window_s) == (300.0, 10.0)
    named = f"(('encoder','{export}'),)"
    assert parse_command([*line[:2], f"--config.train.init_from={named}"], make_parser())[1].model.width == 64


def test_a_channel_that_is_learnt_stands_behind_those_of_the_export(export):
    line = ["--config", "configs/finetune.py:abp_waveform", f"--config.train.init_from={export}"]
    _, config = parse_command(line, make_parser())
    assert config.data.channels == ("i", "ii", "abp")
    assert find_faults(load_recipe("configs/finetune.py:abp_waveform")) == []
    pretraining = fields.change(load_recipe("configs/qualityfm_base.py"), {"data.target": "ecg"})
    assert [fault.field for fault in find_faults(pretraining)] == ["data.target"]


def test_another_recipe_among_the_presets_gives_its_network():
    config, other = load_recipe(f"{RECIPE},st_mem_small"), load_recipe("configs/st_mem_small.py")
    assert {name: config.model[name] for name in other.model} == dict(other.model)
    assert all(config.data[name] == other.data[name] for name in (*adopt._INPUT, "segment_s"))
    assert config.train.batch != other.train.batch


@pytest.mark.parametrize(
    ("card", "says"),
    [
        (None, "export_params.py"),
        ("[]", "card is none"),
        ("{", "export_params.py"),
        (json.dumps(CARD | {"encoder": "projected"}), "--which encoder"),
        (json.dumps(CARD | {"length": None}), "export again"),
        (json.dumps({name: value for name, value in CARD.items() if name != "rate_hz"}), "rate_hz"),
    ],
)
def test_what_is_no_export_of_an_encoder_is_refused(tmp_path, card, says):
    if card is not None:
        (tmp_path / "card.json").write_text(card)
    with pytest.raises(UserError, match=says):
        parse_command(["--config", RECIPE, f"--config.train.init_from={tmp_path}"], make_parser())
