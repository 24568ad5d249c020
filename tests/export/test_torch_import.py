"""The reference's names both ways, and a reader of .pth files that brings nothing but tensors to life."""

import io
import logging
import os
import pickle
import sys
import time
import types
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from jaxbio.config.faults import UserError
from jaxbio.export import torch_pickle
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


# ---- files


def torch_name(module, name):
    """A stand-in that pickles by the name that PyTorch's own would have."""
    function = types.FunctionType((lambda *_: None).__code__, {}, name)
    function.__module__, function.__qualname__ = module, name
    return function


class Tensor:
    def __init__(self, array, storage="FloatStorage", offset=0, size=None, stride=None):
        self.array = np.asarray(array)
        self.storage, self.offset = storage, offset
        self.size = tuple(self.array.shape) if size is None else size
        steps = [step // self.array.itemsize for step in self.array.copy(order="C").strides]
        self.stride = tuple(steps) if stride is None else stride


class TorchPickler(pickle.Pickler):
    """Writes what torch.save writes, without PyTorch: tensors as calls by name, storages as references."""

    def __init__(self, file, modules):
        super().__init__(file, protocol=2)
        self.modules, self.storages = modules, []

    def persistent_id(self, value):
        if isinstance(value, tuple) and value[:1] == ("a storage",):
            tensor = value[1]
            self.storages.append(np.ascontiguousarray(tensor.array).tobytes())
            kind = getattr(self.modules["torch"], tensor.storage)
            return ("storage", kind, str(len(self.storages) - 1), "cpu", tensor.array.size)
        return None

    def reducer_override(self, value):
        if isinstance(value, Tensor):
            call = self.modules["torch._utils"]._rebuild_tensor_v2
            return call, (("a storage", value), value.offset, value.size, value.stride, False, OrderedDict())
        return NotImplemented


@pytest.fixture
def save(tmp_path, monkeypatch):
    """A function like torch.save(value, file)."""
    modules = {"torch": types.ModuleType("torch"), "torch._utils": types.ModuleType("torch._utils")}
    for name in ("FloatStorage", "HalfStorage", "BFloat16Storage", "LongStorage", "OddStorage"):
        setattr(modules["torch"], name, torch_name("torch", name))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        setattr(modules["torch._utils"], name, torch_name("torch._utils", name))

    def write(value, name="weights.pth"):
        with monkeypatch.context() as context:
            for module, stand_in in modules.items():
                context.setitem(sys.modules, module, stand_in)
            stream = io.BytesIO()
            pickler = TorchPickler(stream, modules)
            pickler.dump(value)
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("weights/data.pkl", stream.getvalue())
            archive.writestr("weights/byteorder", "little")
            for key, raw in enumerate(pickler.storages):
                archive.writestr(f"weights/data/{key}", raw)
        return tmp_path / name

    return write


def test_a_pth_gives_its_tensors_whatever_their_type_and_layout(save):
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(3, 4)).astype(np.float32)
    state = OrderedDict(
        plain=Tensor(plain),
        transposed=Tensor(plain, size=(4, 3), stride=(1, 4)),
        part=Tensor(plain, offset=5, size=(2, 2), stride=(4, 1)),
        half=Tensor(plain.astype(np.float16), "HalfStorage"),
        brain=Tensor(plain.astype(ml_dtypes.bfloat16), "BFloat16Storage"),
        count=Tensor(np.array(7), "LongStorage"),
    )
    state._metadata = OrderedDict(version=1)
    found = read_reference(save({"epoch": 3, "model": state, "note": "best"}), "model.")
    assert found.keys() == state.keys()
    np.testing.assert_array_equal(found["plain"], plain)
    np.testing.assert_array_equal(found["transposed"], plain.T)
    np.testing.assert_array_equal(found["part"], plain.ravel()[[5, 6, 9, 10]].reshape(2, 2))
    np.testing.assert_array_equal(found["half"], plain.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found["brain"], plain.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert found["count"] == 7
    assert {found[name].dtype for name in ("plain", "half", "brain")} == {np.dtype(np.float32)}


def test_a_pth_of_the_whole_model_equals_the_npz(save, arrays):
    path = save(OrderedDict({f"module.{name}": Tensor(array) for name, array in arrays.items()}))
    found = read_reference(path, "module.")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


class Call:
    """What a pickle with code looks like: loading it would call `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__, OrderedDict.fromkeys])
def test_code_is_refused_by_name_and_never_runs(save, tmp_path, function):
    mark = tmp_path / "it_ran"
    argument = f"open({str(mark)!r}, 'w')"
    path = save({"weight": Tensor(np.zeros(3, np.float32)), "more": Call(function, argument)})
    with pytest.raises(UserError, match=r"weights\.pth = .it asks for .*state_dict"):
        read_reference(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor(np.zeros(4, np.float32), size=(5,)),
        Tensor(np.zeros(4, np.float32), offset=4, size=(1,), stride=(1,)),
        Tensor(np.zeros(4, np.float32), offset=-1, size=(1,), stride=(1,)),
        Tensor(np.zeros(4, np.float32), size=(2, 2), stride=(9, 1)),
        Tensor(np.zeros(4, np.float32), size=(2, 2), stride=(-1, 1)),
        Tensor(np.zeros(4, np.float32), size=(2**20, 2**20), stride=(0, 0)),
        Tensor(np.zeros(4, np.float32), size=(2, 2), stride=(1,)),
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(save, tensor):
    with pytest.raises(UserError, match="tensor"):
        read_reference(save({"weight": tensor}))


def test_an_unknown_storage_is_refused(save):
    with pytest.raises(UserError, match=r"torch\.OddStorage"):
        read_reference(save({"weight": Tensor(np.zeros(4, np.float32), "OddStorage")}))


def write_raw(path, program, storages=(), packed=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr("weights/data.pkl", program)
        for key, raw in enumerate(storages):
            archive.writestr(f"weights/data/{key}", raw)
    return path


def test_dictionaries_that_hold_each_other_twice_are_refused_at_once(tmp_path):
    value = {"a": 1}
    for _ in range(39):
        value = {"a": value, "b": value}
    start_s = time.process_time()
    with pytest.raises(UserError, match="hold each other"):
        read_reference(write_raw(tmp_path / "a.pth", pickle.dumps(value, protocol=2)))
    assert time.process_time() - start_s < 2


def test_a_dictionary_that_holds_itself_is_refused(tmp_path):
    value = {}
    value["a"] = value
    with pytest.raises(UserError, match=r"a\.pth"):
        read_reference(write_raw(tmp_path / "a.pth", pickle.dumps(value, protocol=2)))


def test_a_dictionary_under_two_names_has_its_tensors_under_both(save):
    state = {"weight": Tensor(np.arange(3, dtype=np.float32))}
    path = save({"model": state, "best": state})
    for prefix in ("model.", "best."):
        np.testing.assert_array_equal(read_reference(path, prefix)["weight"], [0, 1, 2])


def test_two_tensors_of_one_name_are_refused(save):
    one, two = Tensor(np.zeros(1, np.float32)), Tensor(np.ones(1, np.float32))
    with pytest.raises(UserError, match=r"two tensors with the name a\.b"):
        read_reference(save({"a.b": one, "a": {"b": two}}))


def test_a_storage_that_is_packed_or_other_than_its_reference_says_is_refused(save):
    path = save({"weight": Tensor(np.zeros(4, np.float32))})
    with zipfile.ZipFile(path) as archive:
        program = archive.read("weights/data.pkl")
    assert read_reference(write_raw(path, program, [bytes(16)]))["weight"].shape == (4,)
    for storage, packed, says in [
        (bytes(16), zipfile.ZIP_DEFLATED, "compressed"),
        (bytes(20), zipfile.ZIP_STORED, "at most 16"),
        (bytes(12), zipfile.ZIP_STORED, "12 bytes, its reference says 16"),
    ]:
        with pytest.raises(UserError, match=says):
            read_reference(write_raw(path, program, [storage], packed))


def test_a_pickle_that_numbers_its_objects_beyond_its_length_is_refused(tmp_path):
    program = b"\x80\x02}r" + (2**31 - 1).to_bytes(4, "little") + b"."
    with pytest.raises(UserError, match="keeps an object number"):
        read_reference(write_raw(tmp_path / "a.pth", program))


@pytest.mark.parametrize("name", [*torch_pickle.NAMES, ("torch", "FloatStorage")])
@pytest.mark.parametrize("attribute", ["__doc__", "content", "__class__", "surplus"])
def test_a_pickle_cannot_change_what_its_reader_gives_it(tmp_path, name, attribute):
    before = [(given, given.__doc__, dict(vars(given))) for given in torch_pickle.NAMES.values()]
    state = b"(N}" + pickle.dumps(attribute, protocol=2)[2:-1] + pickle.dumps("poisoned", protocol=2)[2:-1] + b"st"
    program = b"\x80\x02c" + "\n".join(name).encode() + b"\n" + state + b"b0}."
    with pytest.raises(UserError, match=f"it sets {attribute}"):
        torch_pickle.read_tensors(write_raw(tmp_path / "a.pth", program))
    assert before == [(given, given.__doc__, dict(vars(given))) for given in torch_pickle.NAMES.values()]


@pytest.mark.parametrize("opcodes", [b"s", b"u"])
def test_keys_that_take_for_ever_to_hash_are_refused_at_once(tmp_path, opcodes):
    doubled = b")" + b"".join(b"q%c" % n + b"h%c\x86" % n for n in range(60))  # a tuple of the last one, twice
    program = {b"s": b"\x80\x02}" + doubled + b"Ns.", b"u": b"\x80\x02}(" + doubled + b"Nu."}[opcodes]
    start_s = time.process_time()
    with pytest.raises(UserError, match="neither texts nor numbers"):
        read_reference(write_raw(tmp_path / "a.pth", program))
    assert time.process_time() - start_s < 2


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (b"\x96" + (2**40).to_bytes(8, "little"), "unreadable"),
        (b"\x96" + bytes(8), "BYTEARRAY8"),
        (b"\x8b" + (2).to_bytes(4, "little") + b"\x01\x01", "LONG4"),
        (b"(NNd", "DICT"),
        (b"\x8f(N\x90", "EMPTY_SET"),
        (b"(N\x91", "FROZENSET"),
        (b"(icollections\nOrderedDict\n", "INST"),
        (b"ccollections\nOrderedDict\n)\x81", "NEWOBJ"),
        (b"\x82\x01", "EXT1"),
        (b"ccollections\nOrderedDict\n(]ta\x85R", "unreadable"),
        (b"ccollections\nOrderedDict\n]\x85R", "unreadable"),
        (b"c" + b"x" * 10**6 + b"\ny\n", "it asks for x"),
    ],
)
def test_what_no_torch_save_writes_is_refused_unread(tmp_path, program, says):
    with pytest.raises(UserError, match=says) as caught:
        read_reference(write_raw(tmp_path / "a.pth", b"\x80\x04" + program + b"."))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("axes", [65, 10**5])
def test_a_tensor_of_more_axes_than_there_are_is_refused_at_once(save, axes):
    with pytest.raises(UserError, match="malformed tensor"):
        read_reference(save({"weight": Tensor(np.zeros(4, np.float32), size=(2**31,) * axes, stride=(1,) * axes)}))


def test_tensors_that_share_a_storage_a_thousand_times_are_refused(save):
    tied = Tensor(np.zeros(10_000, np.float16), "HalfStorage")
    assert len(read_reference(save({str(n): tied for n in range(16)}))) == 16
    with pytest.raises(UserError, match="share their storages"):
        read_reference(save({str(n): tied for n in range(1000)}))


def test_storages_may_not_come_to_more_bytes_than_the_file(save):
    path = save({"weight": Tensor(np.zeros(1000, np.float32))})
    with zipfile.ZipFile(path) as archive:
        program = archive.read("weights/data.pkl")
    with pytest.raises(UserError, match=r"more bytes than the file"):
        read_reference(write_raw(path, program, [b""]))


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


BYTES_TYPES = [("float8_e4m3fn", np.float32), ("float8_e5m2", np.float32), ("uint16", np.uint16)]


@pytest.mark.parametrize(("name", "becomes"), BYTES_TYPES)
def test_a_type_that_its_tensor_names_is_read_from_a_storage_of_bytes(tmp_path, name, becomes):
    values = np.arange(6).astype(torch_pickle.TYPES[name])
    # What PyTorch writes: _rebuild_tensor_v3(storage, offset, size, stride, False, OrderedDict(), dtype)
    storage = b"(X\x07\x00\x00\x00storagectorch.storage\nUntypedStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    program = b"\x80\x02}X\x06\x00\x00\x00weightctorch._utils\n_rebuild_tensor_v3\n(" + storage
    program += b"K%ctQK\x00K\x02K\x03\x86K\x03K\x01\x86\x89" % values.nbytes
    program += b"ccollections\nOrderedDict\n)Rctorch\n%s\ntRs." % name.encode()
    found = read_reference(write_raw(tmp_path / "a.pth", program, [values.tobytes()]))
    assert found["weight"].dtype == becomes
    np.testing.assert_array_equal(found["weight"], np.arange(6).reshape(2, 3))
    with pytest.raises(UserError, match=r"a\.pth"):  # a storage that is no whole number of them, or too short
        read_reference(write_raw(tmp_path / "a.pth", program, [values.tobytes()[:-1]]))


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
def test_a_wrapped_model_equals_the_plain_one(save, arrays, wrapper):
    path = save(OrderedDict({f"{wrapper}{name}": Tensor(array) for name, array in arrays.items()}))
    found = trees_from_reference("qualityfm", read_reference(path), FIELDS)
    for name, array in flatten_tree(trees_from_reference("qualityfm", arrays, FIELDS)).items():
        np.testing.assert_array_equal(flatten_tree(found)[name], array)


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


def test_a_damaged_pth_gives_its_tensors_or_a_users_fault(save):
    weight = np.arange(64, dtype=np.float32)
    path = save({"weight": Tensor(weight)})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    for place, bit in zip(rng.integers(len(whole), size=300), rng.integers(8, size=300)):
        damaged.append(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
    refused = 0
    for raw in damaged:
        path.write_bytes(raw)
        try:
            found = read_reference(path)
        except UserError:
            refused += 1
        else:  # the flip met a date or a name that nobody reads
            np.testing.assert_array_equal(next(iter(found.values())), weight)
    assert refused > len(damaged) / 2


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
