"""An encoder of twelve leads that is given some of them is the encoder of these leads alone."""

import jax
import numpy as np
import pytest

from jaxbio.models.ecg_jepa import ECGJEPA
from jaxbio.models.st_mem import STMEM

LEADS, PATCHES = 12, 3
SUBSETS = {"limb": [0, 1, 2, 3, 4, 5], "i": [0], "ii": [1], "chest": [6, 9, 11]}
ENCODERS = {
    "st_mem": STMEM(16, 1, 2, head_width=8, feedforward=32, patch=5),
    "ecg_jepa": ECGJEPA(16, 1, 2, feedforward=32, patch=5, drop_path=0.0),
}


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request):
    module = ENCODERS[request.param]
    x_BCT = np.random.default_rng(0).normal(size=(2, LEADS, 5 * PATCHES)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x_BCT)
    variables = jax.tree.map(lambda leaf: leaf + 0.3 * np.random.default_rng(1).normal(size=leaf.shape), variables)
    return module, variables, x_BCT, jax.jit(module.apply)


@pytest.mark.parametrize("subset", SUBSETS)
def test_absent_leads_change_nothing(encoder, subset):
    module, variables, x_BCT, apply = encoder
    given = np.zeros_like(x_BCT)
    given[:, SUBSETS[subset]] = x_BCT[:, SUBSETS[subset]]
    found = np.asarray(apply(variables, given))
    assert not np.allclose(found, apply(variables, x_BCT), atol=1e-3)
    if isinstance(module, STMEM):  # the lead's embedding is all that tells its place
        own = {"params": {**variables["params"], "lead": variables["params"]["lead"][np.array(SUBSETS[subset])]}}
        np.testing.assert_allclose(found, apply(own, given[:, SUBSETS[subset]]), atol=2e-6)
    else:
        tokens = jax.jit(module.clone(output="tokens").apply)(variables, given).reshape(2, LEADS, PATCHES, -1)
        np.testing.assert_allclose(found[:, 0], tokens[:, SUBSETS[subset]].mean((1, 2)), atol=2e-6)


def test_no_lead_at_all_is_finite(encoder):
    _, variables, x_BCT, apply = encoder
    assert np.isfinite(apply(variables, np.zeros_like(x_BCT))).all()
