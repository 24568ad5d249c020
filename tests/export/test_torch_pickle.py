"""A reader of .pth files that brings nothing but tensors to life, whatever a file asks for."""

import pickle
import time
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
from torch_files import Call, Tensor, write_raw

from jaxbio.config.faults import UserError
from jaxbio.export import torch_pickle
from jaxbio.export.torch_import import read_reference


def test_a_pth_gives_its_tensors_whatever_their_type_and_layout(torch_save):
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
    found = read_reference(torch_save({"epoch": 3, "model": state, "note": "best"}), "model.")
    assert found.keys() == state.keys()
    np.testing.assert_array_equal(found["plain"], plain)
    np.testing.assert_array_equal(found["transposed"], plain.T)
    np.testing.assert_array_equal(found["part"], plain.ravel()[[5, 6, 9, 10]].reshape(2, 2))
    np.testing.assert_array_equal(found["half"], plain.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found["brain"], plain.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert found["count"] == 7
    assert {found[name].dtype for name in ("plain", "half", "brain")} == {np.dtype(np.float32)}


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__, OrderedDict.fromkeys])
def test_code_is_refused_by_name_and_never_runs(torch_save, tmp_path, function):
    mark = tmp_path / "it_ran"
    argument = f"open({str(mark)!r}, 'w')"
    path = torch_save({"weight": Tensor(np.zeros(3, np.float32)), "more": Call(function, argument)})
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
def test_a_tensor_that_leaves_its_storage_is_refused(torch_save, tensor):
    with pytest.raises(UserError, match="tensor"):
        read_reference(torch_save({"weight": tensor}))


def test_an_unknown_storage_is_refused(torch_save):
    with pytest.raises(UserError, match=r"torch\.OddStorage"):
        read_reference(torch_save({"weight": Tensor(np.zeros(4, np.float32), "OddStorage")}))


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


def test_a_dictionary_under_two_names_has_its_tensors_under_both(torch_save):
    state = {"weight": Tensor(np.arange(3, dtype=np.float32))}
    path = torch_save({"model": state, "best": state})
    for prefix in ("model.", "best."):
        np.testing.assert_array_equal(read_reference(path, prefix)["weight"], [0, 1, 2])


def test_two_tensors_of_one_name_are_refused(torch_save):
    one, two = Tensor(np.zeros(1, np.float32)), Tensor(np.ones(1, np.float32))
    with pytest.raises(UserError, match=r"two tensors with the name a\.b"):
        read_reference(torch_save({"a.b": one, "a": {"b": two}}))


def test_a_storage_that_is_packed_or_other_than_its_reference_says_is_refused(torch_save):
    path = torch_save({"weight": Tensor(np.zeros(4, np.float32))})
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
def test_a_tensor_of_more_axes_than_there_are_is_refused_at_once(torch_save, axes):
    with pytest.raises(UserError, match="malformed tensor"):
        read_reference(
            torch_save({"weight": Tensor(np.zeros(4, np.float32), size=(2**31,) * axes, stride=(1,) * axes)})
        )


def test_tensors_that_share_a_storage_a_thousand_times_are_refused(torch_save):
    tied = Tensor(np.zeros(10_000, np.float16), "HalfStorage")
    assert len(read_reference(torch_save({str(n): tied for n in range(16)}))) == 16
    with pytest.raises(UserError, match="share their storages"):
        read_reference(torch_save({str(n): tied for n in range(1000)}))


def test_storages_may_not_come_to_more_bytes_than_the_file(torch_save):
    path = torch_save({"weight": Tensor(np.zeros(1000, np.float32))})
    with zipfile.ZipFile(path) as archive:
        program = archive.read("weights/data.pkl")
    with pytest.raises(UserError, match=r"more bytes than the file"):
        read_reference(write_raw(path, program, [b""]))


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


def test_a_damaged_pth_gives_its_tensors_or_a_users_fault(torch_save):
    weight = np.arange(64, dtype=np.float32)
    path = torch_save({"weight": Tensor(weight)})
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
