"""The command line: one grammar, and every fault of it together."""

import argparse

import pytest

from jaxbio.config import families, fields
from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import UserError
from jaxbio.config.field import MACHINE, SCIENCE

RECIPE = "configs/qualityfm_base.py"


@pytest.fixture(autouse=True)
def _at_root(monkeypatch, repository):
    monkeypatch.chdir(repository)


def parse(*arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir")
    return parse_command(arguments, parser)


def faults_of(*arguments) -> dict[str, str]:
    with pytest.raises(UserError) as caught:
        parse(*arguments)
    return {fault.field: fault.remedy for fault in caught.value.faults}


def test_changed_fields_take_the_kind_of_their_field():
    flags, config = parse(
        f"--config={RECIPE}",
        "--workdir=w",
        "--config.train.batch=64",
        "--config.optimizer.clip_norm=None",
        "--config.optimizer.learning_rate=1",
        "--config.data.store",
        "here",
        "--config.data.channels=('ecg','abp')",
        "--config.precision.deterministic=false",
    )
    assert flags.workdir == "w"
    assert (config.train.batch, config.optimizer.clip_norm, config.data.store) == (64, None, "here")
    assert config.data.channels == ("ecg", "abp")
    assert config.precision.deterministic is False
    assert isinstance(config.optimizer.learning_rate, float)


def test_a_store_is_a_folder_or_several_with_weights():
    def store(text):
        return parse(f"--config={RECIPE}", f"--config.data.store={text}")[1].data.store

    assert store("(('A',0.7),('B',0.3))") == store('[["A", 0.7], ["B", 0.3]]') == (("A", 0.7), ("B", 0.3))
    assert store("A") == "A"
    assert store("None") is None
    assert store("synthetic:400") == "synthetic:400"


@pytest.mark.parametrize(
    ("text", "remedies"),
    [
        ("(('A',0.7),('B',0.2))", ["sum to 0.9, not 1: in the same proportion 0.7778, 0.2222"]),
        ("(('A',0.7),('B',0.7))", ["sum to 1.4"]),
        ("(('A',1.2),('B',-0.2))", ["above 0", "above 0"]),
        ("(('A',True),('B','0.3'))", ["above 0", "above 0"]),
        ("(('A',0.5),('A',0.5))", ["each store once"]),
        ("(('synthetic:400',0.5),('A',0.4))", ["stands alone", "sum to 0.9"]),
        ("(('A',),)", ["pairs (folder, weight)"]),
        ("()", ["pairs (folder, weight)"]),
        ("(('A',0.7),", ["expected str or tuple"]),
        ("synthetic:many", ["number of segments"]),
    ],
)
def test_weights_and_names_of_stores_that_cannot_be_are_refused_together(text, remedies):
    with pytest.raises(UserError) as caught:
        parse(f"--config={RECIPE}", f"--config.data.store={text}")
    assert {fault.field for fault in caught.value.faults} == {"data.store"}
    assert len(caught.value.faults) == len(remedies)
    for fault, remedy in zip(caught.value.faults, remedies):
        assert remedy in fault.remedy


def test_presets_apply_in_order():
    _, config = parse(f"--config={RECIPE}:author,smoke")
    assert config.optimizer.name == "adam_l2"
    assert config.train.steps == 2


def test_unknown_field_is_refused_with_the_nearest_name():
    faults = faults_of(f"--config={RECIPE}", "--config.train.bach=64")
    assert "train.batch" in faults["train.bach"]


def test_faults_of_every_kind_come_out_together():
    faults = faults_of(
        f"--config={RECIPE}",
        "--config.train.bach=64",
        "--config.train.steps=many",
        "--config.data.scaling=per_chanel",
        "--config.model.dropout=2",
        "--nonsense=1",
    )
    assert set(faults) == {"train.bach", "train.steps", "data.scaling", "model.dropout", "command line"}
    assert "per_channel?" in faults["data.scaling"]


def test_odd_window_is_refused_with_its_even_neighbours():
    assert "6 or 8" in faults_of(f"--config={RECIPE}", "--config.model.window=7")["model.window"]


def test_a_window_longer_than_the_input_is_refused_with_the_tokens_there_are():
    ten_seconds = (f"--config={RECIPE}", "--config.data.segment_s=10")  # 3,000 samples, 500 a token
    assert "6 tokens: at most 10, or None" in faults_of(*ten_seconds, "--config.model.window=12")["model.window"]
    for window in (8, 10, None):
        assert parse(*ten_seconds, f"--config.model.window={window}")[1].model.window == window


def test_width_that_decodes_to_other_signals_than_the_channels_is_refused():
    assert "502 to 1000" in faults_of(f"--config={RECIPE}", "--config.model.width=400")["model.width"]


def test_batch_that_does_not_divide_over_the_mesh_is_refused():
    faults = faults_of(f"--config={RECIPE}", "--config.train.batch=100", "--config.mesh.data=8")
    assert "train.batch" in faults


def test_steps_per_dispatch_must_divide_every_period():
    faults = faults_of(f"--config={RECIPE}", "--config.train.steps_per_dispatch=7")
    assert {"checkpoint.every_steps", "eval.every_steps", "log.every_steps"} <= set(faults)


def test_missing_and_foreign_fields_of_a_recipe_are_refused(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from jaxbio.config import fields\n"
        "def get_config(argument=''):\n"
        "    config = fields.defaults().unlock()\n"
        "    del config.train['seed']\n"
        "    config.train.sede = 1\n"
        "    return config\n"
    )
    faults = faults_of(f"--config={recipe}")
    assert "fields.defaults()" in faults["train.seed"]
    assert "train.seed" in faults["train.sede"]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((), "--config"),
        (("--config=configs/nowhere.py",), "--config"),
        ((f"--config={RECIPE}:nonsense",), "--config"),
        (("--config=README.md",), "--config"),
        ((f"--config={RECIPE}", "--config.model.name=other"), "model.name"),
    ],
)
def test_recipe_that_cannot_be_had_is_named(arguments, field):
    assert field in faults_of(*arguments)


def test_every_field_states_a_reason_and_a_default_within_its_bounds():
    for model in families.MODELS:
        for objective in families.OBJECTIVES:
            for name, field in fields.table(model, objective).items():
                assert field.reason, name
                assert field.tag in (SCIENCE, MACHINE), name
                assert field.optional or field.default is not None, name


@pytest.mark.parametrize("field", ["augment.scale_range", "objective.breathing_hz", "prepare.split"])
@pytest.mark.parametrize("value", ["('a','b')", "(0.1,None)", "(0.1,1e999)", "(0.1,True)"])
def test_what_is_no_number_among_numbers_is_refused_before_it_is_compared(field, value):
    assert "expected numbers" in faults_of(f"--config={RECIPE}", f"--config.{field}={value}")[field]
