"""Channels that are dropped: never all, where they are stored, and keyed by the row."""

import jax
import numpy as np

from jaxbio.transforms.channel_subsets import drop_channels, keep_channels, kinds_alone, split_target
from jaxbio.transforms.prepare_input import Input, prepare_batch

ROWS, CHANNELS = 400, 3
INPUTS = Input(10.0, 20, ("ppg", "ecg", "abp"), "joint", standardise="z_score")


def make_batch():
    rng = np.random.default_rng(0)
    scale_BMC2 = np.tile(np.float32([0.5, 1e-4]), (ROWS, 1, CHANNELS, 1))
    segment_BMCT = rng.integers(-32767, 32767, (ROWS, 1, CHANNELS, 20)).astype(np.int16)
    scale_BMC2[:100, :, 0, 1], segment_BMCT[:100, :, 0] = 0, 0  # a channel that the first rows lack
    return {
        "segment_BMCT": segment_BMCT,
        "scale_BMC2": scale_BMC2,
        "row_BM": np.arange(ROWS, dtype=np.uint32)[:, None],
    }


def test_some_channels_are_dropped_never_all_and_as_often_as_asked():
    batch = make_batch()
    dropped = jax.jit(lambda key: drop_channels(batch, 0.6, key, INPUTS))(jax.random.key(0))
    left_BC = np.asarray(dropped["scale_BMC2"])[:, 0, :, 1] > 0
    assert left_BC.any(axis=1).all()
    lost_B = left_BC[100:].sum(axis=1) < CHANNELS
    assert abs(lost_B.mean() - 0.6) < 0.1
    assert (np.abs(left_BC[100:][lost_B].mean(axis=0) - 0.5) < 0.15).all()  # one or two of three stay, alike
    gone_BCT = np.asarray(dropped["segment_BMCT"])[:, 0][~left_BC]
    assert not gone_BCT.any()


def test_a_row_loses_the_same_channels_in_any_batch():
    batch = make_batch()
    key = jax.random.key(0)
    whole = drop_channels(batch, 0.6, key, INPUTS)["scale_BMC2"]
    part = drop_channels({name: array[200:210] for name, array in batch.items()}, 0.6, key, INPUTS)["scale_BMC2"]
    np.testing.assert_array_equal(whole[200:210], part)


def test_a_dropped_channel_is_what_a_missing_one_is_to_every_statistic():
    batch = make_batch()
    lacking = {**batch, "segment_BMCT": batch["segment_BMCT"].copy(), "scale_BMC2": batch["scale_BMC2"].copy()}
    lacking["segment_BMCT"][:, :, 1], lacking["scale_BMC2"][:, :, 1] = 0, 0
    kept = keep_channels(batch, np.array([True, False, True]), INPUTS)
    np.testing.assert_array_equal(prepare_batch(kept, INPUTS), prepare_batch(lacking, INPUTS))


def test_features_go_with_the_lead_that_they_are_made_of():
    """Leads i, ii and abp, which is learnt, and two features behind them."""
    scale_BMC2 = np.tile(np.float32([0.5, 1e-4]), (ROWS, 1, 5, 1))
    batch = {
        "segment_BMCT": np.tile(np.arange(1, 6, dtype=np.int16)[:, None], (ROWS, 1, 1, 20)),
        "scale_BMC2": scale_BMC2,
        "row_BM": np.arange(ROWS, dtype=np.uint32)[:, None],
    }
    inputs = Input(10.0, 20, ("i", "ii"), "physical", features=("sdnn", "rmssd"), feature_scales=((0.0, 1.0),) * 2)
    shown, target_BT = split_target(batch, 2)
    assert np.asarray(shown["segment_BMCT"])[0, 0, :, 0].tolist() == [1, 2, 4, 5]
    np.testing.assert_allclose(target_BT, 0.5 + 3e-4, rtol=1e-6)
    for keep, left in (([True, False], [1, 0, 0, 0]), ([False, True], [0, 2, 4, 5])):
        kept = keep_channels(shown, np.array(keep), inputs)
        assert np.asarray(kept["segment_BMCT"])[0, 0, :, 0].tolist() == left
    dropped = drop_channels(shown, 1.0, jax.random.key(0), inputs)
    left_BC = np.asarray(dropped["scale_BMC2"])[:, 0, :, 1] > 0
    assert (left_BC[:, :2].sum(axis=1) == 1).all()
    np.testing.assert_array_equal(left_BC[:, 2:], left_BC[:, [1, 1]])


def test_kinds_are_told_apart_only_where_there_are_several():
    found = {kind: keep.tolist() for kind, keep in kinds_alone(("ppg", "ii", "v1")).items()}
    assert found == {"ppg": [True, False, False], "ecg": [False, True, True]}
    assert kinds_alone(("i", "ii")) == {}
