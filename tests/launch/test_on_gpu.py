"""A GPU's own promise: under `precision.deterministic` a run that is killed goes on bit for bit."""

import json
import subprocess
import sys

import pytest


@pytest.mark.gpu
def test_a_deterministic_run_on_a_gpu_that_is_killed_continues_bit_for_bit(repository, tmp_path):
    recipe = ["--config", "configs/qualityfm_base.py:gpu"]
    store = str(tmp_path / "store")
    run(repository, "tools/prepare_store.py", *recipe, "--source", "synthetic:400", "--out", store)
    changes = {
        "data.store": store,
        "precision.deterministic": True,
        "train.steps": 60,
        "train.batch": 32,
        "checkpoint.every_steps": 10,
        "eval.every_steps": 20,
        "eval.batches": 1,
        "log.every_steps": 1,
    }
    words = [f"--config.{name}={value}" for name, value in changes.items()]
    said = run(repository, "tools/soak_resume.py", *recipe, *words, "--out", str(tmp_path / "soak"), "--kills", "2")
    assert said["identical"] is True
    assert said["kills"] == 2


def run(repository, tool, *arguments):
    """Return what a command says in its last line."""
    process = subprocess.run([sys.executable, tool, *arguments], capture_output=True, text=True, cwd=repository)
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])
