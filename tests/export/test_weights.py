import logging

import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.export import weights


def tree():
    rng = np.random.default_rng(0)
    return {
        "params": {"dense": {"kernel": rng.normal(size=(3, 4)).astype(np.float32), "bias": np.zeros(4, np.float32)}},
        "batch_stats": {"mean": rng.normal(size=7), "count": np.int32(5) * np.ones((), np.int32)},
    }


def test_written_weights_read_back_bit_for_bit(tmp_path):
    weights.write_weights(tmp_path / "w.safetensors", tree())
    found = weights.flatten_tree(weights.read_weights(tmp_path / "w.safetensors"))
    expected = weights.flatten_tree(tree())
    assert list(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_flatten_and_unflatten_are_inverse():
    flat = weights.flatten_tree(tree())
    assert list(flat) == ["batch_stats/count", "batch_stats/mean", "params/dense/bias", "params/dense/kernel"]
    assert weights.flatten_tree(weights.unflatten_tree(flat)).keys() == flat.keys()


def test_a_key_with_the_separator_is_refused():
    with pytest.raises(ValueError, match="separator"):
        weights.flatten_tree({"a/b": np.zeros(1)})


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_a_file_cut_short_is_named(tmp_path, kept):
    path = tmp_path / "w.safetensors"
    weights.write_weights(path, tree())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"w\.safetensors.*copy it again"):
        weights.read_weights(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        weights.read_weights(tmp_path / "nowhere.safetensors")


def test_every_mismatch_is_listed_and_the_first_five_shown(caplog):
    expected = {f"layer{n}/kernel": np.zeros((2, 3)) for n in range(6)}
    found = {"layer0/kernel": np.zeros((3, 2)), "layer1/kernel": np.zeros((2, 3)), "other/bias": np.zeros(4)}
    with caplog.at_level(logging.ERROR), pytest.raises(weights.WeightsMismatch) as caught:
        weights.match_weights(found, expected, "a file")
    assert len(caught.value.mismatches) == 6  # four missing, one unknown, one of another shape
    message = str(caught.value)
    assert "6 names or shapes" in message
    assert sum(mismatch in message for mismatch in caught.value.mismatches) == 5
    assert "and 1 more" in message
    for mismatch in caught.value.mismatches:
        assert mismatch in caplog.text
    assert "layer0/kernel is (3, 2), expected (2, 3)" in caplog.text


def test_equal_names_and_shapes_match():
    weights.match_weights(weights.flatten_tree(tree()), weights.flatten_tree(tree()), "a file")
