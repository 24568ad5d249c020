"""Pipes, devices, holes and bombs in a source: refused and counted, soon, in little memory."""

import gzip
import os
import re
import socket
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from small_files import NAMES, write_csv, write_record

from jaxbio.data.recordings import RecordingError, list_recordings, parse_source

QUERIES = {"a.csv": "csv:{}?rate_hz=50", "a.hea": "wfdb:{}", "a.npy": "numpy:{}?rate_hz=50", "a.npz": "numpy:{}"}


def listed(line: str):
    return list_recordings(parse_source(line), NAMES)


@pytest.mark.parametrize("in_folder", [True, False])
@pytest.mark.parametrize("name", QUERIES)
def test_pipes_are_refused_unopened(tmp_path, name, in_folder):
    os.mkfifo(tmp_path / name)
    (entry,) = listed(QUERIES[name].format(tmp_path if in_folder else tmp_path / name))
    assert (entry.reason, "no regular file" in entry.detail) == ("not_a_recording", True)


def test_sockets_devices_and_links_to_them_are_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "a.csv"))
        (entry,) = listed(f"csv:{tmp_path}?rate_hz=50")
        assert entry.reason == "not_a_recording"
    (entry,) = listed("csv:/dev/zero?rate_hz=50")
    assert entry.reason == "not_a_recording"
    (tmp_path / "b.csv").symlink_to("/dev/zero")
    assert {entry.reason for entry in listed(f"csv:{tmp_path}?rate_hz=50")} == {"not_a_recording", "outside_source"}


def test_what_is_beside_a_pipe_is_read(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    write_csv(tmp_path / "b.csv", {"PPG": np.arange(100)})
    refused, read = listed(f"csv:{tmp_path}?rate_hz=50")
    assert (refused.recording, read.recording) == ("a.csv", "b")


@pytest.mark.parametrize("name", ["r1.dat", "s.hea", "s.dat"])
def test_pipes_in_the_place_of_data_and_segments_are_refused(tmp_path, name):
    write_record(tmp_path, "r1")
    write_record(tmp_path, "s")
    (tmp_path / "m.hea").write_text("m/2 2 125 15000\nr1 7500\ns 7500\n")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    entries = {entry.recording: entry for entry in listed(f"wfdb:{tmp_path}")}
    with pytest.raises(RecordingError) as caught:
        entries["m"].read(0.0, 120.0, ["ecg"])
    assert caught.value.reason == "not_a_recording"
    assert np.isnan(caught.value.rest["ecg"]).sum() == 7500  # the other segment is read


def test_a_pipe_that_takes_the_place_of_a_listed_file_is_not_waited_for(tmp_path):
    for line, path in (
        (f"csv:{tmp_path}?rate_hz=50", write_csv(tmp_path / "a.csv", {"PPG": np.arange(100)})),
        (f"numpy:{tmp_path}?rate_hz=50&columns=ppg:1", tmp_path / "a.npy"),
    ):
        if path.suffix == ".npy":
            np.save(path, np.arange(100.0))
        (entry,) = [entry for entry in listed(line) if not hasattr(entry, "reason")]
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(RecordingError) as caught:
            entry.read(0.0, 1.0, ["ppg"])
        assert caught.value.reason == "not_a_recording"
        path.unlink()


def sparse(path: Path, content: bytes, size: int) -> None:
    path.write_bytes(content)
    os.truncate(path, size)


def test_files_that_are_almost_all_hole_are_refused_with_their_seconds(tmp_path):
    frames = 300 * 86_400 * 125
    (tmp_path / "r.hea").write_text(f"r 1 125 {frames}\nr.dat 16 200/mV 16 0 0 0 0 II\n")
    sparse(tmp_path / "r.dat", np.arange(5000, dtype="<i2").tobytes(), 2 * frames)
    (entry,) = listed(f"wfdb:{tmp_path}")
    assert (entry.reason, entry.duration_s) == ("truncated_file", 300 * 86_400.0)
    np.save(tmp_path / "a.npy", np.zeros(0))
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**9,)})
        file.truncate(file.tell() + 4 * 10**9)
    (entry,) = listed(f"numpy:{tmp_path}?rate_hz=125&columns=ppg:1")
    assert (entry.reason, "were ever written" in entry.detail) == ("truncated_file", True)
    sparse(tmp_path / "a.csv", b"PPG\n" + b"1\n2\n" * 100, 10**11)
    (entry,) = listed(f"csv:{tmp_path}?rate_hz=125")
    assert entry.reason == "truncated_file"


