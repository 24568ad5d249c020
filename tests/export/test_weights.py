import json
import logging
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from jaxbio.config.faults import UserError
from jaxbio.export import weights
from jaxbio.export.torch_import import read_reference


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


def write_safetensors(path, entries, data=b""):
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


TYPES = {
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}


@pytest.mark.parametrize("kind", TYPES)
def test_floats_of_every_width_are_read_and_widened_for_the_reference(tmp_path, kind):
    values = np.array([[0.5, 1, 2], [4, 8, 16]]).astype(TYPES[kind])
    entry = {"dtype": kind, "shape": [2, 3], "data_offsets": [0, values.nbytes]}
    path = write_safetensors(tmp_path / "w.safetensors", {"weight": entry}, values.tobytes())
    assert weights.read_flat_weights(path)["weight"].dtype == values.dtype
    found = read_reference(path)["weight"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.astype(np.float32))


@pytest.mark.parametrize(("kind", "size"), [("C64", 48), ("F4", 3), ("F6_E2M3", 4.5), ("F6_E3M2", 4.5), ("I4", 3)])
def test_types_that_no_network_has_are_named(tmp_path, kind, size):
    entry = {"dtype": kind, "shape": [8] if size == 4.5 else [6], "data_offsets": [0, 6 if size == 4.5 else size]}
    path = write_safetensors(tmp_path / "w.safetensors", {"weight": entry}, bytes(entry["data_offsets"][1]))
    with pytest.raises(UserError, match=rf"w\.safetensors.*{kind}"):
        weights.read_flat_weights(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**31], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [2**31], "data_offsets": [0, 2**33]},
        {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [4] + [1] * 100, "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": "4", "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]},
        {"dtype": "F32", "shape": [4]},
        {"dtype": 32, "shape": [4], "data_offsets": [0, 16]},
        [[[]]],
        None,
    ],
)
def test_a_header_that_claims_what_is_not_there_is_refused_unread(tmp_path, entry):
    data = bytes(0 if isinstance(entry, dict) and entry.get("data_offsets") == [0, 0] else 16)
    path = write_safetensors(tmp_path / "w.safetensors", {"weight": entry}, data)
    with pytest.raises(UserError, match=r"w\.safetensors"):
        weights.read_flat_weights(path)


def test_two_arrays_may_not_be_the_same_bytes(tmp_path):
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    path = write_safetensors(tmp_path / "w.safetensors", {f"weight{n}": entry for n in range(1000)}, bytes(16))
    with pytest.raises(UserError, match=r"w\.safetensors"):
        weights.read_flat_weights(path)


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b/c", "a"), ("a/b", "a/b/c/d")])
def test_an_array_and_a_folder_of_one_name_are_refused(tmp_path, names):
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors_numpy.save({name: np.zeros(1, np.float32) for name in names}))
    with pytest.raises(UserError, match="beginning of other names"):
        weights.read_weights(path)


def test_ten_thousand_strange_names_are_a_thousand_lines_of_printable_text(caplog):
    found = {f"{n:05d}\x1b[31m\n" + "x" * 1000: np.zeros(1) for n in range(10_000)}
    with caplog.at_level(logging.ERROR), pytest.raises(weights.WeightsMismatch) as caught:
        weights.match_weights(found, {}, "a file")
    assert "and 9000 more" in caplog.records[-1].getMessage()
    assert len(caplog.records) == 1001
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 5000


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
