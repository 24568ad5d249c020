"""Two stages, one command after another: a tokenizer, its export, an encoder that learns its codes; both resumed."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from simulated import xla_flags

import jaxbio
from jaxbio.report.terms import NOT_DESCRIBED, describe

SMALL = {
    "data.segment_s": 20.0,
    "data.store": "synthetic:96",
    "data.streams": 4,
    "prepare.split": (0.4, 0.4, 0.2),
    "model.width": 16,
    "model.layers": 1,
    "model.heads": 2,
    "model.channels": 4,
    "model.patch": 50,
    "model.tokens": 20,
    "train.batch": 8,
    "train.steps": 8,
    "log.every_steps": 1,
    "eval.every_steps": 4,
    "eval.batches": 1,
    "checkpoint.every_steps": 4,
}
TOKENIZER = {**SMALL, "model.codes": 32, "model.code_width": 8, "objective.decoder_layers": 1}
STUDENT = {**SMALL, "objective.mask_width": 8, "objective.mask_layers": 1}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def command(repository, tmp_path_factory):
    """A function that runs one command of the repository in a folder of its own, and that folder."""
    folder = tmp_path_factory.mktemp("stages")
    environment = os.environ | {"PYTHONPATH": str(repository), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags(1)}

    def run(tool, *arguments, code=0):
        line = [sys.executable, str(repository / tool), *map(str, arguments)]
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stderr[-4000:]
        return done

    return run, folder, repository / "configs"


def changed(settings):
    return [f"--config.{name}={value}" for name, value in settings.items()]


def losses(workdir):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [record["train/loss"] for record in records if "train/loss" in record]


@pytest.fixture(scope="module")
def tokenizer(command):
    run, _, configs = command
    line = ["--config", configs / "sigma_ppg_tokenizer.py", *changed(TOKENIZER)]
    run("launch/run.py", *line, "--workdir", "tokenizer")
    run("tools/export_params.py", "--workdir", "tokenizer", "--out", "export")
    run("tools/export_params.py", "--workdir", "tokenizer", "--step", 4, "--out", "earlier")
    return line


@pytest.fixture(scope="module")
def student(command, tokenizer):
    run, _, configs = command
    line = ["--config", configs / "sigma_ppg_base.py", *changed(STUDENT)]
    run("launch/run.py", *line, "--config.objective.tokenizer=export", "--workdir", "student")
    return line


def resume(command, name, *line):
    run, folder, _ = command
    shutil.copytree(folder / name, folder / f"{name}_again")
    run("launch/run.py", *line, "--workdir", f"{name}_again", "--from_step", 4)
    found, before = losses(folder / f"{name}_again"), losses(folder / name)
    assert len(before) == 8
    assert found == before


def test_the_first_stage_resumes_bit_for_bit(command, tokenizer):
    resume(command, "tokenizer", *tokenizer)


def test_the_second_stage_resumes_bit_for_bit_without_the_tokenizers_export(command, student):
    _, folder, _ = command
    (folder / "export").rename(folder / "away")
    try:
        resume(command, "student", *student, "--config.objective.tokenizer=export")
    finally:
        (folder / "away").rename(folder / "export")


def test_what_one_wants_to_see_is_logged_and_drawn(command, student):
    _, folder, _ = command
    keys = {}
    for name in ("tokenizer", "student"):
        records = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        keys[name] = {key for record in records for key in record}
    codes = {"eval/unused_codes", "eval/code_perplexity", "eval/identical_codes", "train/identical_codes"}
    assert codes <= keys["tokenizer"]
    masks = {"advantage_spread", "reward", "prior_overlap", "accuracy_peak", "accuracy_flat", "learning_rate_group_0"}
    assert {f"train/{name}" for name in masks} <= keys["student"]
    for name, objective in (("tokenizer", "spectral_tokenizer"), ("student", "adversarial_masking")):
        assert {key for key in keys[name] - {"step"} if describe(key, objective) == NOT_DESCRIBED} == set()
    assert "What the numbers stand for" in (folder / "tokenizer" / "report.html").read_text()
    assert "Maps over the signal" in (folder / "student" / "report.html").read_text()


def test_the_encoder_embeds_windows_of_other_lengths(command, student):
    run, folder, _ = command
    run("tools/export_params.py", "--workdir", "student", "--out", "encoder")
    model = jaxbio.load_pretrained(folder / "encoder")
    ppg = np.sin(np.arange(60 * 100) / 100 * 7)
    for window_s, windows in ((None, 3), (8.0, 7), (20.0, 3), (60.0, 1)):
        assert model.embed(ppg=ppg, rate_hz=100, window_s=window_s).shape == (windows, 16)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("objective.tokenizer=nowhere", "no export folder"),
        ("objective.tokenizer=unfinished", "no export folder"),
        ("objective.tokenizer=foreign", "an encoder without codes"),
        ("data.rate_hz=25", "data.rate_hz = 50.0"),
        ("data.band_hz=(0.5,4.0)", "data.band_hz"),
        ("model.patch=100", "its patches have 50 samples, the encoder's 100"),
    ],
)
def test_a_tokenizer_that_is_not_there_or_does_not_suit_is_refused(command, student, change, words):
    run, folder, _ = command
    if not (folder / "unfinished").exists():
        shutil.copytree(folder / "export", folder / "unfinished")
        (folder / "unfinished" / "card.json").unlink()
        run("tools/export_params.py", "--workdir", "student", "--out", "foreign")
    line = [*student, "--config.objective.tokenizer=export", f"--config.{change}", "--workdir", "refused"]
    assert words in run("launch/run.py", *line, code=2).stderr


def test_a_run_does_not_go_on_with_another_tokenizer(command, student):
    run, _, _ = command
    line = [*student, "--config.objective.tokenizer=earlier", "--workdir", "student"]
    assert "another network than the run was started with" in run("launch/run.py", *line, code=2).stderr
