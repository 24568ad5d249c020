"""The reference's names both ways, also behind wrappers, and the files that weights come in."""

import io
import logging
import os
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy
from torch_files import Call, Tensor

from jaxbio.config.faults import UserError
from jaxbio.export.torch_import import from_reference, read_reference, to_reference, trees_from_reference
from jaxbio.export.weights import WeightsMismatch, flatten_tree

FIELDS = {"width": 512, "layers": 1, "heads": 4, "feedforward": 32, "window": 8, "dropout": 0.1}


@pytest.fixture(scope="module")
def arrays(parity_dir):
    return read_reference(parity_dir / "qualityfm.npz", "student/")


# ---- names


def test_every_reference_array_has_one_place_and_the_way_back_is_exact(arrays):
    trees = trees_from_reference("qualityfm", arrays, FIELDS)
    assert len(arrays) == 60
    assert sum(leaf.size for leaf in flatten_tree(trees).values()) == 6_486_346
    assert all(leaf.dtype == np.float32 for leaf in flatten_tree(trees).values())
    back = to_reference("qualityfm", trees)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)


def test_their_query_key_and_value_come_first_and_our_heads_do(arrays):
    params = from_reference("qualityfm", arrays, FIELDS)["params"]
    kernel_NDHTK = params["transformer"]["blocks"]["attention"]["qkv"]["kernel"]
    in_proj = arrays["encoder.longformer_encoder.layers.0.self_attn.in_proj_weight"]
    np.testing.assert_array_equal(kernel_NDHTK[0, :, 3, 1], in_proj[512 + 3 * 128 : 512 + 4 * 128].T)


def test_an_encoder_alone_is_enough(arrays):
    encoder = {name: array for name, array in arrays.items() if name.startswith("encoder.")}
    assert trees_from_reference("qualityfm", encoder, FIELDS)["params"].keys() == {"encoder"}
    with pytest.raises(WeightsMismatch, match="missing encoder"):
        trees_from_reference("qualityfm", {k: v for k, v in arrays.items() if k not in encoder}, FIELDS)


def test_all_mismatches_are_listed_and_the_first_five_shown(arrays, caplog):
    wrong = dict(arrays)
    for layer in (1, 2, 3):
        del wrong[f"encoder.patch_embed.conv{layer}.bias"]
        wrong[f"encoder.patch_embed.norm{layer}.weight"] = np.zeros((1,), np.float32)
    wrong["surplus"] = np.zeros(3, np.float32)
    with caplog.at_level(logging.ERROR), pytest.raises(WeightsMismatch, match=r"7 names.*and 2 more") as error:
        trees_from_reference("qualityfm", wrong, FIELDS)
    assert len(error.value.mismatches) == 7
    assert len(caplog.records) == 7
    assert any("unknown surplus (3)" in line for line in error.value.mismatches)
    assert any("norm2.weight is (1), expected (51)" in line for line in error.value.mismatches)


def test_a_deeper_model_names_the_layers_it_misses(arrays):
    with pytest.raises(WeightsMismatch) as error:
        trees_from_reference("qualityfm", arrays, {**FIELDS, "layers": 2})
    assert len(error.value.mismatches) == 24
    assert all(".layers.1." in line for line in error.value.mismatches)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda array: array.astype(np.int8), "int8, no floats"),
        (lambda array: np.where(array == array.max(), np.nan, array), "not finite"),
        (lambda array: array.astype(np.float64) * 1e60, "not finite"),
        (lambda array: array.astype(np.complex64), "complex64, no floats"),
    ],
)
def test_weights_that_no_network_computes_with_are_named(arrays, change, says):
    name = "encoder.output_feature_layer.weight"
    with pytest.raises(UserError, match=f"{name}.*{says}"):
        trees_from_reference("qualityfm", {**arrays, name: change(arrays[name])}, FIELDS)


def test_what_is_not_finite_beside_the_weights_is_nobodys_business(arrays):
    trees_from_reference("qualityfm", {**arrays, "encoder.norm.num_batches_tracked": np.array(np.inf)}, FIELDS)


# ---- names behind wrappers


