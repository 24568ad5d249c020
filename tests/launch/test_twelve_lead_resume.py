"""Runs of 12-lead recipes, stopped and gone on with: the rest is what it would have been, bit for bit."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from simulated import xla_flags

import jaxbio
from jaxbio.config.features import FEATURES
from jaxbio.signals.synthetic import recording

pytestmark = pytest.mark.slow
SMALL = {
    "data.rate_hz": 100.0,
    "data.segment_s": 6.0,
    "data.channels": '("i","ii","v6")',
    "data.store": "synthetic:96",
    "data.streams": 8,
    "prepare.split": (0.5, 0.25, 0.25),
    "model.width": 16,
    "model.layers": 1,
    "model.heads": 2,
    "model.feedforward": 16,
    "model.patch": 50,
    "train.batch": 8,
    "train.steps": 4,
    "log.every_steps": 1,
    "eval.every_steps": 4,
    "eval.batches": 1,
    "checkpoint.every_steps": 2,
}
DECODER = {"objective.decoder_width": 8, "objective.decoder_layers": 1, "objective.decoder_heads": 1}
PREDICTOR = {
    "objective.predictor_width": 8,
    "objective.predictor_layers": 1,
    "objective.predictor_heads": 2,
    "objective.most_visible": 5,
}
FAMILIES = {
    "st_mem_small.py": {**DECODER, "data.crop_s": 5.0, "model.head_width": 8},
    "ecg_jepa_small.py:hybrid": PREDICTOR,
    # its codes are moving averages, no parameters: a run that goes on has to have them, too
    "ecg_vqvae.py": {**DECODER, "data.crop_s": 5.0, "model.head_width": 8, "model.latent": 16, "model.codes": 8},
}


@pytest.fixture(scope="module", params=FAMILIES)
def finished(request, repository, tmp_path_factory):
    """A function that runs a command in a folder of its own, that folder, and the launch line of its finished run."""
    folder = tmp_path_factory.mktemp("run")
    environment = os.environ | {"PYTHONPATH": str(repository), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags(1)}

    def command(tool, *arguments):
        line = [sys.executable, str(repository / tool), *map(str, arguments)]
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-4000:]
        return done

    changes = [f"--config.{name}={value}" for name, value in {**SMALL, **FAMILIES[request.param]}.items()]
    line = ["--config", repository / "configs" / request.param, *changes]
    command("launch/run.py", *line, "--workdir", "run")
    return command, folder, line, request.param


def losses(workdir):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record["train/loss"] for record in records if "train/loss" in record}


def test_a_run_goes_on_bit_for_bit(finished):
    command, folder, line, _ = finished
    shutil.copytree(folder / "run", folder / "again")
    command("launch/run.py", *line, "--workdir", "again", "--from_step", 2)
    whole = losses(folder / "run")
    assert list(whole) == [1, 2, 3, 4]
    assert losses(folder / "again") == whole


def test_its_export_embeds_raw_signals_with_the_runs_scales(finished):
    command, folder, _, recipe = finished
    command("tools/export_params.py", "--workdir", "run", "--out", "export")
    card = json.loads((folder / "export" / "card.json").read_text())
    config = json.loads((folder / "run" / "config.json").read_text())
    assert card["features"] == (list(FEATURES) if "hybrid" in recipe else [])
    assert card["feature_scales"] == config["data.feature_scales"]
    assert len(card["feature_scales"]) == len(card["features"])
    ecg_T = np.nan_to_num(recording(0, duration_s=12.0, rate_hz=250.0).ecg)
    vector_BD = jaxbio.load_pretrained(folder / "export").embed(ii=ecg_T, i=0.5 * ecg_T, rate_hz=250)
    assert vector_BD.shape == (2, 16)
    assert np.isfinite(vector_BD).all()
