"""What an encoder sees, against NumPy and SciPy in float64, and which crops it sees when."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from scipy.signal import butter, sosfiltfilt

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.data.quantise import dequantise, quantise
from jaxbio.planning.collectives import count_collectives
from jaxbio.training.sharding import make_mesh
from jaxbio.transforms.augment import row_keys
from jaxbio.transforms.per_row import rows_on
from jaxbio.transforms.prepare_input import (
    Input,
    fixed_starts,
    join_crops,
    prepare_batch,
    prepare_crops,
    prepare_input,
    prepare_physical,
)
from jaxbio.transforms.scaling import KINDS, scale

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
ST_MEM = Input(
    rate_hz=250.0,
    length=2500,
    channels=LEADS,
    scaling="physical",
    crop_s=9.0,
    crops=3,
    band_hz=(0.67, 40.0),
    band_order=5,
    band_design="high_pass_low_pass",
    standardise="z_score",
)
SIGMA_PPG = Input(50.0, 12000, ("ppg",), "per_channel", band_hz=(0.5, 8.0), standardise="unit")


@pytest.fixture(scope="module")
def stored():
    """Four segments of the twelve leads, (B, 12, 2500), as a store holds them."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(4, 12, 2500))
    x_BCT = (np.cumsum(steps, axis=-1) * 0.03 + 0.1 * steps + rng.normal(size=(4, 12, 1))).astype(np.float32)
    return quantise(x_BCT)


def st_mem(x_BCT: np.ndarray, start: int) -> np.ndarray:
    """Return the model's input by the published code, in float64: crop, high-pass, low-pass, standardise."""
    x_BCT = x_BCT[..., start : start + 2250].astype(np.float64)
    for edge_hz, kind in ((0.67, "highpass"), (40.0, "lowpass")):
        x_BCT = sosfiltfilt(butter(5, edge_hz, kind, fs=250.0, output="sos"), x_BCT)
    mean, deviation = (statistic((1, 2), keepdims=True) for statistic in (x_BCT.mean, x_BCT.std))
    return (x_BCT - mean) / deviation


def test_st_mems_input_is_the_fact_sheets_in_each_of_its_three_crops(stored):
    found = np.asarray(prepare_crops(*stored, ST_MEM)).reshape(4, 3, 12, 2250)
    for number, start in enumerate((0, 125, 250)):
        np.testing.assert_allclose(found[:, number], st_mem(dequantise(*stored), start), atol=1e-4)


