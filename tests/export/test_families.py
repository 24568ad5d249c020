"""Every registered family can be exported: nothing in the room names one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbio
from jaxbio.export import folder
from jaxbio.models import ENCODERS
from jaxbio.transforms.prepare_input import Input

SMALLEST = {
    "qualityfm": {"width": 100, "layers": 1, "heads": 2, "feedforward": 16, "window": 8, "dropout": 0.1},
    "resnet1d": {"depth": 18, "blocks": (1, 1, 1, 1)},
    "projected": {"encoder": ENCODERS["resnet1d"](18, (1, 1, 1, 1))},
    "resnet1d_projected": {"depth": 18, "blocks": (1, 1, 1, 1)},
    "st_mem": {"width": 8, "layers": 1, "heads": 2, "head_width": 4, "feedforward": 8},
    "ecg_jepa": {"width": 8, "layers": 1, "heads": 2, "feedforward": 8},
    "vq_vae": {"width": 8, "layers": 1, "heads": 2, "head_width": 4, "feedforward": 8, "latent": 4, "codes": 4},
    "sigma_ppg": {"width": 8, "layers": 1, "heads": 2, "channels": 4, "patch": 100, "tokens": 12},
    "sigma_tokenizer": {
        "width": 8,
        "layers": 1,
        "heads": 2,
        "channels": 4,
        "patch": 100,
        "tokens": 12,
        "codes": 4,
        "code_width": 4,
    },
    "headed": {"encoder": ENCODERS["ecg_jepa"](8, 1, 2, 8)},
    "answering_encoder": {"encoder": ENCODERS["ecg_jepa"](8, 1, 2, 8), "outputs": 3, "temperature": 1.5, "window": 400},
}
NAME_NOW = {"resnet1d_projected": "projected"}  # read from old cards, written under the new name


@pytest.mark.parametrize(
    "name",
    # The lead model among the fast tests, the others among the slow.
    [name if name == "qualityfm" else pytest.param(name, marks=pytest.mark.slow) for name in sorted(ENCODERS)],
)
def test_a_registered_family_survives_export_and_load(name, tmp_path):
    module = ENCODERS[name](**SMALLEST[name])
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, 1200)))
    inputs = Input(40.0, 1200, ("ppg",), "unit")
    card = folder.write_export(tmp_path / "out", module, variables, inputs=inputs, origin=folder.Origin("a test", "x"))
    model = jaxbio.load_pretrained(tmp_path / "out")
    assert card.encoder == NAME_NOW.get(name, name)
    x_BCT = np.random.default_rng(0).uniform(size=(3, 1, 1200)).astype(np.float32)
    expected = module.apply(variables, x_BCT)
    assert card.width == expected.shape[2]
    np.testing.assert_allclose(model.encode(x_BCT), expected, atol=1e-5 * float(jnp.abs(expected).max()))
    assert model.embed(ppg=np.sin(np.arange(6000) / 9), rate_hz=100).shape == (2, card.width)