def test_a_recording_with_a_hole_in_it_is_read(tmp_path):
    """Copies may leave out zeros: half a recording of zeros is no reason to refuse it."""
    signal = np.random.default_rng(0).integers(-99, 99, 20_000_000).astype("<i2")
    with (tmp_path / "r.dat").open("wb") as file:
        signal.tofile(file)
        file.truncate(2 * file.tell())
    (tmp_path / "r.hea").write_text("r 1 500\nr.dat 16 200/mV 16 0 0 0 0 II\n")
    (recording,) = listed(f"wfdb:{tmp_path}")
    assert recording.duration_s == 80_000.0


# Peak memory of listing and reading the first minute, in a process of its own.
PROGRAM = r"""
import re, sys
from jaxbio.data.recordings import RecordingError, list_recordings, parse_source
before = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
for entry in list_recordings(parse_source(sys.argv[1]), {"ppg": ("PLETH", "PPG")}):
    outcome = getattr(entry, "reason", "")
    if not outcome:
        try:
            entry.read(0.0, min(60.0, entry.duration_s), ["ppg"])
            outcome = "read"
        except RecordingError as error:
            outcome = error.reason
    print(outcome, int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) - before)
"""


def outcome(line: str, repository) -> tuple[str, float, float]:
    """Return what became of a source of one file, the memory in MiB and the seconds that it took."""
    began = time.monotonic()
    command = [sys.executable, "-c", PROGRAM, line]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=repository, timeout=120)
    reason, kib = done.stdout.split()
    return reason, int(kib) / 1024, time.monotonic() - began


def gzip_bomb(path: Path) -> None:
    """Write 300 MiB of text in 300 kB, without ever holding them."""
    block = b"1\n" * 2**19
    packer = zlib.compressobj(9, wbits=31)
    with path.open("wb") as file:
        file.write(packer.compress(b"PPG\n"))
        for _ in range(300):
            file.write(packer.compress(block))
        file.write(packer.flush())


def npz_bomb(path: Path) -> None:
    """Write an entry of 300 MiB of zeros in 300 kB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        np_header = path.with_suffix(".header")
        with np_header.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": (300 * 2**18,)}
            )
        with archive.open("PLETH.npy", "w", force_zip64=True) as entry:
            entry.write(np_header.read_bytes())
            for _ in range(300):
                entry.write(bytes(2**20))
        np_header.unlink()
        with archive.open("rate_hz.npy", "w") as entry:
            np.lib.format.write_array(entry, np.float64(125.0))


def test_bombs_are_refused_soon_and_in_little_memory(tmp_path, repository):
    gzip_bomb(tmp_path / "a.csv.gz")
    reason, mib, seconds = outcome(f"csv:{tmp_path}?rate_hz=125", repository)
    assert (reason, mib < 200) == ("unreadable_file", True), (mib, seconds)
    npz_bomb(tmp_path / "a.npz")
    reason, mib, seconds = outcome(f"numpy:{tmp_path}?rate_hz=125", repository)
    assert (reason, mib < 200) == ("unreadable_file", True), (mib, seconds)


def test_archives_that_lie_about_their_sizes_are_named(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", PLETH=np.arange(5000.0), rate_hz=125.0)
    content = (tmp_path / "a.npz").read_bytes()
    for match in re.finditer(rb"PK\x01\x02", content):  # claim 3 GB unpacked, in the directory
        at = match.start()
        lying = content[: at + 24] + (3 * 2**30).to_bytes(4, "little") + content[at + 28 :]
        (tmp_path / "a.npz").write_bytes(lying)
        for entry in listed(f"numpy:{tmp_path}?rate_hz=125"):
            assert getattr(entry, "reason", "unreadable_file") == "unreadable_file" or entry.channels


def test_text_that_compresses_well_is_still_read(tmp_path):
    """A flat signal of hours shrinks a hundredfold, and is a recording."""
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"PPG\n" + b"512\n" * 2_000_000))
    (recording,) = listed(f"csv:{tmp_path}?rate_hz=125")
    assert recording.duration_s == 16_000.0
