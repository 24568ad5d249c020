from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.config import fields
from jaxbio.config.resolve import resolve
from jaxbio.objectives import make_objective
from jaxbio.report.examples import read_examples
from jaxbio.training.examples import make_examples_probe
from jaxbio.training.sharding import batch_sharding, make_mesh
from jaxbio.training.state import State
from jaxbio.transforms.scaling import scale

SMALL = {"model.width": 502, "model.layers": 1, "model.heads": 2, "model.feedforward": 16, "train.batch": 8}


@pytest.fixture(scope="module")
def program():
    config = resolve(fields.change(fields.defaults(), SMALL))
    return SimpleNamespace(config=config, objective=make_objective(config), mesh=make_mesh(8, 1, 1))


class HeldOut:
    """Held-out batches on eight devices; counts how often they are opened."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.arrays = {
            "segment_BMCT": rng.integers(-32767, 32768, (8, 2, 2, 9000)).astype(np.int16),
            "scale_BMC2": np.ones((8, 2, 2, 2), np.float32),
            "row_BM": np.arange(16, dtype=np.uint32).reshape(8, 2),
        }
        self.opened = 0
        scores = {"quality_waveform": rng.random(16), "ppg_waveform": rng.random(16), "ecg_waveform": rng.random(16)}
        self.store = SimpleNamespace(column=scores.__getitem__)

    def held_out(self, mesh):
        self.opened += 1
        yield jax.device_put(self.arrays, batch_sharding(mesh))


def start(program, data):
    params, objective_state = jax.jit(program.objective.init)(jax.random.key(0), data.arrays, {})
    return State(jnp.int32(0), params, None, objective_state)


@pytest.mark.slow
def test_the_same_held_out_pairs_and_their_reconstruction_are_written(program, tmp_path):
    data = HeldOut()
    state = start(program, data)
    probe = make_examples_probe(program, data, tmp_path)
    assert probe(state) == {}
    written = read_examples(tmp_path)
    pairs = {name: jnp.asarray(array[:2]) for name, array in data.arrays.items()}
    shown = dict(program.objective.show(state.params, state.objective_state, pairs))
    np.testing.assert_array_equal(written.segment_BMCT, shown.pop("segment"))
    assert set(written.curves) == set(shown) == {"amplitude", "phase"}
    for name, (target_BCS, output_BCS) in shown.items():
        assert written.curves[name][0].shape == (2, 2, 502)
        np.testing.assert_allclose(written.curves[name][0], target_BCS, atol=1e-3)
        np.testing.assert_allclose(written.curves[name][1], output_BCS, atol=1e-4)
    assert (written.rate_hz, written.channels, written.bin_hz) == (300.0, ("ppg", "ecg"), pytest.approx(1 / 30))
    row_BM = data.arrays["row_BM"][:2]
    np.testing.assert_array_equal(written.score_BM, data.store.column("quality_waveform")[row_BM])
    np.testing.assert_array_equal(written.score_BMC[..., 1], data.store.column("ecg_waveform")[row_BM])
    data.arrays["segment_BMCT"][:] = 0
    probe(state)
    np.testing.assert_array_equal(read_examples(tmp_path).segment_BMCT, written.segment_BMCT)
    assert data.opened == 1


@pytest.mark.slow
def test_an_objective_that_reconstructs_nothing_has_its_pairs_drawn(program, tmp_path):
    data = HeldOut()
    silent = SimpleNamespace(config=program.config, objective=SimpleNamespace(show=None), mesh=program.mesh)
    make_examples_probe(silent, data, tmp_path)(start(program, data))
    written = read_examples(tmp_path)
    assert written.curves == {}
    expected = scale(jnp.asarray(data.arrays["segment_BMCT"][:2]), jnp.ones((2, 2, 2, 2)), "per_channel")
    np.testing.assert_array_equal(written.segment_BMCT, expected)
