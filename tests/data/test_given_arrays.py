"""An .npz from anybody: what its headers claim is held against its bytes before anything is unpacked."""

import io
import os
import resource
import struct
import zipfile

import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.data.given_arrays import read_arrays
from jaxbio.data.seen import SEEN, Seen, read_seen

REMEDY = "name a file that exists"


def npy(shape, dtype="<f4", values=b"", order=False):
    """An array file whose header says `shape` and `dtype`, with `values` behind it."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": order, "shape": shape})
    return stream.getvalue() + values


def write(path, *entries, packed=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in entries:
            archive.writestr(f"{name}.npy", content)
    return path


def lie(path, name, size):
    """Write into the archive's directory that its entry unpacks into `size` bytes."""
    raw = bytearray(path.read_bytes())
    at = raw.rindex(name.encode()) - 46
    assert raw[at : at + 4] == b"PK\x01\x02"
    raw[at + 24 : at + 28] = struct.pack("<I", size)
    path.write_bytes(raw)
    return path


def refused(path, says):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=says) as caught:
        read_arrays(path, missing=REMEDY)
    assert path.name in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_numbers_are_read_whatever_their_shape_and_texts_are_left_out(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "a/b.c": rng.normal(size=(3, 4)).astype(np.float32),
        "columns": np.asfortranarray(rng.normal(size=(3, 4))),
        "none": np.zeros((0, 5), np.int8),
        "one": np.array(7),
        "mask": np.ones(3, bool),
        "wave": np.ones(2, np.complex64),
    }
    np.savez(tmp_path / "a.npz", text=np.array("x"), day=np.datetime64("2020-01-01"), **arrays)
    found = read_arrays(tmp_path / "a.npz", missing=REMEDY)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("shape", [(2**31,), (2**33,), (2**20, 2**12), (2**62, 2**62), (2**40, 1, 1), (26,)])
@pytest.mark.parametrize("packed", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_an_entry_shorter_than_its_shape_is_refused_unread(tmp_path, shape, packed):
    refused(
        write(tmp_path / "a.npz", ("weight", npy(shape, values=bytes(100))), packed=packed), "shorter than its shape"
    )


@pytest.mark.parametrize("dtype", ["<f8", "|i1", "<c16", "<U1000000", "|S1000000000"])
def test_an_entry_shorter_than_its_type_says_is_refused_unread(tmp_path, dtype):
    refused(write(tmp_path / "a.npz", ("weight", npy((2**30,), dtype, bytes(100)))), "shorter than its shape")


@pytest.mark.parametrize("size", [2**31, 2**32 - 2])
def test_an_entry_that_says_it_unpacks_into_gigabytes_is_refused_unread(tmp_path, size):
    path = write(tmp_path / "a.npz", ("weight", npy((size // 4 - 32,), values=bytes(1000))))
    refused(lie(path, "weight.npy", size), "unpacks into more than 200 times")


def test_an_entry_that_does_unpack_into_gigabytes_is_refused_unread(tmp_path):
    write(tmp_path / "a.npz", ("weight", npy((100 * 2**18,), values=bytes(100 * 2**20))))
    refused(tmp_path / "a.npz", "unpacks into more than 200 times")


def test_many_entries_may_not_unpack_into_what_one_may_not(tmp_path):
    zeros = npy((2**23,), values=bytes(2**25))
    refused(write(tmp_path / "a.npz", *((f"weight{n}", zeros) for n in range(3))), "unpacks into more than 200 times")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (npy((-1,)), "negative|shape"),
        (npy((3,), "|O", bytes(24)), "Python objects"),
        (npy((3,), "|V2", bytes(6)), "raw bytes"),
        (npy((1,), [("a", "<f4")], bytes(4)), "raw bytes"),
        (npy((2,))[:20], "cannot be read"),
        (b"", "cannot be read"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "cannot be read"),
        (b"\x93NUMPY\x09\x00" + npy((2,))[8:], "cannot be read"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{}", "cannot be read"),
        (b"weight", "cannot be read"),
    ],
)
def test_an_entry_that_is_no_array_of_numbers_is_named(tmp_path, content, says):
    refused(write(tmp_path / "a.npz", ("weight", content)), f"weight.*({says})")


def test_two_entries_of_one_name_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        write(tmp_path / "a.npz", *[("weight", npy((1,), values=bytes(4)))] * 2)
    refused(tmp_path / "a.npz", "two of one name")


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x05\x06" + bytes(18), b"x" * 1000])
def test_a_file_that_is_no_archive_holds_nothing(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    if content.startswith(b"PK\x05"):  # an archive of no entries is one
        assert read_arrays(tmp_path / "a.npz", missing=REMEDY) == {}
    else:
        refused(tmp_path / "a.npz", "no whole .npz")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "missing", "hole"])
@pytest.mark.parametrize("read", [lambda path: read_arrays(path, missing=REMEDY), read_seen])
def test_what_is_no_written_file_is_refused_and_not_waited_for(tmp_path, kind, read):
    path = tmp_path / SEEN
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "missing":
            path.symlink_to(tmp_path / "nowhere")
        case "hole":
            with path.open("wb") as file:
                file.truncate(2**40)
    with pytest.raises(UserError, match=r"seen\.npz = '(no regular file|missing|almost all hole)'"):
        read(path)


HASHES = np.arange(3, dtype=np.uint64)


@pytest.mark.parametrize(
    "changes",
    [
        *[{"subject": HASHES[::-1]}, {"segment": np.zeros(2, np.uint64)}, {"subject": HASHES.astype(np.int64)}],
        *[{"segment": HASHES[:, None]}, {"segment": np.uint64(3)}, {"complete": np.ones(2, bool)}, {"complete": 1}],
        *[{"subject": np.array("x")}, {"subject": HASHES.astype(np.float64)}, {"segment": None}],
    ],
)
def test_what_was_seen_is_rising_hashes_and_nothing_else(tmp_path, changes):
    Seen(HASHES, HASHES).write(tmp_path / SEEN)
    with np.load(tmp_path / SEEN) as stored:
        arrays = {**stored, **changes}
    np.savez(tmp_path / SEEN, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match=r"seen\.npz"):
        read_seen(tmp_path / SEEN)
