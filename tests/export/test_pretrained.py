import os
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import resample

import jaxbio
from jaxbio.config.faults import UserError
from jaxbio.data.quantise import quantise
from jaxbio.data.seen import SEEN
from jaxbio.export import card as cards
from jaxbio.export import folder, weights
from jaxbio.models import ENCODERS
from jaxbio.transforms import scaling
from jaxbio.transforms.prepare_input import Input

RATE_HZ = 300.0


def signal(segments: float, rate_hz: float = RATE_HZ, seed: int = 0) -> np.ndarray:
    """Return slow waves of `segments` x 30 s below 20 Hz."""
    rng = np.random.default_rng(seed)
    t_T = np.arange(round(segments * 30 * rate_hz)) / rate_hz
    waves = [np.sin(2 * np.pi * (f_hz * t_T + rng.uniform())) / f_hz for f_hz in (1.2, 2.4, 3.7, 7.1, 15.3)]
    return 80 + 20 * sum(waves)


def cosine(a_BD: np.ndarray, b_BD: np.ndarray) -> np.ndarray:
    return (a_BD * b_BD).sum(-1) / np.linalg.norm(a_BD, axis=-1) / np.linalg.norm(b_BD, axis=-1)


@pytest.fixture(scope="module")
def model(export_folder):
    return jaxbio.load_pretrained(export_folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base encoder at random initialisation, exported and loaded."""
    module = ENCODERS["qualityfm"](width=512, layers=2, heads=4, feedforward=256, window=8, dropout=0.1)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 2, 9000)))
    inputs = Input(RATE_HZ, 9000, ("ppg", "ecg"), "per_channel")
    out = tmp_path_factory.mktemp("base") / "export"
    folder.write_export(out, module, variables, inputs=inputs, origin=folder.Origin("a test", "teacher"))
    return jaxbio.load_pretrained(out)


def test_one_vector_for_each_whole_segment(model):
    assert model.embed(ppg=signal(1), ecg=signal(1), rate_hz=RATE_HZ).shape == (1, 502)
    assert model.embed(ppg=signal(3.9), ecg=signal(3.9), rate_hz=RATE_HZ).shape == (3, 502)


def test_recordings_come_one_after_the_other_in_time_order(model):
    first, second = signal(2, seed=1), signal(2, seed=2)
    together = model.embed(ppg=np.stack([first, second]), rate_hz=RATE_HZ)
    apart = [model.embed(ppg=x, rate_hz=RATE_HZ) for x in (first[:9000], first[9000:], second[:9000], second[9000:])]
    np.testing.assert_allclose(together, np.concatenate(apart), atol=1e-5)


def test_embed_is_the_mean_over_tokens_of_the_segment_as_the_store_holds_it(model):
    ppg, ecg = signal(1, seed=3), signal(1, seed=4)
    segment_BCT, scale_BC2 = quantise(np.stack([ppg, ecg])[None])
    x_BCT = scaling.scale(jnp.asarray(segment_BCT), jnp.asarray(scale_BC2), "per_channel")
    tok_BLD = model.encode(x_BCT)
    assert tok_BLD.shape == (1, 18, 502)
    found = model.embed(ppg=ppg, ecg=ecg, rate_hz=RATE_HZ)
    np.testing.assert_allclose(found, np.asarray(tok_BLD).mean(axis=1), atol=1e-5)


@pytest.mark.parametrize("missing", ["ppg", "ecg"])
def test_a_missing_channel_gets_zeros_after_scaling(model, missing):
    assert model.card.missing_channel == "zeros"
    present = {"ppg": "ecg", "ecg": "ppg"}[missing]
    x_BCT = np.zeros((1, 2, 9000), np.float32)
    segment_BCT, _ = quantise(signal(1)[None, None])
    x_BCT[0, ("ppg", "ecg").index(present)] = segment_BCT[0, 0] / 32767
    found = model.embed(**{present: signal(1), "rate_hz": RATE_HZ})
    np.testing.assert_allclose(found, np.asarray(model.encode(x_BCT)).mean(axis=1), atol=1e-5)


def test_a_channel_that_does_not_move_is_a_missing_one(model):
    flat = model.embed(ppg=signal(1), ecg=np.full(9000, 7.0), rate_hz=RATE_HZ)
    np.testing.assert_array_equal(flat, model.embed(ppg=signal(1), rate_hz=RATE_HZ))


def test_units_do_not_matter(model):
    found = model.embed(ppg=signal(1), ecg=1e-3 * signal(1, seed=1) - 5, rate_hz=RATE_HZ)
    np.testing.assert_allclose(found, model.embed(ppg=signal(1), ecg=signal(1, seed=1), rate_hz=RATE_HZ), atol=1e-3)


@pytest.mark.parametrize("rate_hz", [62.4725, 100, 125.0, 250, 500.0, 1000])
def test_a_segment_at_any_rate_is_embedded_alike(model, rate_hz):
    found = model.embed(ppg=signal(1, rate_hz), ecg=signal(1, rate_hz, seed=1), rate_hz=rate_hz)
    expected = model.embed(ppg=signal(1), ecg=signal(1, seed=1), rate_hz=RATE_HZ)
    assert cosine(found, expected).min() >= 0.98


def test_a_segment_at_125_and_at_300_hz_has_the_same_embedding_in_base(base):
    at_125 = np.stack([signal(1, 125, seed=seed) for seed in range(8)])
    at_300 = resample(at_125, 9000, axis=-1)
    found = base.embed(ppg=at_125, ecg=at_125[::-1], rate_hz=125)
    expected = base.embed(ppg=at_300, ecg=at_300[::-1], rate_hz=300)
    assert cosine(found, expected).min() >= 0.98
    # embeddings share a large mean, beside which even different segments look alike: take it out
    mean_D = expected.mean(axis=0)
    assert cosine(found - mean_D, expected - mean_D).min() >= 0.98
    assert cosine(np.roll(found, 1, axis=0) - mean_D, expected - mean_D).max() < 0.9


def test_each_channel_may_have_its_own_rate(model):
    found = model.embed(ppg=signal(2, 125), ecg=signal(2, 250, seed=1), rate_hz={"ppg": 125, "ecg": 250})
    expected = model.embed(ppg=signal(2), ecg=signal(2, seed=1), rate_hz=RATE_HZ)
    assert found.shape == (2, 502)
    assert cosine(found, expected).min() >= 0.98


@pytest.mark.slow
def test_base_embeds_a_hundred_segments_within_five_seconds_of_two_cores(base):
    start_s = time.process_time()  # of all cores, and of this process alone, whatever else the machine does
    assert base.embed(ppg=signal(100), ecg=signal(100, seed=1), rate_hz=RATE_HZ).shape == (100, 512)
    assert time.process_time() - start_s <= 2 * 5


X = signal(1)
COUNTS = np.round(20 * X).astype(np.int64)  # as a converter gives them
WITH_NAN = np.where(np.arange(9000) == 5, np.nan, X)


@pytest.mark.parametrize(
    ("signals", "says"),
    [
        ({"ppg": X}, r"rate_hz = None.*sampling rate of ppg"),
        ({"ppg": X, "rate_hz": 0}, r"rate_hz = 0.*above 0"),
        ({"ppg": X, "rate_hz": -125.0}, "above 0"),
        ({"ppg": X, "rate_hz": np.nan}, "above 0"),
        ({"ppg": X, "rate_hz": "300"}, "above 0"),
        ({"ppg": X, "rate_hz": {"ecg": 300}}, "sampling rate of ppg"),
        ({"rate_hz": 300}, "give at least one of ppg, ecg"),
        ({"eeg": X, "rate_hz": 300}, r"eeg = 'unknown channel'.*ppg, ecg"),
        ({"ppg": [[0.0, 1.0], [0.0]], "rate_hz": 300}, r"ppg = 'lists of unequal lengths'.*one by one"),
        ({"ppg": WITH_NAN, "rate_hz": 300}, "1 NaN or infinite samples"),
        ({"ppg": np.where(np.arange(9000) == 5, np.inf, X), "rate_hz": 300}, "1 NaN or infinite samples"),
        ({"ppg": X[:8900], "rate_hz": 300}, "shorter than one segment of 30 s"),
        ({"ppg": X, "rate_hz": 3000}, "shorter than one segment"),
        ({"ppg": np.zeros(0), "rate_hz": 300}, r"shape \(0,\)"),
        ({"ppg": X[None, None], "rate_hz": 300}, r"shape \(1, 1, 9000\).*\(recordings, samples\)"),
        ({"ppg": 3.0, "rate_hz": 300}, r"shape \(\)"),
        ({"ppg": X + 1j, "rate_hz": 300}, "real numbers"),
        ({"ppg": ["a", "b"], "rate_hz": 300}, "real numbers"),
        ({"ppg": X * 1e39, "rate_hz": 300}, r"values up to 1\.\d+e\+41.*float32"),
        ({"ppg": X * -1e300, "rate_hz": 300}, "float32"),
        ({"ppg": X * 1e36, "rate_hz": 300}, "float32"),
        ({"ppg": X.astype(np.longdouble) * np.longdouble(10) ** 4000, "rate_hz": 300}, "float32"),
        ({"ppg": X * 1e-40, "rate_hz": 300}, "a range of .*float32"),
        ({"ppg": X * 1e-300, "rate_hz": 300}, "a range of .*float32"),
        ({"ppg": COUNTS + 2**40, "rate_hz": 300}, "subtract its mean"),
        ({"ppg": COUNTS + 2**62, "rate_hz": 300}, "subtract its mean"),
        ({"ppg": COUNTS - 2**40, "rate_hz": 300}, "subtract its mean"),
        ({"ppg": (COUNTS + 2**40).astype(np.uint64), "rate_hz": 300}, "subtract its mean"),
        ({"ppg": X + 1e10, "rate_hz": 300}, "subtract its mean"),
        ({"ppg": np.stack([X, X + 1e10]), "rate_hz": 300}, "subtract its mean"),
        ({"ppg": np.ma.masked_less(X, X.mean()), "rate_hz": 300}, "NaN or infinite samples"),
        ({"ppg": X, "rate_hz": np.array([300])}, "above 0"),
        ({"ppg": X, "rate_hz": np.array(True)}, "above 0"),
        ({"ppg": X, "rate_hz": 1e-320}, "above 0"),
        ({"ppg": X, "rate_hz": 10**400}, "above 0"),
        ({"ppg": X, "rate_hz": 300 + 0j}, "above 0"),
        ({"ppg": X, "ecg": signal(2), "rate_hz": 300}, "channels span the same time"),
        ({"ppg": X, "ecg": X[None].repeat(2, 0), "rate_hz": 300}, "channels span the same time"),
    ],
)
def test_embed_refuses_what_it_cannot_mean(model, signals, says):
    with pytest.raises(UserError, match=says):
        model.embed(**signals)


@pytest.mark.parametrize("offset", [0, 2**20, 2**23, -(2**23)])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float64])
def test_an_offset_that_float32_holds_does_not_matter(model, offset, dtype):
    found = model.embed(ppg=(COUNTS + offset).astype(dtype), rate_hz=300)
    np.testing.assert_allclose(found, model.embed(ppg=COUNTS, rate_hz=300), atol=1e-3)


@pytest.mark.parametrize("factor", [1e-25, 1e-6, 1e6, 1e25])
def test_a_factor_that_float32_holds_does_not_matter(model, factor):
    found = model.embed(ppg=X * factor, ecg=X, rate_hz=300)
    np.testing.assert_allclose(found, model.embed(ppg=X, ecg=X, rate_hz=300), atol=1e-3)


def test_a_constant_that_arithmetic_left_its_last_bits_does_not_move(model):
    almost = np.where(np.arange(9000) % 2, 0.3, 0.1 + 0.2)
    assert almost.max() != almost.min()
    found = model.embed(ppg=X, ecg=almost, rate_hz=300)
    np.testing.assert_array_equal(found, model.embed(ppg=X, rate_hz=300))


@pytest.mark.parametrize(
    "rate_hz", [np.array(300), np.array(300.0), jnp.float32(300), jnp.int32(300), np.float16(300), np.int64(300)]
)
def test_a_number_of_any_make_is_a_rate(model, rate_hz):
    expected = model.embed(ppg=X, rate_hz=300)
    np.testing.assert_array_equal(model.embed(ppg=X, rate_hz=rate_hz), expected)
    np.testing.assert_array_equal(model.embed(ppg=X, rate_hz={"ppg": rate_hz}), expected)


@pytest.mark.parametrize(("samples", "tokens"), [(9000, 18), (500, 1), (128, 1), (100, 1)])
def test_no_segments_have_no_tokens(model, samples, tokens):
    assert model.encode(np.zeros((0, 2, samples))).shape == (0, tokens, 502)
    assert model.prepare(np.zeros((0, 2, samples))).shape == (0, 2, samples)


def test_all_faults_of_the_signals_come_together(model):
    with pytest.raises(UserError) as caught:
        model.embed(ppg=WITH_NAN, eeg=X, rate_hz=0)
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("x_BCT", "says"),
    [
        (np.zeros((2, 9000)), r"shape \(2, 9000\)"),
        (np.zeros((1, 3, 9000)), r"shape \(1, 3, 9000\).*ppg, ecg"),
        (np.full((1, 2, 9000), np.nan), "NaN"),
        (np.full((1, 2, 9000), 1e39), "beyond those of float32"),
        (np.full((1, 2, 9000), -1e300), "beyond those of float32"),
        (np.zeros((1, 2, 0)), "at least 1 samples"),
        (np.zeros((0, 2, 0)), "at least 1 samples"),
        (np.zeros((0, 3, 9000)), r"shape \(0, 3, 9000\)"),
        (np.zeros((1, 2, 9000), complex), "real numbers"),
        (np.full((1, 2, 9000), None), "real numbers"),
        (np.full((1, 2, 9000), "1"), "real numbers"),
    ],
)
def test_encode_refuses_other_shapes_and_nan(model, x_BCT, says):
    for take in (model.encode, model.prepare):
        with pytest.raises(UserError, match=says):
            take(x_BCT)


def test_loading_compares_the_encoder_with_its_example(export_folder, tmp_path):
    copy = shutil.copytree(export_folder, tmp_path / "export")
    x_BCT, tok_BLD = folder.read_example(copy, cards.read_card(copy))
    np.savez(copy / cards.EXAMPLE, x_BCT=x_BCT, tok_BLD=tok_BLD + 0.01)
    cards.write_card(copy, cards.read_card(copy), (cards.WEIGHTS, cards.PROGRAM, cards.EXAMPLE))
    with pytest.raises(UserError, match=r"example\.npz.*differs"):
        jaxbio.load_pretrained(copy)
    assert jaxbio.load_pretrained(copy, check=False).card.width == 502


GOOD = {"x_BCT": np.zeros((2, 2, 9000), np.float32), "tok_BLD": np.zeros((2, 18, 502), np.float32)}


@pytest.mark.parametrize(
    "changes",
    [
        *[{"x_BCT": None}, {"tok_BLD": None}, {"x_BCT": GOOD["x_BCT"][0]}, {"x_BCT": GOOD["x_BCT"][:, :1]}],
        *[{"x_BCT": GOOD["x_BCT"][..., :1]}, {"x_BCT": GOOD["x_BCT"][:0]}, {"tok_BLD": GOOD["tok_BLD"][:1]}],
        *[{"tok_BLD": GOOD["tok_BLD"][..., :1]}, {"tok_BLD": GOOD["tok_BLD"][:, :0]}, {"tok_BLD": np.float32(0)}],
        *[{"tok_BLD": GOOD["tok_BLD"][:, :9]}, {"x_BCT": GOOD["x_BCT"].astype(np.float64)}, {"x_BCT": np.array("x")}],
        *[{"x_BCT": GOOD["x_BCT"].astype(complex)}, {"tok_BLD": GOOD["tok_BLD"] + np.float32(np.nan)}],
        *[{"x_BCT": GOOD["x_BCT"] + np.float32(np.inf)}, {"x_BCT": np.array([{}])}, {"tok_BLD": GOOD["tok_BLD"] > 0}],
    ],
)
def test_an_example_of_other_names_shapes_or_types_is_refused(export_folder, tmp_path, changes):
    for file in (cards.WEIGHTS, cards.PROGRAM):
        (tmp_path / file).symlink_to(export_folder / file)
    arrays = {name: array for name, array in {**GOOD, **changes}.items() if array is not None}
    np.savez(tmp_path / cards.EXAMPLE, **arrays)
    cards.write_card(tmp_path, cards.read_card(export_folder), (cards.WEIGHTS, cards.PROGRAM, cards.EXAMPLE))
    with pytest.raises(UserError, match=r"example\.npz"):
        jaxbio.load_pretrained(tmp_path)


def test_an_example_of_zeros_is_compared_and_not_divided_by(export_folder, tmp_path):
    card, _, variables = folder.read_export(export_folder)
    (tmp_path / cards.PROGRAM).symlink_to(export_folder / cards.PROGRAM)
    weights.write_weights(tmp_path / cards.WEIGHTS, jax.tree.map(np.zeros_like, variables))
    np.savez(tmp_path / cards.EXAMPLE, **GOOD)
    cards.write_card(tmp_path, card, card.files)
    assert jaxbio.load_pretrained(tmp_path).check(tmp_path) == 0


def test_a_pipe_that_no_card_lists_is_not_waited_for(export_folder, tmp_path):
    os.mkfifo(tmp_path / SEEN)
    with pytest.raises(UserError, match=r"seen\.npz.*no regular file"):
        folder.read_seen(tmp_path)


def test_the_example_holds_to_1e_5(model, export_folder):
    assert model.check(export_folder) <= 1e-5


def test_a_model_says_what_it_is(model):
    assert repr(model).startswith("Pretrained(qualityfm, ")
    assert "ppg+ecg at 300 Hz, 30 s -> 502" in repr(model)
