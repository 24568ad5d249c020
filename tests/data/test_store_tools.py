"""The commands about stores: what they print, how they end, and that they name the user's faults."""

import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prepared import prepare, write_archive

RECIPE = "configs/qualityfm_base.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    prepare(write_archive(folder / "archive", 6), folder / "store")
    return folder / "store"


@pytest.fixture
def run(repository):
    def start(tool: str, *arguments: object) -> subprocess.CompletedProcess:
        line = [sys.executable, str(repository / "tools" / tool), *map(str, arguments)]
        surroundings = {**os.environ, "PYTHONPATH": str(repository)}
        return subprocess.run(line, env=surroundings, cwd=repository, capture_output=True, text=True, timeout=240)

    return start


def test_inspect_verifies_draws_and_counts(run, made):
    done = run("inspect_store.py", made)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["segments"] == sum(said["split"].values()) == 24
    assert Path(said["report"]).read_text().startswith("<!doctype html>")
    assert "Next:" not in done.stderr  # nobody has said what is to be trained on it


def test_inspect_with_a_recipe_says_how_to_train_on_the_store(made, repository, capsys):
    inspect = runpy.run_path(str(repository / "tools/inspect_store.py"))["main"]
    inspect([str(made), "--config", str(repository / RECIPE), "--config.train.steps=3"])
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Next:")]
    words = ["--config", str(repository / RECIPE), "--config.train.steps=3", f"--config.data.store={made}"]
    assert shlex.split(said)[3:] == words


def test_inspect_of_a_damaged_store_exits_2_and_names_the_shard(run, made, tmp_path):
    copy = Path(shutil.copytree(made, tmp_path / "store"))
    shard = next(copy.glob("*.array_record"))
    content = bytearray(shard.read_bytes())
    content[70_000] ^= 1
    shard.write_bytes(bytes(content))
    done = run("inspect_store.py", copy)
    assert done.returncode == 2
    assert shard.name in done.stderr
    assert "Traceback" not in done.stderr


def test_make_pairs_adds_an_index_beside_the_first(run, made):
    before = set((made / "index").iterdir())
    done = run("make_pairs.py", "--store", made, "--config", RECIPE, "--config.quality.variant=author")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {path.name for path in set((made / "index").iterdir()) - before} == {said["index"]}
    assert sum(said["pairs"].values()) > 0


def test_make_pairs_refuses_a_store_of_another_length(run, made):
    done = run("make_pairs.py", "--store", made, "--config", RECIPE, "--config.data.segment_s=10.0")
    assert done.returncode == 2
    assert "data.segment_s" in done.stderr


def test_prepare_names_every_fault_of_its_line_and_exits_2(run, tmp_path):
    done = run(
        "prepare_store.py",
        *("--config", RECIPE, "--config.pairs.max_gap_z=3", "--out", tmp_path / "s"),
        *("--source", "wfdb:/nowhere/at/all", "--workers", "many"),
    )
    assert done.returncode == 2
    assert "max_gap_s" in done.stderr  # the nearest known field
    assert "workers" in done.stderr
    sources = ("--source", "wfdb:/nowhere/at/all", "--source", "tape:x")
    done = run("prepare_store.py", "--config", RECIPE, *sources, "--out", tmp_path / "s")
    assert done.returncode == 2
    assert "/nowhere/at/all" in done.stderr
    assert "tape:x" in done.stderr
    assert not (tmp_path / "s").exists()


def test_bench_prepare_prints_segments_a_core_second(run, made):
    source = f"numpy:{made.parent / 'archive'}"
    done = run("bench_prepare.py", "--config", RECIPE, "--source", source, "--repeats", 1)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["segments"] == 24
    assert said["segments_per_s_per_core"] > 0
