"""Faults of configurations with a curriculum or batch statistics, named before a device is touched."""

import argparse
import subprocess
import sys

import pytest

from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import EXIT_USER_FAULT, UserError

RECIPE = "configs/siamquality_resnet50.py"


def faults_of(*arguments) -> dict[str, str]:
    with pytest.raises(UserError) as caught:
        parse_command([f"--config={RECIPE}", *arguments], argparse.ArgumentParser())
    return {fault.field: fault.remedy for fault in caught.value.faults}


@pytest.fixture(autouse=True)
def _at_root(monkeypatch, repository):
    monkeypatch.chdir(repository)


@pytest.mark.parametrize(
    ("stages", "remedy"),
    [
        ("((0.5,0.25),(0.25,0.5),(1.0,1.0))", "the last is 1"),
        ("((0.5,0.25),(0.5,0.5),(1.0,1.0))", "the stages' ends rise"),
        ("((0.25,0.25),(0.9,1.0))", "the last is 1"),
        ("((0.5,0.5),(1.5,1.0))", "the last is 1"),
        ("((0.0,0.25),(1.0,1.0))", "the stages' ends rise"),
        ("((0.5,0.75),(1.0,0.5))", "difficulties rise"),
        ("(0.5,1.0)", "each stage is a pair"),
    ],
)
def test_stages_that_fall_or_do_not_end_at_one_are_refused(stages, remedy):
    assert remedy in faults_of(f"--config.data.curriculum={stages}")["data.curriculum"]


def test_a_batch_of_one_is_refused_under_batch_statistics(repository):
    assert "batch statistics" in faults_of("--config.train.batch=1")["train.batch"]
    line = [sys.executable, "launch/run.py", "--config", f"{RECIPE}:smoke", "--config.train.batch=1"]
    process = subprocess.run(line, capture_output=True, text=True, cwd=repository)
    assert process.returncode == EXIT_USER_FAULT
    assert process.stderr.startswith("error: train.batch")


def test_a_depth_that_there_is_not_and_a_segment_shorter_than_the_stem_are_refused():
    assert "50" in faults_of("--config.model.depth=51")["model.depth"]
    assert "80" in faults_of("--config.data.rate_hz=10", "--config.data.segment_s=5")["data.segment_s"]
