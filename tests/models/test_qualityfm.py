"""QualityFM's encoder: published sizes, other lengths, bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.models import ENCODERS
from jaxbio.models.qualityfm import QualityFMEncoder, SpectrumHead

SMALL = {"width": 100, "layers": 2, "heads": 2, "feedforward": 40, "window": 8, "dropout": 0.1}
X_BCT = jax.random.normal(jax.random.key(0), (2, 2, 3000))


@pytest.fixture(scope="module")
def variables():
    return jax.jit(QualityFMEncoder(**SMALL).init)(jax.random.key(1), X_BCT)


@pytest.mark.parametrize("form", ["convolution", "frames"])
def test_encoder_takes_any_length_and_the_decoder_its_tokens(form):
    encoder = QualityFMEncoder(**{**SMALL, "width": 512, "heads": 4}, tokenizer=form)

    def shapes(samples):
        tok_BLD, _ = encoder.init_with_output(jax.random.key(0), jnp.zeros((3, 2, samples)))
        tok_BCD, _ = encoder.init_with_output(jax.random.key(0), tok_BLD)
        spectrum_BCS, _ = SpectrumHead(512).init_with_output(jax.random.key(0), tok_BCD)
        return tok_BLD, tok_BCD, spectrum_BCS

    for samples, tokens in ((9000, 18), (3000, 6), (2999, 6), (3001, 7)):
        found = [array.shape for array in jax.eval_shape(lambda samples=samples: shapes(samples))]
        assert found == [(3, tokens, 512), (3, 2, 512), (3, 2, 512)]


def test_both_tokenizers_share_one_layout_and_give_the_same_tokens(variables):
    encoders = [QualityFMEncoder(**SMALL, tokenizer=form) for form in ("convolution", "frames")]
    outputs = [jax.jit(encoder.apply)(variables, X_BCT) for encoder in encoders]
    np.testing.assert_allclose(*outputs, atol=2e-5)


def test_bfloat16_keeps_float32_parameters_and_comes_near(variables):
    encoder = QualityFMEncoder(**SMALL, dtype="bfloat16")
    abstract = jax.eval_shape(encoder.init, jax.random.key(1), X_BCT)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(abstract))
    tok_BLD = jax.jit(encoder.apply)(variables, X_BCT)
    exact_BLD = jax.jit(QualityFMEncoder(**SMALL).apply)(variables, X_BCT)
    assert tok_BLD.dtype == jnp.float32
    assert not np.array_equal(tok_BLD, exact_BLD)
    assert np.abs(tok_BLD - exact_BLD).max() < 0.05 * np.abs(exact_BLD).max()


def test_softmax_stays_float32_in_bfloat16(variables):
    encoder = QualityFMEncoder(**SMALL, dtype="bfloat16", unroll=2)
    text = str(jax.make_jaxpr(lambda v, x: encoder.apply(v, x))(variables, X_BCT))
    exponentials = [line for line in text.splitlines() if "= exp " in line]
    assert exponentials
    assert all("f32[" in line.split("= exp ")[0] for line in exponentials)
    assert "bf16" in text


def test_odd_window_is_refused():
    with pytest.raises(UserError, match=r"model\.window = 7: an even number"):
        jax.eval_shape(QualityFMEncoder(**{**SMALL, "window": 7}).init, jax.random.key(0), X_BCT)


def test_the_registry_holds_it():
    assert ENCODERS["qualityfm"] is QualityFMEncoder
