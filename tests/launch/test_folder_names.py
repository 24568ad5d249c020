"""Folders of any name and on any file system: a run, its store, its cache and its export do not care."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from simulated import xla_flags

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.data.folder_lock import hold
from jaxbio.export.pretrained import load_pretrained
from launch import environment, run

RECIPE = str(Path(__file__).with_name("tiny_recipe.py"))
WORKDIR = {"checkpoints", "config.json", "examples.npz", "metrics.jsonl", "report.html", "seen.npz"}
# What a shell, a glob, an address, a partition of a table or a format string would make something of.
NAME = "-a[1]*?lr=1e-3,50%20x#é 中{x}|a::b'\"$HOME;~"


@pytest.fixture
def train(monkeypatch, repository, tmp_path):
    """Call the launch line for a linear model, which compiles in a second."""
    from linear_run import linear_objective

    from jaxbio import objectives
    from jaxbio.planning import flops

    monkeypatch.setattr(environment, "configure", lambda **_: {})
    monkeypatch.setattr(objectives, "make_objective", lambda config, networks: linear_objective())
    monkeypatch.setattr(flops, "model_flops", lambda config, pairs, networks: flops.FlopCount(1.0, {}))
    monkeypatch.chdir(tmp_path)

    def call(store, workdir, *arguments):
        few = ["--config.checkpoint.every_steps=2", "--config.eval.every_steps=2", "--config.eval.batches=1"]
        return run.main(["--config", RECIPE, f"--config.data.store={store}", f"--workdir={workdir}", *few, *arguments])

    return call


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_store_cache_and_workdir_of_any_name_train_and_resume(train, store, tmp_path, monkeypatch):
    shutil.copytree(store, tmp_path / "stores" / NAME)
    (tmp_path / "caches" / NAME).mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "caches" / NAME))
    cached = "--config.data.cache=host"
    assert train(f"stores/{NAME}", NAME, "--config.train.steps=2", cached)["step"] == 2
    assert list((tmp_path / "caches" / NAME).rglob("*.int16"))
    for left in ("report.html", "seen.npz", "metrics.jsonl", "lock", "checkpoints/2/files.json"):
        path = tmp_path / NAME / left
        path.with_name(f".unfinished-node7-601-{path.name}").write_text("half")  # as a killed run leaves it
    more = ("--config.train.steps=4", "--allow_change=train.steps", cached)
    assert train(f"stores/{NAME}", NAME, *more)["resumed_from"] == 2
    assert names(tmp_path / NAME) == WORKDIR
    assert not list((tmp_path / NAME).rglob(".unfinished*"))


def test_a_run_needs_no_hard_links(train, tmp_path, monkeypatch):
    def link(*_, **__):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    assert train("synthetic:96", "run", "--config.train.steps=2")["step"] == 2
    assert names(tmp_path / "run") == WORKDIR | {"store"}


def test_a_second_run_is_refused_without_hard_links_too(train, store, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    (tmp_path / "run").mkdir()
    with hold(tmp_path / "run"), pytest.raises(UserError, match="held by process"):
        train(store, "run")


@pytest.mark.parametrize("name", [".py", "..py", "...py", ".hidden.py", "....py"])
def test_a_recipe_whose_name_gives_no_folder_below_runs_asks_for_a_workdir(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(RECIPE, tmp_path / name)
    line = ["--config", name, "--config.data.store=synthetic:96"]
    with pytest.raises(UserError, match="--workdir"):
        run.default_workdir(line, fields.defaults())
    assert names(tmp_path) == {name}


@pytest.mark.parametrize("name", ["a b.py", "x.y.py", "[1].py", "-a.py", "é.py"])
def test_any_other_recipe_gives_a_folder_just_below_runs(name):
    assert run.default_workdir([f"--config={name}:smoke"], fields.defaults()).parent == Path("runs")


@pytest.mark.slow
def test_the_real_model_trains_and_is_exported_under_any_name(repository, tmp_path):
    store, workdir, out = (tmp_path / folder / NAME for folder in ("stores", "runs", "exports"))
    recipe = ["--config", RECIPE, "--config.train.steps=2", "--config.eval.batches=1", "--config.train.batch=8"]
    lines = [
        ["tools/prepare_store.py", "--config", RECIPE, "--source", "synthetic:96", f"--out={store}"],
        ["launch/run.py", *recipe, f"--config.data.store={store}", f"--workdir={workdir}"],
        ["tools/export_params.py", f"--workdir={workdir}", f"--out={out}"],
        ["tools/inspect_store.py", str(store), f"--out={tmp_path / NAME}.html"],
    ]
    for line in lines:
        one_device = os.environ | {"XLA_FLAGS": xla_flags(1), "PYTHONPATH": str(repository)}
        done = subprocess.run(
            [sys.executable, *line], cwd=repository, env=one_device, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert json.loads((out / "card.json").read_text())["steps"] == 2
    signal = np.random.default_rng(0).normal(size=1500)
    assert load_pretrained(out).embed(ppg=signal, ecg=signal, rate_hz=300).shape[0] == 1
