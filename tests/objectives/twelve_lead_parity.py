"""What the parity tests of 12-lead objectives share: their reference arrays, and Adam as the reference was stepped."""

from pathlib import Path

import jax
import numpy as np

from jaxbio.config import fields
from jaxbio.export.torch_import import to_reference
from jaxbio.objectives import make_objective
from jaxbio.training.optimizer import make_optimizer

KEYS = {"augment": jax.random.key(0), "dropout": jax.random.key(1)}


def read_arrays(folder: Path, name: str, prefix: str = "") -> dict[str, np.ndarray]:
    with np.load(folder / name) as file:
        return {key.removeprefix(prefix): file[key] for key in file.files if key.startswith(prefix)}


def make_small(model: str, objective: str, channels: tuple[str, ...], changes: dict):
    """Return configuration and objective of a small model on single segments of `channels`, with constant Adam."""
    plain = {f"augment.{kind}_prob": 0.0 for kind in ("noise", "scale", "offset", "block")}
    adam = {
        "optimizer.learning_rate": 1e-3,
        "optimizer.learning_rate_end": 1e-3,
        "optimizer.warmup_frac": 0.0,
        "optimizer.clip_norm": None,
    }
    single = {"pairs.rule": "all_segments", "data.channels": channels}
    config = fields.change(fields.defaults(model, objective), {**plain, **adam, **single, **changes})
    return config, make_objective(config)


def batch_of(x_BCT: np.ndarray) -> dict[str, np.ndarray]:
    """Return a batch of the shape of `x_BCT`; its numbers are replaced by a test that cannot round them to int16."""
    rows, channels, samples = x_BCT.shape
    return {
        "segment_BMCT": np.zeros((rows, 1, channels, samples), np.int16),
        "scale_BMC2": np.ones((rows, 1, channels, 2), np.float32),
        "row_BM": np.arange(rows, dtype=np.uint32)[:, None],
    }


def optimise(config, steps: int):
    """Return (init, step): step(params, opt_state, grads, number) -> params, opt_state, as a run would."""
    optimizer = make_optimizer(config.optimizer, steps)

    def step(params, opt_state, grads, number):
        params, opt_state, _ = optimizer.update(
            grads, opt_state, params, np.int32(number), np.asarray(True), measured=False
        )
        return params, opt_state

    return optimizer.init, jax.jit(step, static_argnums=3)


def check_gradients(family: str, grads, arrays: dict[str, np.ndarray], skip: str = "") -> None:
    """Compare gradients with the reference's, entries to 1e-5 and norms to 1e-4 of themselves."""
    ours = to_reference(family, {"params": grads})
    assert ours.keys() == {name.removeprefix("grad/") for name in arrays if name.startswith("grad/")}
    for name, grad in ours.items():
        np.testing.assert_allclose(grad, arrays[f"grad/{name}"], atol=1e-5, err_msg=name)
        np.testing.assert_allclose(np.linalg.norm(grad), arrays[f"grad_norm/{name}"], rtol=1e-4, atol=1e-5)


def check_after(ours: dict[str, np.ndarray], arrays: dict[str, np.ndarray], worst: float) -> None:
    """Compare weights after three steps: all to `worst`, 99 % to 1e-6, without key biases: their gradient is noise."""
    names = [name.removeprefix("after_3_steps/") for name in arrays if name.startswith("after_3_steps/")]
    assert set(names) <= ours.keys()
    differences = []
    for name in names:
        difference = np.abs(ours[name] - arrays[f"after_3_steps/{name}"])
        if name.endswith("to_qkv.bias"):
            difference = np.delete(difference.reshape(3, -1), 1, axis=0)
        differences.append(difference.ravel())
    every = np.concatenate(differences)
    assert every.max() < worst
    assert np.quantile(every, 0.99) < 1e-6