def test_sigma_ppgs_input_is_filtered_then_taken_to_0_and_1():
    x_BCT = np.cumsum(np.random.default_rng(1).normal(size=(2, 1, 12000)), axis=-1).astype(np.float32) + 500
    segment_BCT, scale_BC2 = quantise(x_BCT)
    filtered = sosfiltfilt(butter(2, (0.5, 8.0), "bandpass", fs=50.0, output="sos"), dequantise(segment_BCT, scale_BC2))
    low, high = filtered.min(-1, keepdims=True), filtered.max(-1, keepdims=True)
    found = np.asarray(prepare_input(segment_BCT, scale_BC2, SIGMA_PPG))
    np.testing.assert_allclose(found, (filtered - low) / (high - low), atol=2e-5)
    assert (found.min(), found.max()) == pytest.approx((0.0, 1.0), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_that_is_only_scaled_is_what_scaling_gives(stored, kind):
    inputs = Input(250.0, 2500, LEADS, kind)
    np.testing.assert_array_equal(prepare_input(*stored, inputs), scale(*stored, kind))
    np.testing.assert_array_equal(prepare_crops(*stored, inputs), scale(*stored, kind))
    assert inputs.shape == (12, 2500)


def test_the_description_holds_every_field_that_says_what_an_encoder_sees():
    changed = {
        "data.rate_hz": 250.0,
        "data.segment_s": 10.0,
        "data.channels": ["ecg"],
        "data.scaling": "physical",
        "data.crop_s": 9,
        "data.crops": 3,
        "data.band_hz": [0.67, 40],
        "data.band_order": 5,
        "data.band_design": "high_pass_low_pass",
        "data.standardise": "z_score",
        "data.features": ["sdnn"],
        "data.feature_scales": [[3, 1]],
    }
    config = fields.change(fields.defaults(), changed)
    described = {"channels": ("ecg",), "features": ("sdnn",), "feature_scales": ((3.0, 1.0),)}
    assert Input.of(config) == dataclasses.replace(ST_MEM, **described)
    names = {name.removeprefix("data.") for name in changed} - {"segment_s"} | {"length"}
    assert names == {field.name for field in dataclasses.fields(Input)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("standardise", ["none", "z_score", "unit"])
def test_a_channel_that_is_not_there_is_zeros_and_the_others_do_not_notice(stored, kind, standardise):
    x_BCT = dequantise(*stored)
    x_BCT[:, 3], x_BCT[:, 7] = 0, 4.5  # a missing one, and one that does not move
    inputs = dataclasses.replace(ST_MEM, scaling=kind, standardise=standardise)
    found = np.asarray(prepare_input(*quantise(x_BCT), inputs))
    others = [place for place in range(12) if place not in (3, 7)]
    np.testing.assert_array_equal(found[:, [3, 7]], 0)
    alone = prepare_input(*quantise(x_BCT[:, others]), inputs)
    np.testing.assert_allclose(found[:, others], alone, atol=1e-5 * np.abs(alone).max())


@pytest.mark.parametrize("standardise", ["none", "z_score", "unit"])
def test_a_segment_without_any_channel_is_zeros(standardise):
    inputs = dataclasses.replace(ST_MEM, scaling="joint", standardise=standardise)
    nothing = np.zeros((1, 12, 2500), np.int16), np.zeros((1, 12, 2), np.float32)
    np.testing.assert_array_equal(prepare_input(*nothing, inputs), 0)


@pytest.mark.parametrize("inputs", [ST_MEM, Input(250.0, 2500, LEADS, "joint"), Input(250.0, 2500, LEADS, "unit")])
def test_physical_segments_give_what_stored_ones_give_but_for_the_stores_rounding(stored, inputs):
    expected = np.asarray(prepare_crops(*stored, inputs))
    found = np.asarray(prepare_physical(dequantise(*stored), inputs))
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_unknown_standardisation_is_refused(stored):
    with pytest.raises(UserError, match=r"data\.standardise"):
        prepare_input(*stored, Input(250.0, 2500, LEADS, "unit", standardise="whiten"))


# ---- random crops: a segment of rising numbers tells where it was cut

RAMP = Input(100.0, 1000, ("ecg",), "physical", crop_s=9.0)


@pytest.fixture(scope="module")
def starts():
    """A function from key and rows (B, M) to the first samples of their crops."""

    @jax.jit
    def of(key, row_BM):
        segment_BMCT = jnp.broadcast_to(jnp.arange(1000, dtype=jnp.int16), (*row_BM.shape, 1, 1000))
        scale_BMC2 = jnp.broadcast_to(jnp.array([0.0, 1.0]), (*row_BM.shape, 1, 2))
        batch = {"segment_BMCT": segment_BMCT, "scale_BMC2": scale_BMC2, "row_BM": row_BM}
        return prepare_batch(batch, RAMP, key)[..., 0, 0]

    return lambda key, row_BM: np.asarray(of(key, jnp.asarray(row_BM, jnp.uint32))).astype(int)


def test_crops_are_uniform_over_every_place_they_can_have(starts):
    found = starts(jax.random.key(0), np.arange(20_000).reshape(-1, 2))
    counts = np.bincount(found.ravel(), minlength=101)
    assert counts.size == 101
    assert abs(counts - 20_000 / 101).max() < 5 * np.sqrt(20_000 / 101)


def test_a_crop_is_a_function_of_key_row_and_member_alone(starts):
    key, row_BM = jax.random.key(0), np.arange(200).reshape(-1, 2)
    found = starts(key, row_BM)
    np.testing.assert_array_equal(starts(key, row_BM[::-1]), found[::-1])
    np.testing.assert_array_equal(starts(key, row_BM[7:9]), found[7:9])
    twice = starts(key, np.repeat(row_BM[:, :1], 2, axis=1))
    assert (twice[:, 0] != twice[:, 1]).mean() > 0.9
    assert (starts(jax.random.key(1), row_BM) != found).mean() > 0.9


def test_crops_and_augmentation_draw_from_different_keys(starts):
    key, row_BM = jax.random.key(0), np.arange(200).reshape(-1, 2)
    augmentations = jax.vmap(jax.vmap(lambda key: jax.random.randint(key, (), 0, 101)))(
        row_keys(key, jnp.asarray(row_BM, jnp.uint32))
    )
    assert (starts(key, row_BM) != np.asarray(augmentations)).mean() > 0.9


def test_without_a_key_the_crop_lies_in_the_middle(stored):
    batch = {"segment_BMCT": stored[0][:, None], "scale_BMC2": stored[1][:, None]}
    found = np.asarray(prepare_batch(batch, ST_MEM)[:, 0])
    np.testing.assert_array_equal(found, prepare_input(*stored, ST_MEM, 125))


@pytest.mark.parametrize(
    ("length", "samples", "crops", "expected"),
    [(2500, 2250, 3, [0, 125, 250]), (2500, 2250, 1, [125]), (10, 10, 2, [0, 0]), (101, 50, 4, [0, 17, 34, 51])],
)
def test_fixed_crops_are_spread_from_start_to_end(length, samples, crops, expected):
    assert fixed_starts(length, samples, crops) == expected


def test_tokens_of_the_crops_of_a_segment_come_one_after_the_other():
    tok_BLD = np.arange(2 * 3 * 4).reshape(6, 4, 1)  # two segments, three crops, four tokens
    np.testing.assert_array_equal(join_crops(tok_BLD, 3)[..., 0], [np.arange(12), np.arange(12, 24)])
    np.testing.assert_array_equal(join_crops(tok_BLD, 1), tok_BLD)


def test_cropping_and_filtering_on_eight_devices_move_no_segment():
    mesh = make_mesh(8, 1, 1)
    placed = NamedSharding(mesh, P("data"))
    shapes = {"segment_BMCT": ((16, 2, 12, 2500), "int16"), "scale_BMC2": ((16, 2, 12, 2), "float32")}
    batch = {name: jax.ShapeDtypeStruct(*shape, sharding=placed) for name, shape in shapes.items()}
    batch["row_BM"] = jax.ShapeDtypeStruct((16, 2), "uint32", sharding=placed)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def random_and_fixed(batch, key):
        with rows_on(mesh):
            fixed = prepare_crops(batch["segment_BMCT"][:, 0], batch["scale_BMC2"][:, 0], ST_MEM)
            return prepare_batch(batch, ST_MEM, key), fixed

    compiled = jax.jit(random_and_fixed, out_shardings=placed).lower(batch, key).compile()
    assert count_collectives(compiled.as_text()).by_kind == {}
