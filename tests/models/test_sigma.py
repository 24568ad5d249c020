"""SIGMA-PPG's networks: sizes to the unit, names of the published checkpoint, windows of other lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.config.families import sigma_ppg
from jaxbio.config.faults import UserError
from jaxbio.export.torch_import import arrays_from_table, from_reference, to_reference
from jaxbio.export.torch_names_sigma_ppg import MASK_GENERATOR, STUDENT, TOKENIZER
from jaxbio.export.weights import flatten_tree
from jaxbio.models.sigma import CodeHead, MaskGenerator, SigmaEncoder
from jaxbio.models.sigma_tokenizer import SigmaTokenizer, SpectrumDecoder

UNUSED_ROWS = 128  # of the reference's channel table of 129


def shapes_of(module, *shape):
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x), jax.ShapeDtypeStruct(shape, jnp.float32))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def size_of(size, patch=100):
    settings = {name.removeprefix("model."): value for name, value in sigma_ppg.SIZES[size].items()}
    return SigmaEncoder(**settings, patch=patch, tokens=12_000 // patch)


@pytest.mark.parametrize(
    ("size", "patch", "published"),
    [
        ("base", 100, 5_861_936),
        ("pro", 100, 28_222_272),
        ("pro", 50, 28_239_552),
        ("large", 100, 75_889_536),
        ("huge", 100, 353_147_776),
    ],
)
def test_the_encoder_has_the_published_parameters_but_for_rows_that_nothing_reads(size, patch, published):
    module = size_of(size, patch)
    params = shapes_of(module, 1, 1, 12_000)["params"]
    assert count(params) + UNUSED_ROWS * module.width == published
    assert count(shapes_of(CodeHead(4096), 1, 1, module.width)) == 4096 * (module.width + 1)


@pytest.mark.parametrize(
    ("patch", "encoder", "decoder", "heads"),
    [(100, 5_859_576, 1_484_800, 113_364), (50, 5_897_976, 1_508_800, 103_314)],
)
def test_the_tokenizer_has_the_published_parameters(patch, encoder, decoder, heads):
    tokens = 12_000 // patch
    own = shapes_of(SigmaTokenizer(200, 12, 10, 8, patch, tokens, 4096, 64), 1, 1, 12_000)
    theirs = shapes_of(SpectrumDecoder(200, 3, 10, tokens, patch), 1, tokens, 64)["params"]
    ends = {name: tree for name, tree in (own["params"] | theirs).items() if name.startswith(("code_", "amplitude_"))}
    unused = (tokens - 1) * 200  # of the table of tokens + 1 rows two are read
    assert count(ends) == heads
    assert count(own["params"]) + count(theirs) - count(ends) + unused == encoder + decoder
    assert count(own["codebook"]) == 4096 * 64


@pytest.mark.parametrize(("patch", "published"), [(100, 187_137), (50, 170_241)])
def test_the_mask_generator_has_the_published_parameters(patch, published):
    assert count(shapes_of(MaskGenerator(64, 2, 4, patch, 12_000 // patch), 1, 1, 12_000)) == published


# ---- names

ENCODERS = {
    "sigma_ppg": (STUDENT, {**sigma_ppg.SIZES["pro"], "model.patch": 100, "model.tokens": 120}, 31_309_544),
    "sigma_tokenizer": (
        TOKENIZER,
        {**{f"model.{name}": value for name, value in {"width": 200, "layers": 12, "heads": 10, "channels": 8}.items()},
         "model.patch": 100, "model.tokens": 120, "model.codes": 4096, "model.code_width": 64},
        7_986_124,
    ),
}  # fmt: skip


def published_arrays(encoder, fields):
    """Return arrays of random numbers under the names and in the shapes of the published checkpoint."""
    rng = np.random.default_rng(0)
    table = ENCODERS[encoder][0]
    trees = table.shapes({"lm_head.bias": np.zeros(4096), "decoder.blocks.2.norm1.weight": np.zeros(1)}, fields)
    if encoder == "sigma_tokenizer":
        trees["params"]["decoder"] = shapes_of(SpectrumDecoder(200, 3, 10, 120, 100), 1, 120, 64)["params"]
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), trees)
    arrays = {
        name: rng.normal(size=array.shape).astype(np.float32) for name, array in arrays_from_table(table, zeros).items()
    }
    unread = {
        "sigma_ppg": {
            "student.lm_head.weight": (4096, 360),
            "student.lm_head.bias": (4096,),
            "projection_head.0.weight": (360, 360),
            "projection_head.0.bias": (360,),
        },
        "sigma_tokenizer": {
            "quantize.cluster_size": (4096,),
            "quantize.embedding.cluster_size": (4096,),
            "quantize.embedding.embed_avg": (4096, 64),
            "quantize.embedding.initted": (1,),
        },
    }[encoder]
    return arrays | {name: np.zeros(shape, np.float32) for name, shape in unread.items()}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_checkpoint_of_the_published_sizes_is_read_and_given_back(encoder):
    _, settings, published = ENCODERS[encoder]
    fields = {name.removeprefix("model."): value for name, value in settings.items()}
    arrays = published_arrays(encoder, fields)
    parameters = {name: array for name, array in arrays.items() if not name.endswith(("cluster_size", "initted"))}
    if encoder == "sigma_tokenizer":
        # counts are no parameters there but one, which `parameters()` counts beside the second copy of the codes
        published -= 4096
        assert arrays["quantize.embedding.weight"].shape == (4096, 64)
    assert sum(array.size for array in parameters.values()) == published
    variables = from_reference("sigma_ppg", arrays, fields, encoder)
    trees = {kind: {"encoder": tree} for kind, tree in variables.items()}
    back = to_reference("sigma_ppg", trees, encoder)
    tables = {name for name in back if name.endswith("pos_embed")}
    assert len(flatten_tree(variables)) < len(back)
    for name, array in back.items():
        if name in tables:
            used = np.any(array[0], axis=-1)
            assert used.sum() == (1 if encoder == "sigma_ppg" else 2)
            np.testing.assert_array_equal(array[0, used], arrays[name][0, used])
        else:
            np.testing.assert_array_equal(array, arrays[name], err_msg=name)


def test_the_mask_generators_names_go_both_ways(parity_dir):
    fields = {"width": 16, "layers": 2, "heads": 4, "patch": 100, "tokens": 120}
    shapes = MASK_GENERATOR.shapes({}, fields)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    with np.load(parity_dir / "sigma_ppg.npz") as stored:
        theirs = {name.removeprefix("mask_generator/") for name in stored.files if name.startswith("mask_generator/")}
    assert set(arrays_from_table(MASK_GENERATOR, zeros)) == theirs


# ---- windows of other lengths

SMALL = SigmaEncoder(16, 2, 2, 4, 25, 8)
APPLY = jax.jit(SMALL.apply)


@pytest.fixture(scope="module")
def small():
    x_BCT = np.random.default_rng(0).normal(size=(2, 1, 200)).astype(np.float32)
    return jax.jit(SMALL.init)(jax.random.key(0), x_BCT), x_BCT


def test_shorter_windows_take_the_first_rows_of_the_time_table(small):
    variables, x_BCT = small
    moved = jax.tree.map(jnp.asarray, variables)
    table_AD = moved["params"]["time"]["time_table"]
    moved["params"]["time"]["time_table"] = table_AD.at[3:].add(1.0)
    np.testing.assert_array_equal(APPLY(variables, x_BCT[..., :75]), APPLY(moved, x_BCT[..., :75]))
    assert np.any(APPLY(variables, x_BCT) != APPLY(moved, x_BCT))


def test_longer_windows_are_read_in_parts(small):
    variables, x_BCT = small
    long_BCT = np.concatenate([x_BCT, x_BCT[..., :75]], axis=-1)
    tok_BAD = APPLY(variables, long_BCT)
    parts = [APPLY(variables, part) for part in (x_BCT, x_BCT[..., :75])]
    np.testing.assert_allclose(tok_BAD, np.concatenate(parts, axis=1), atol=1e-6)


def test_a_patch_that_does_not_divide_a_window_and_several_channels_are_refused(small):
    variables, x_BCT = small
    with pytest.raises(UserError, match="multiple of the patch of 25: 175 or 200"):
        jax.eval_shape(SMALL.apply, variables, x_BCT[..., :190])
    with pytest.raises(UserError, match="= 210: a multiple of the patch of 25: 200 or 225"):  # past the time table
        jax.eval_shape(SMALL.apply, variables, np.concatenate([x_BCT, x_BCT[..., :10]], axis=-1))
    with pytest.raises(UserError, match=r"multiple of the patch of 25: 25\s"):
        jax.eval_shape(SMALL.apply, variables, x_BCT[..., :10])
    with pytest.raises(UserError, match="a single signal"):
        jax.eval_shape(SMALL.apply, variables, np.concatenate([x_BCT, x_BCT], axis=1))


def test_what_is_hidden_is_not_seen(small):
    variables, x_BCT = small
    hidden_BA = np.zeros((2, 8), bool)
    hidden_BA[:, 2:5] = True
    # the norm of the embedding runs over all patches: the hidden ones are exchanged, so that it stays
    other_BCT = x_BCT.reshape(2, 1, 8, 25)[:, :, [0, 1, 4, 2, 3, 5, 6, 7]].reshape(2, 1, 200)
    hide = jax.jit(lambda x_BCT: SMALL.apply(variables, x_BCT, False, hidden_BA))
    np.testing.assert_allclose(hide(x_BCT), hide(other_BCT), atol=1e-6)
    assert np.abs(APPLY(variables, x_BCT) - APPLY(variables, other_BCT)).max() > 1e-4


def test_dropout_and_skipped_branches_change_training_only():
    module = SMALL.clone(dropout=0.1, attention_dropout=0.1, drop_path=0.5)
    x_BCT = np.random.default_rng(1).normal(size=(2, 1, 200)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x_BCT)
    np.testing.assert_array_equal(jax.jit(module.apply)(variables, x_BCT), APPLY(variables, x_BCT))
    apply = jax.jit(lambda key: module.apply(variables, x_BCT, True, rngs={"dropout": key}))
    drawn = [np.asarray(apply(jax.random.key(seed))) for seed in range(2)]
    assert np.any(drawn[0] != drawn[1])


def test_kernels_that_end_a_branch_start_smaller_the_deeper_they_lie():
    module = SigmaEncoder(64, 4, 2, 4, 25, 8)
    params = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 1, 200), np.float32))["params"]
    for path in (("attention", "output"), ("feedforward_out",)):
        kernel = params["transformer"]["blocks"]
        for name in (*path, "kernel"):
            kernel = kernel[name]
        spread_N = np.asarray(kernel).reshape(4, -1).std(axis=1)
        np.testing.assert_allclose(spread_N, 0.0108 / np.sqrt(2 * np.arange(1, 5)), rtol=0.1)
