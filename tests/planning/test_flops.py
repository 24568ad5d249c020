"""The FLOP counter against the compiler and by hand."""

import jax
import jax.numpy as jnp
import pytest
from family_steps import STEPS, family

from jaxbio.config import fields
from jaxbio.config.command_line import load_recipe
from jaxbio.models import ENCODERS
from jaxbio.models.dense import product
from jaxbio.planning.flops import count_flops, model_flops, step_products
from jaxbio.training.sharding import make_mesh
from jaxbio.transforms.per_row import per_row, rows_on


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def encoder(**changes):
    settings = {"width": 512, "layers": 4, "heads": 8, "feedforward": 2048, "window": 8, "dropout": 0.0}
    return ENCODERS["qualityfm"](**settings, **changes)


def gradient_of(module):
    """Return the loss and gradient of `module` for a batch of two, and their abstract arguments."""
    x_BCT = shape(2, 2, 9000)
    variables = jax.eval_shape(module.init, jax.random.key(0), x_BCT)

    def gradient(variables, x_BCT):
        return jax.value_and_grad(lambda v: jnp.square(module.apply(v, x_BCT)).sum())(variables)

    return gradient, variables, x_BCT


def test_count_is_the_compilers_of_an_unrolled_model():
    gradient, *arguments = gradient_of(encoder(tokenizer="convolution", unroll=4))
    compiled = jax.jit(gradient).lower(*arguments).compile().cost_analysis()["flops"]
    assert count_flops(gradient, *arguments).total == pytest.approx(compiled, rel=0.02)


def test_scan_counts_its_length():
    scanned, unrolled = (count_flops(*gradient_of(encoder(tokenizer="convolution", unroll=n))) for n in (1, 4))
    assert scanned.total == unrolled.total


@pytest.mark.parametrize("stride", [1, 5, 10])
@pytest.mark.parametrize("padding", [0, 25])
def test_convolutions_count_as_the_compiler_counts_them(stride, padding):
    outputs = (300 + 2 * padding - 51) // stride + 1

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride,), [(padding, padding)], dimension_numbers=("NWC", "WIO", "NWC")
        )

    def backward(x, kernel, cotangent):
        return jax.linear_transpose(lambda k: convolve(x, k), kernel)(cotangent) + jax.linear_transpose(
            lambda s: convolve(s, kernel), x
        )(cotangent)

    forward_of = (shape(4, 300, 8), shape(51, 8, 16))
    for function, arguments in ((convolve, forward_of), (backward, (*forward_of, shape(4, outputs, 16)))):
        compiled = jax.jit(function).lower(*arguments).cost_analysis()["flops"]
        assert count_flops(function, *arguments).total == pytest.approx(compiled, rel=1e-3)


def test_products_count_two_flops_a_multiply_by_module():
    def function(x, w):
        with jax.named_scope("outer"):
            return jax.jit(lambda x, w: jnp.einsum("bij,bjk->bik", x, w))(x, w)

    count = count_flops(function, shape(3, 4, 5), shape(3, 5, 6))
    assert count.total == 2 * 3 * 4 * 5 * 6
    assert [module.split("/")[0] for module in count.by_module] == ["outer"]


def test_what_every_device_computes_of_its_rows_counts_for_all_of_them():
    def function(x, w):
        with rows_on(make_mesh(4, 1, 2)):
            return per_row(lambda x: jnp.einsum("bij,jk->bik", x, jnp.ones((5, 6))))(x) @ w

    products, after = 2 * 8 * 4 * 5 * 6 * 2, 2 * 8 * 4 * 6 * 3  # both devices of the last axis compute every product
    assert count_flops(function, shape(8, 4, 5), shape(6, 3)).total == products + after


def test_what_no_result_depends_on_does_not_count():
    """A product's own gradient (models/dense.py) is always that of both factors; here one is asked for."""
    gradient = jax.value_and_grad(lambda x, w: product(x, w).sum())
    assert count_flops(gradient, shape(3, 4), shape(4, 5)).total == 2 * (2 * 3 * 4 * 5)


def test_a_branch_counts_its_dearest_and_a_loop_of_unknown_length_is_refused():
    def branch(flag, x):
        return jax.lax.cond(flag, lambda x: x @ x @ x, lambda x: x @ x, x)

    def loop(x):
        return jax.lax.while_loop(lambda x: x.sum() < 1, lambda x: x @ x, x)

    flag = jax.ShapeDtypeStruct((), jnp.bool_)
    assert count_flops(branch, flag, shape(4, 4)).total == 2 * 2 * 4**3
    with pytest.raises(ValueError, match="unknown"):
        count_flops(loop, shape(4, 4))


@pytest.mark.parametrize(("recipe", "gflop"), [("base", 0.718), ("medium", 5.51), ("large", 24.97)])
def test_published_models_cost_what_the_design_says(repository, recipe, gflop):
    config = load_recipe(f"{repository}/configs/qualityfm_{recipe}.py:author")
    count = model_flops(config, 4)
    assert count.total / 4e9 == pytest.approx(gflop, rel=2e-3)
    assert any("transformer/blocks/attention/qkv" in module for module in count.by_module)


@pytest.mark.parametrize(
    "changes", [{"model.tokenizer": "frames"}, {"model.remat": "full"}, {"train.microbatches": 2}, {"model.unroll": 2}]
)
def test_what_runs_does_not_change_the_count(changes):
    plain = model_flops(fields.defaults(), 4).total
    assert model_flops(fields.change(fields.defaults(), changes), 4).total == plain


@pytest.mark.parametrize("name", [name for name in STEPS if "remat" in fields.defaults(*STEPS[name][:2]).model])
def test_what_a_family_computes_again_does_not_count(name):
    config, networks = family(name)
    again = fields.change(config, {"model.remat": "full"})
    assert model_flops(again, 16, networks).total == model_flops(config, 16, networks).total


def test_bytes_that_do_not_grow_with_the_batch_are_those_of_kernels_and_their_gradients(repository):
    """The student reads a kernel forward and backward and writes its gradient, the teacher reads its own: float32."""
    config = load_recipe(f"{repository}/configs/qualityfm_base.py")
    count = step_products(fields.change(config, {"train.batch": 8}))
    assert count.kernel_bytes_by_module["DistillationHead/hidden_0"] == 4 * 4 * config.model.width**2
    assert count.kernel_bytes_by_module["QualityFMEncoder/transformer/blocks/attention/blhk,bmhk->bhlm"] == 0
    assert count.bytes_by_module == model_flops(config, 8).bytes_by_module
