"""A new family is four files and one line: the README's steps, done to the letter on a copy of the code."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from simulated import xla_flags

TOY = Path(__file__).resolve().parent / "toy_family"
FILES = {
    "models.py": "jaxbio/models/toy.py",
    "objectives.py": "jaxbio/objectives/toy.py",
    "config.py": "jaxbio/config/families/toy.py",
    "recipe.py": "configs/toy.py",
}
REGISTRY = "jaxbio/config/families/__init__.py"
LEADS = ("i", "ii", "iii", "avr", "avl", "avf", "v1", "v2", "v3", "v4", "v5", "v6")
RECORDINGS, SECONDS, RATE_HZ = 12, 60, 100

# A store of twelve leads, and the export of a network that the toy's objective only listens to.
PREPARE = f"""
import csv, sys
import jax, numpy as np
import jaxbio
from jaxbio.config.command_line import load_recipe
from jaxbio.export import folder
from jaxbio.models import ENCODERS
from jaxbio.transforms.prepare_input import Input
from launch.environment import configure

config = load_recipe("configs/toy.py")
rng = np.random.default_rng(0)
time = np.arange({SECONDS * RATE_HZ}) / {RATE_HZ}
beats = np.exp(-((time % 0.8 - 0.4) ** 2) / 0.0008)
signals = {{
    lead: [gain * beats + 0.02 * rng.normal(size=time.size) for gain in rng.uniform(0.5, 2.0, {RECORDINGS})]
    for lead in {LEADS!r}
}}
names = [f"r{{number}}" for number in range({RECORDINGS})]
jaxbio.store_from_arrays("store", rate_hz={RATE_HZ}.0, config=config, names=names, subjects=names, **signals)
with open("labels.csv", "w", newline="") as file:
    csv.writer(file).writerows(
        [["source", "recording", "age"]] + [["arrays", name, 20 + 5 * number] for number, name in enumerate(names)]
    )
module = ENCODERS["toy"](16)
inputs = Input.of(config)
variables = jax.jit(module.init)(jax.random.key(7), np.zeros((1, *inputs.shape), np.float32))
folder.write_export("tokenizer", module, variables, inputs=inputs, origin=folder.Origin("a test", "tokenizer"))
"""
TRAIN = [
    "launch/run.py",
    "--config",
    "configs/toy.py",
    "--config.data.store=store",
    "--config.objective.tokenizer=tokenizer",
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory, repository):
    """A copy of the code with the toy family added, and what `git diff` would say was touched."""
    folder = tmp_path_factory.mktemp("clone")
    for room in ("jaxbio", "configs", "launch", "tools"):
        shutil.copytree(repository / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for source, target in FILES.items():
        shutil.copy(TOY / source, folder / target)
    registry = folder / REGISTRY
    text = registry.read_text()
    assert text.count('    "siamquality",\n') == 1
    registry.write_text(text.replace('    "siamquality",\n', '    "siamquality",\n    "toy",\n'))
    run(folder, "-c", PREPARE)
    run(folder, "tools/add_labels.py", "--store", "store", "--labels", "labels.csv")
    return folder


def run(folder: Path, *arguments: str, code: int = 0) -> dict:
    """Run Python in the copy; return the JSON line that its last line is (where it is one)."""
    environment = os.environ | {"PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags(1)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr[-4000:]
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if lines else {"stderr": done.stderr}


def losses(workdir: Path) -> list[float]:
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [record["train/loss"] for record in records if "train/loss" in record]


@pytest.fixture(scope="module")
def trained(clone):
    run(clone, *TRAIN, "--workdir", "runs/whole")
    return clone / "runs" / "whole"


@pytest.mark.slow
def test_it_trains_and_its_own_measures_are_logged(trained):
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    found = {key for record in records for key in record}
    assert {"train/label", "train/revived_codes", "eval/code_perplexity", "eval/encoder_batch_spread"} <= found
    assert all(np.isfinite(losses(trained)))
    assert len(losses(trained)) == 8


@pytest.mark.slow
def test_it_resumes_bit_for_bit_without_the_frozen_export(trained, clone):
    shutil.copytree(trained, clone / "runs" / "again")
    (clone / "tokenizer").rename(clone / "away")
    try:
        run(clone, *TRAIN, "--workdir", "runs/again", "--from_step", "4")
    finally:
        (clone / "away").rename(clone / "tokenizer")
    assert losses(clone / "runs" / "again") == losses(trained)
    assert (clone / "runs" / "again" / "checkpoints_set_aside" / "8").is_dir()


@pytest.mark.slow
def test_it_exports_embeds_plans_and_reports(trained, clone):
    card = run(clone, "tools/export_params.py", "--workdir", "runs/whole", "--out", "export")
    assert (card["encoder"], card["channels"]) == ("toy", list(LEADS))
    embed = (
        "import json, numpy as np, jaxbio; "
        "model = jaxbio.load_pretrained('export'); "
        f"x = {{lead: np.random.default_rng(0).normal(size=1000) for lead in {LEADS!r}}}; "
        "print(json.dumps(model.embed(rate_hz=100, **x).shape))"
    )
    assert run(clone, "-c", embed) == [1, 16]
    plan = [*TRAIN[1:], "--topology", "cpu:2"]
    assert run(clone, "tools/plan.py", *plan)["fits"]
    assert "code_perplexity" in (trained / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("--config.objective.tokenizer=nowhere", "no export folder"),
        ("--config.objective.tokenizer=None", "name the folder of the export"),
        ("--config.model.width=8", "make model.width the same"),
        ("--config.data.scaling=unit", "the run has unit"),
    ],
)
def test_a_tokenizer_that_is_missing_or_does_not_suit_is_refused(clone, change, words):
    assert words in run(clone, *TRAIN, change, "--workdir", "runs/refused", code=2)["stderr"]
