"""A small encoder, its export, and a run folder with a checkpoint, shared by the tests of the room."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files
from ml_collections import ConfigDict

from jaxbio.config import changes, fields
from jaxbio.config.resolve import resolve
from jaxbio.data.batch import random_batch
from jaxbio.export import folder
from jaxbio.objectives import make_objective
from jaxbio.training.checkpoint import Checkpoints, Meta
from jaxbio.training.state import State, stream_key
from jaxbio.transforms.prepare_input import Input

SMALL = {"model.width": 502, "model.layers": 1, "model.heads": 2, "model.feedforward": 16, "train.batch": 2}
STEP = 3


@pytest.fixture(scope="session")
def small_config() -> ConfigDict:
    return resolve(fields.change(fields.defaults(), SMALL))


@pytest.fixture(scope="session")
def small_input() -> Input:
    return Input(300.0, 9000, ("ppg", "ecg"), "per_channel")


@pytest.fixture(scope="session")
def small_objective(small_config):
    """The objective of the small recipe with parameters and a state whose teacher differs from the student."""
    objective = make_objective(small_config)
    batch = random_batch(small_config, np.random.default_rng(0))
    params, state = jax.jit(objective.init)(stream_key(small_config.train.seed, "init"), batch, {})
    state["teacher"] = jax.tree.map(lambda leaf: leaf * 1.01, state["teacher"])
    return objective, jax.tree.map(np.asarray, params), jax.tree.map(np.asarray, state)


@pytest.fixture(scope="session")
def encoder(small_objective):
    """Module and variables of the small teacher."""
    objective, params, state = small_objective
    module, take = objective.encoders["teacher"]
    return module, take(params, state)


@pytest.fixture(scope="session")
def export_folder(encoder, small_input, tmp_path_factory) -> Path:
    """An export of the small teacher; tests that change one copy it first."""
    out = tmp_path_factory.mktemp("export") / "small"
    folder.write_export(out, *encoder, inputs=small_input, origin=folder.Origin("a test", "teacher"))
    return out


@pytest.fixture(scope="session")
def run_folder(small_config, small_objective, tmp_path_factory) -> Path:
    """The folder of a run of three steps, as the loop leaves it."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    workdir.mkdir()
    plain = changes.to_plain(small_config)
    (workdir / "config.json").write_text(json.dumps(plain))
    records = [{"step": step, "train/loss": 10.0 - step, "eval/loss": 9.0 - step} for step in range(1, 6)]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    _, params, state = small_objective
    checkpoints = Checkpoints(workdir / "checkpoints", keep=1)
    run_state = State(jnp.int32(STEP), jax.device_put(params), {"count": jnp.int32(STEP)}, jax.device_put(state))
    meta = Meta(step=STEP, config=plain, store_hash="store-hash", index_hash="index-hash", clock={}, versions={})
    checkpoints.save(run_state, meta)
    checkpoints.close()
    return workdir


@pytest.fixture
def torch_save(tmp_path, monkeypatch):
    """A function like torch.save, `torch_save(value)`, which returns the file."""
    return functools.partial(torch_files.torch_save, tmp_path, monkeypatch)
