"""The reference's names both ways, and a reader of .pth files that brings nothing but tensors to life."""

import io
import logging
import pickle
import sys
import time
import types
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

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