def named(path, arrays):
    match path.suffix:
        case ".npz":
            np.savez(path, **arrays)
        case ".safetensors":
            path.write_bytes(safetensors_numpy.save(arrays))
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        *[("module.encoder.weight", ""), ("_orig_mod.encoder.weight", ""), ("module._orig_mod.encoder.weight", "")],
        *[("_orig_mod.module.encoder.weight", ""), ("encoder._orig_mod.weight", ""), ("encoder.module.weight", "")],
        *[("module.encoder.weight", "module."), ("model.module.encoder.weight", "model.")],
        *[("module.model.encoder.weight", "model."), ("_orig_mod.model.encoder.weight", "module.model.")],
        *[("student/module.encoder.weight", "student/"), ("_fsdp_wrapped_module.encoder.weight", "")],
        *[("encoder.weight", ""), ("model.encoder.weight", "model.")],
    ],
)
def test_what_wrappers_add_to_names_is_taken_out(tmp_path, suffix, name, prefix):
    path = named(
        tmp_path / f"weights{suffix}", {name: np.arange(3, dtype=np.float32), "other": np.zeros(1, np.float32)}
    )
    found = read_reference(path, prefix)
    np.testing.assert_array_equal(found["encoder.weight"], [0, 1, 2])


def test_a_name_that_merely_ends_like_a_wrapper_is_kept(tmp_path):
    names = {"my_module.weight", "submodule.weight", "module_.weight", "encoder.modules.weight", "module"}
    path = named(tmp_path / "weights.npz", {name: np.zeros(1, np.float32) for name in names})
    assert read_reference(path).keys() == names


def test_two_names_that_are_one_without_wrappers_are_refused_until_one_is_chosen(tmp_path):
    arrays = {"module.weight": np.ones(1, np.float32), "weight": np.zeros(1, np.float32)}
    path = named(tmp_path / "weights.npz", arrays)
    with pytest.raises(UserError, match=r"weight.*two arrays have this name.*--prefix"):
        read_reference(path)
    assert read_reference(path, "module.")["weight"] == 1


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrapped_model_equals_the_plain_one(torch_save, arrays, wrapper):
    path = torch_save(OrderedDict({f"{wrapper}{name}": Tensor(array) for name, array in arrays.items()}))
    found = trees_from_reference("qualityfm", read_reference(path), FIELDS)
    for name, array in flatten_tree(trees_from_reference("qualityfm", arrays, FIELDS)).items():
        np.testing.assert_array_equal(flatten_tree(found)[name], array)


# ---- files


def test_a_pth_of_the_whole_model_equals_the_npz(torch_save, arrays):
    path = torch_save(OrderedDict({f"module.{name}": Tensor(array) for name, array in arrays.items()}))
    found = read_reference(path, "module.")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "hole"])
@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_what_is_no_written_file_is_refused_and_not_waited_for(tmp_path, kind, suffix):
    path = tmp_path / f"weights{suffix}"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "hole":
            with path.open("wb") as file:
                file.truncate(2**40)
    with pytest.raises(UserError, match=r"weights\.\w+ = '(no regular file|almost all hole)'"):
        read_reference(path)


def test_an_npz_that_claims_eight_gigabytes_is_refused_unread(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (2**31,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("weight.npy", stream.getvalue() + bytes(100))
    with pytest.raises(UserError, match=r"a\.npz.*weight.*shorter than its shape"):
        read_reference(tmp_path / "a.npz")


def test_other_files_are_refused(tmp_path):
    for name, content, remedy in [
        ("a.pth", b"\x80\x02", r"1\.6 or later"),
        ("a.npz", b"PK", "no whole .npz"),
        ("a.bin", b"", "a file of"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=remedy):
            read_reference(tmp_path / name)
    with pytest.raises(UserError, match="missing"):
        read_reference(tmp_path / "none.pth")


def test_an_npz_of_objects_is_refused_and_never_unpickled(tmp_path):
    mark = tmp_path / "it_ran"
    np.savez(tmp_path / "a.npz", weight=np.array([Call(open, str(mark), "w")], dtype=object))
    with pytest.raises(UserError, match="plain arrays"):
        read_reference(tmp_path / "a.npz")
    assert not mark.exists()


def test_an_unused_prefix_shows_how_the_names_begin(parity_dir):
    with pytest.raises(UserError, match=r"--prefix = 'pupil/'.*amplitude_BCS"):
        read_reference(parity_dir / "qualityfm.npz", "pupil/")
