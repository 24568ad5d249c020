"""Whatever a reader raises costs its own recording, and nothing of a format leaves the source's folder."""

import functools
import math
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from prepared import small_config, write_archive
from small_files import NAMES

from jaxbio.data.prepare import prepare_store
from jaxbio.data.recordings import FORMATS, Refused, list_recordings, numpy_files, parse_source
from jaxbio.data.store_files import RECORDINGS

SUFFIXES = {
    "wfdb": ".hea",
    "csv": ".csv",
    "text": ".txt",
    "numpy": ".npy",
    "edf": ".edf",
    "vital": ".vital",
    "hdf5": ".h5",
    "mat": ".mat",
    "pickle": ".pkl",
    "parquet": ".parquet",
    "arrow": ".arrow",
    "dicom": ".dcm",
    "xml": ".xml",
}


def failing(function, name):
    """Return `function`, failing for one recording as no reader should."""

    @functools.wraps(function)
    def failing(*arguments):
        if any(name in str(argument) for argument in arguments):
            raise ZeroDivisionError("a fault of ours")
        return function(*arguments)

    return failing


@pytest.mark.parametrize("fails", ["_recording", "_load_entry"])
def test_any_exception_in_listing_or_reading_is_a_counted_rejection(tmp_path, monkeypatch, fails):
    archive = write_archive(tmp_path / "archive", 4)
    if fails == "_load_entry":  # also reads the rate, which the source line gives here
        monkeypatch.setattr(numpy_files, "_look_into", functools.cache(numpy_files._look_into))
        for path in archive.iterdir():
            numpy_files._look_into(str(path))
    monkeypatch.setattr(numpy_files, fails, failing(getattr(numpy_files, fails), "r002"))
    source = parse_source(f"numpy:{archive}?rate_hz=100")
    account = prepare_store([source], small_config(), tmp_path / "store", progress=False)["account"]
    assert account["recordings_kept"] == 3
    lost_s = account["rejected_s"]["unreadable_file"]
    assert lost_s == (0.0 if fails == "_recording" else 120.0)
    assert account["kept_s"] + math.fsum(account["rejected_s"].values()) == account["total_s"]
    rows = pq.read_table(tmp_path / "store" / RECORDINGS).to_pylist()
    (row,) = [row for row in rows if row["outcome"] == "unreadable_file"]
    assert "r002" in row["detail"]
    assert "ZeroDivisionError: a fault of ours" in row["detail"]


def test_every_format_is_here():
    assert set(SUFFIXES) == {name for name, format in FORMATS.items() if format.on_disk}


@pytest.mark.parametrize("name", SUFFIXES)
def test_links_out_of_the_folder_pipes_and_empty_files_are_refused_in_every_format(tmp_path, name):
    suffix, source = SUFFIXES[name], tmp_path / "source"
    source.mkdir()
    (tmp_path / f"secret{suffix}").write_bytes(np.zeros(100).tobytes())
    (source / f"a{suffix}").symlink_to(tmp_path / f"secret{suffix}")
    (source / "b").symlink_to("..")
    os.mkfifo(source / f"c{suffix}")
    (source / f"d{suffix}").touch()
    query = "?rate_hz=50" if "rate_hz" in FORMATS[name].options else ""
    found = list_recordings(parse_source(f"{name}:{source}{query}"), NAMES)
    assert all(isinstance(entry, Refused) for entry in found)
    reasons = {entry.recording.removesuffix(suffix): entry.reason for entry in found}
    assert reasons["a"] == reasons["b"] == "outside_source"
    assert reasons["c"] == "not_a_recording"
    assert reasons["d"] in ("empty_file", "unreadable_file", "not_a_recording")
