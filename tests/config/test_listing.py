"""The list of fields: what is in it, which of them a pattern picks, and with which values."""

import argparse
import subprocess
import sys

import pytest

from jaxbio.config import families, fields
from jaxbio.config.command_line import load_recipe, parse_command
from jaxbio.config.faults import UserError
from jaxbio.config.listing import every_table, list_fields


def names_in(text: str) -> list[str]:
    return [line.partition(" = ")[0] for line in text.splitlines() if not line.startswith(" ")]


def test_every_field_of_every_family_is_listed_with_default_and_reason():
    table = every_table()
    text = list_fields(table, {})
    assert names_in(text) == list(table)
    for model in families.MODELS:
        for objective in families.OBJECTIVES:
            assert fields.table(model, objective).keys() <= table.keys()
    words = " ".join(text.split())
    for name, field in table.items():
        assert f"{name} = {field.default!r}" in text
        assert " ".join(field.reason.split()) in words


def test_values_are_those_of_the_recipe_beside_the_default(repository):
    config = load_recipe(str(repository / "configs/quickstart.py"))
    table = fields.table(config.model.name, config.objective.name)
    text = list_fields(table, fields.flatten(config), "train")
    assert "train.batch = 32   default 512\n    pairs a step over all devices" in text
    assert "train.seed = 0\n" in text
    assert "[science; int; at least 1]" in text


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("keep_every", ["checkpoint.keep_every_steps"]),
        ("CLIP_", ["optimizer.clip_norm", "optimizer.clip_value"]),
        (r"^log\.t", ["log.trackers"]),
        ("*.clip_v*", ["optimizer.clip_value"]),  # a shell's pattern is no regular expression
        ("gradient norm", ["optimizer.clip_norm"]),  # of a reason
    ],
)
def test_pattern_picks_by_name_and_else_by_reason(pattern, found):
    assert names_in(list_fields(fields.COMMON, {}, pattern)) == found


def test_pattern_that_fits_no_field_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"optimizer\.learning_rate"):
        list_fields(fields.COMMON, {}, "optimizer.learning_rat3")


def test_the_command_prints_them_without_training_and_help_leads_to_it(repository, tmp_path):
    def call(*words):
        line = [sys.executable, repository / "launch/run.py", *words]
        return subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=True)

    recipe = f"--config={repository / 'configs/quickstart.py'}"
    said = call(recipe, "--config.log.every_steps=7", "--list_fields", "log.every")
    assert "log.every_steps = 7   default 10" in said.stdout
    assert names_in(call("--list_fields").stdout) == list(every_table())
    assert list(tmp_path.iterdir()) == []
    parser = argparse.ArgumentParser()
    parse_command([recipe], parser)
    assert "launch/run.py --list_fields [PATTERN]" in " ".join(parser.format_help().split())  # of every command
