"""The loader's benchmark, and what it shows: reading by batch keeps up with raw array_record, the cache outruns it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from prepared import prepare, small_config, write_archive

from jaxbio.config import fields
from jaxbio.config.command_line import load_recipe
from jaxbio.data.order import make_order
from jaxbio.data.pairs import open_index
from jaxbio.data.prepare import prepare_store
from jaxbio.data.recordings import parse_source
from jaxbio.data.store import open_store


def run_bench(repository: Path, store: Path, *flags: str) -> dict:
    command = [sys.executable, str(repository / "tools/bench_loader.py")]
    command += ["--config", str(repository / "configs/qualityfm_base.py"), "--store", str(store), *flags]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return prepare(write_archive(folder / "archive", 8, minutes=5), folder / "store", small_config())


FEW = ("--steps", "2", "--repeats", "1", "--config.train.batch=16")


def test_bench_states_pairs_a_second_beside_raw_array_record(store, repository):
    flags = [*FEW, "--config.data.cache=host"]
    result = run_bench(repository, store.path, *flags)
    assert result["ratio_to_raw"] == pytest.approx(result["pairs_per_s"] / result["raw_pairs_per_s"])
    assert result["batch"] == result["pairs_per_step"] == 16
    assert result["cache_bytes"] == store.rows * 36_000


def test_a_batch_of_neighbourhoods_counts_the_pairs_among_its_segments(store, repository):
    flags = ["--config.data.batching=neighbourhoods", "--config.data.neighbourhood=(6,4)", "--config.data.streams=2"]
    result = run_bench(repository, store.path, *FEW, *flags)
    assert (result["batching"], result["batch"]) == ("neighbourhoods", 16)
    assert result["pairs_per_step"] > 16
    assert result["ratio_to_raw"] == pytest.approx(result["pairs_per_s"] / result["raw_pairs_per_s"])


@pytest.fixture(scope="module")
def real_store(data_dir, tmp_path_factory):
    """The ICU recordings that the figures in docs/benchmarks.md are of."""
    out = tmp_path_factory.mktemp("real") / "store"
    texts = [f"wfdb:{data_dir}/cinc2015_vt", f"text:{data_dir}/bidmc?time=Time [s]:s&glob=*_Signals.csv.gz"]
    prepare_store([parse_source(text) for text in texts], recipe(), out, workers=2, progress=False)
    return open_store(out)


def recipe():
    return load_recipe(str(Path(__file__).parents[2] / "configs/qualityfm_base.py"))


@pytest.mark.slow
def test_a_batch_of_64_of_real_pairs_mixes_at_least_30_recordings(real_store):
    index = open_index(real_store, recipe(), "train")
    order = make_order(len(index.rows_NM), 64, streams=fields.defaults().data.streams, seed=0)
    parts = [real_store.codes(name)[0].astype(np.int64) for name in ("source", "recording")]
    recording_R = parts[0] * 1_000_000 + parts[1]
    mixed = [np.unique(recording_R[index.rows_NM[order.draw(step)]]).size for step in range(200)]
    assert min(mixed) >= 30
