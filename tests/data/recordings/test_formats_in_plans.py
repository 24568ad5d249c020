"""A preparation of every format goes through the file of its plan: shares and other processes make the same store."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import edfio
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import vitaldb
from prepared import beating_signals, bytes_of, small_config
from small_files import write_csv, write_frames
from test_dicom_files import group, write_dicom
from test_ecg_xml_files import aecg

from jaxbio.data.prepare import prepare_share, prepare_store
from jaxbio.data.recordings import FORMATS, parse_source
from jaxbio.data.runners import parse_runner
from jaxbio.data.shares import parse_share
from jaxbio.data.store import open_store

RATE_HZ = 500.0  # that of the DICOM and XML files that other tests write
SECONDS = 20


class Written(NamedTuple):
    """How a format's file of one ECG in mV is written, its suffix, and what the source line says of it."""

    write: Callable[[Path, np.ndarray], object]
    suffix: str
    query: str = ""


def write_vital(path, ecg_N):
    file = vitaldb.VitalFile()
    file.dtstart, file.dtend = 1_600_000_000.0, 1_600_000_000.0 + SECONDS
    file.devs["SNUADC"] = vitaldb.utils.Device("SNUADC")
    records = [{"dt": file.dtstart + k, "val": part} for k, part in enumerate(ecg_N.astype("<f4").reshape(SECONDS, -1))]
    file.trks["SNUADC/II"] = vitaldb.utils.Track(
        "II", 1, fmt=1, unit="mV", srate=RATE_HZ, dname="SNUADC", recs=records, col=0
    )
    assert file.to_vital(str(path), compresslevel=1)


def write_hdf5(path, ecg_N):
    with h5py.File(path, "w") as file:
        file["II"] = ecg_N
        file["II"].attrs.update({"fs": RATE_HZ, "units": "mV"})


def write_edf(path, ecg_N):
    edfio.Edf([edfio.EdfSignal(ecg_N.astype(float), RATE_HZ, label="II", physical_dimension="mV")]).write(path)


def write_arrow(path, ecg_N):
    table = pa.table({"II": ecg_N})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def leads(ecg_N):
    """Return two leads as integers, lead II the second."""
    return np.rint(np.stack([ecg_N, ecg_N]) * 500).astype(int)


def write_wfdb(path, ecg_N):
    write_frames(path.parent, path.stem, [f"{path.stem}.dat 16 500/mV 16 0 0 0 0 II"], [leads(ecg_N)[1]],
                 f"{path.stem} 1 {RATE_HZ} {len(ecg_N)}")  # fmt: skip


COLUMN = f"?rate_hz={RATE_HZ}"
WRITTEN = {
    "wfdb": Written(write_wfdb, ".hea"),
    "csv": Written(lambda path, ecg_N: write_csv(path, {"II": ecg_N}), ".csv", COLUMN),
    "text": Written(lambda path, ecg_N: np.savetxt(path, ecg_N), ".txt", f"{COLUMN}&columns=ecg:1"),
    "numpy": Written(lambda path, ecg_N: np.savez(path, II=ecg_N, rate_hz=RATE_HZ), ".npz"),
    "edf": Written(write_edf, ".edf"),
    "vital": Written(write_vital, ".vital"),
    "hdf5": Written(write_hdf5, ".h5"),
    "mat": Written(lambda path, ecg_N: scipy.io.savemat(path, {"II": ecg_N, "fs": RATE_HZ}), ".mat"),
    "pickle": Written(
        lambda path, ecg_N: path.write_bytes(pickle.dumps({"signal": {"II": ecg_N}})), ".pkl", f"?rates=ecg:{RATE_HZ}"
    ),
    "parquet": Written(lambda path, ecg_N: pq.write_table(pa.table({"II": ecg_N}), path), ".parquet", COLUMN),
    "arrow": Written(write_arrow, ".arrow", COLUMN),
    "dicom": Written(lambda path, ecg_N: write_dicom(path, [group(leads(ecg_N).T)]), ".dcm"),
    "xml": Written(lambda path, ecg_N: path.write_text(aecg(leads(ecg_N))), ".xml"),
}


@pytest.fixture(scope="module")
def config():
    return small_config(
        data__channels=("ecg",), data__segment_s=10.0, prepare__shard_bytes=1, prepare__split=(1.0, 0.0, 0.0)
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict:
    """Two files of each format, and their sources."""
    root = tmp_path_factory.mktemp("formats")
    for name, written in WRITTEN.items():
        (root / name).mkdir()
        for number in range(2):
            ecg_N = beating_signals(number, SECONDS, RATE_HZ)["II"]
            written.write(root / name / f"r{number}{written.suffix}", ecg_N)
    return {name: parse_source(f"{name}:{root / name}{written.query}") for name, written in WRITTEN.items()}


def test_every_format_is_written_here():
    assert set(WRITTEN) == {name for name, format in FORMATS.items() if format.on_disk}


@pytest.mark.parametrize("name", WRITTEN)
def test_two_shares_make_the_store_of_one_preparation(tmp_path, sources, config, name):
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    prepare_store([sources[name]], config, whole, progress=False)
    store = open_store(whole)
    assert (len(store.shards), store.manifest["account"]["recordings_kept"]) == (4, 2)
    left = [
        prepare_share([sources[name]], config, shared, parse_share(share), progress=False)[0]
        for share in ("0/2", "1/2")
    ]
    assert left == [2, 0]
    assert bytes_of(shared) == bytes_of(whole)


@pytest.mark.slow
def test_workers_of_dask_make_the_store_of_one_preparation(tmp_path, sources, config, soak):
    pytest.importorskip("distributed")
    with soak["cluster"](tmp_path / "cluster") as workers:
        for out, runner in (("whole", None), ("clustered", parse_runner(f"dask:{workers.address}"))):
            prepare_store(list(sources.values()), config, tmp_path / out, runner=runner, progress=False)
    assert bytes_of(tmp_path / "clustered") == bytes_of(tmp_path / "whole")
