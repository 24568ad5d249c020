"""The table of masks by rhythm: of a recipe's prior, and of what a run has learnt to hide."""

import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sigma_ppg_runs import student_config

from jaxbio.config import changes
from jaxbio.config.faults import UserError
from jaxbio.models.sigma import MaskGenerator
from jaxbio.training.checkpoint import Checkpoints, Meta
from jaxbio.training.state import State

SEGMENT_S, RATE_HZ = 10, 125


@pytest.fixture
def main(repository, monkeypatch):
    monkeypatch.chdir(repository)
    monkeypatch.syspath_prepend(repository / "tools")
    return runpy.run_path(str(repository / "tools/masks_by_rhythm.py"))["main"]


@pytest.fixture
def patients(tmp_path):
    rng, t_T = np.random.default_rng(0), np.arange(SEGMENT_S * RATE_HZ) / RATE_HZ
    for patient in range(2):
        rate_hz = rng.uniform(0.8, 1.6, (8, 1))
        ppg = np.sin(2 * np.pi * rate_hz * t_T) ** 3 + 0.1 * rng.normal(size=(8, len(t_T)))
        path = tmp_path / "data" / f"patient_{patient}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(path, ppg=ppg.astype(np.float32), rhythm=np.arange(8) % 2, rate_hz=RATE_HZ)
    return tmp_path / "data"


def save_run(workdir, config, params):
    """Write a checkpoint of `config` with `params`, as a run of one step leaves it."""
    checkpoints = Checkpoints(workdir / "checkpoints", keep=1)
    meta = Meta(1, changes.to_plain(config), "store", "index", {}, {})
    checkpoints.save(State(jnp.int32(1), jax.device_put(params), {"count": jnp.int32(1)}, {}), meta)
    checkpoints.close()
    return str(workdir)


def test_a_run_is_asked_with_its_own_configuration_and_a_recipe_for_its_prior(main, patients, tmp_path):
    config = student_config(data__segment_s=40.0, data__crop_s=20.0)  # the generator has the places of a crop alone
    own = config.objective
    generator = MaskGenerator(own.mask_width, own.mask_layers, own.mask_heads, config.model.patch, config.model.tokens)
    variables = jax.jit(generator.init)(jax.random.key(0), np.zeros((1, 1, 1000), np.float32))
    run = save_run(tmp_path / "run", config, {"mask_generator": variables["params"]})
    found = main(["--workdir", run, "--data", str(patients)])
    assert found["windows"] == 8
    assert found["table"].keys() == {"sinus", "pvc"}
    assert {"chosen by prior", "chosen by learnt", "chosen by learnt and prior"} <= found["table"]["pvc"].keys()
    recipe = ["--config", "configs/sigma_ppg_pro.py", "--config.data.segment_s=20", "--config.train.batch=8"]
    of_prior = main([*recipe, "--data", str(patients)])["table"]["pvc"]
    assert "chosen by prior" in of_prior
    assert "chosen by learnt" not in of_prior
    with pytest.raises(UserError, match="whose checkpoint has its configuration, or --config"):
        main([*recipe, "--workdir", run, "--data", str(patients)])


def test_a_run_that_has_learnt_no_masks_is_refused(main, patients, tmp_path):
    config = student_config(objective__masking="random", optimizer__groups=())
    run = save_run(tmp_path / "run", config, {"encoder": {"mask_token": np.zeros((1, 16), np.float32)}})
    with pytest.raises(UserError, match=r"objective\.masking = random: this run has learnt no masks"):
        main(["--workdir", run, "--data", str(patients)])
