"""Faults of patches, codes and masks, named before a device is touched."""

import argparse

import pytest

from jaxbio.config.command_line import load_recipe, parse_command
from jaxbio.config.faults import UserError

TOKENIZER, STUDENT = "configs/sigma_ppg_tokenizer.py", "configs/sigma_ppg_base.py"


@pytest.fixture(autouse=True)
def _at_root(monkeypatch, repository):
    monkeypatch.chdir(repository)


def faults_of(recipe, *arguments) -> dict[str, str]:
    given = [f"--config={recipe}", *(f"--config.{argument}" for argument in arguments)]
    with pytest.raises(UserError) as caught:
        parse_command(given, argparse.ArgumentParser())
    return {fault.field: fault.remedy for fault in caught.value.faults}


@pytest.mark.parametrize(
    ("recipe", "changes", "field", "remedy"),
    [
        (TOKENIZER, ["model.patch=70"], "model.patch", "a divisor of the 12000 samples"),
        (TOKENIZER, ["model.patch=50"], "model.tokens", "at least 240"),
        (TOKENIZER, ["model.channels=10"], "model.channels", "a multiple of 4: 8 or 12"),
        (TOKENIZER, ["model.heads=7"], "model.heads", "a divisor of model.width = 200"),
        (TOKENIZER, ["data.channels=('ppg','ecg')"], "data.channels", "a single signal"),
        (TOKENIZER, ["train.batch=16"], "model.codes", "train.batch >= 35"),
        (TOKENIZER, ["pairs.rule=good_bad"], "pairs.rule", "all_segments"),
        (STUDENT, ["objective.tokenizer=T", "objective.mask_ratio=0.0"], "objective.mask_ratio", "hides 0"),
        (STUDENT, ["objective.tokenizer=T", "objective.mask_ratio=1.0"], "objective.mask_ratio", "not all"),
        (STUDENT, ["objective.tokenizer=T", "objective.mask_ratio=0.005"], "objective.mask_ratio", "at least 1"),
        (STUDENT, ["objective.tokenizer=T", "objective.punch_prob=1.0"], "objective.punch_prob", "left hidden"),
        (
            STUDENT,
            ["objective.tokenizer=T", "objective.mask_ratio=0.01", "objective.punch_prob=0.5"],
            "objective.punch_prob",
            "less than one is left hidden",
        ),
        (STUDENT, ["objective.tokenizer=T", "objective.mask_width=10"], "objective.mask_width", "a multiple of"),
        (STUDENT, ["objective.tokenizer=T", "objective.masking=random"], "objective.masking", "the recipe's :random"),
        (STUDENT, [], "objective.tokenizer", "name the folder of the export"),
    ],
)
def test_what_cannot_be_is_refused(recipe, changes, field, remedy):
    assert remedy in faults_of(recipe, *changes)[field]


def test_blocks_are_computed_twice_in_both_stages_where_the_preset_says_so():
    for recipe in (TOKENIZER, "configs/sigma_ppg_huge.py"):
        assert load_recipe(f"{recipe}:tpu,remat").model.remat == "full"


def test_few_codes_may_start_from_few_patches_and_random_ones_from_none():
    for change in ("model.codes=960", "objective.kmeans_rounds=0"):
        line = [f"--config={TOKENIZER}", "--config.train.batch=8", f"--config.{change}"]
        _, config = parse_command(line, argparse.ArgumentParser())
        assert config.train.batch == 8
