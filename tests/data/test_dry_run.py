"""What `prepare_store.py --dry_run` says of a preparation, and that it makes none."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from prepared import bytes_of, prepare, write_archive

from jaxbio.config.faults import UserError

FIELDS = ("--config.prepare.split=(0.5, 0.3, 0.2)", "--config.prepare.shard_bytes=400000")


def words(repository: Path, out: Path) -> list[str]:
    recipe = str(repository / "configs/qualityfm_base.py")
    return ["--config", recipe, *FIELDS, "--dry_run", "--out", str(out)]


def test_dry_run_writes_nothing(tmp_path, repository):
    archive = write_archive(tmp_path / "archive", 24)
    line = [sys.executable, str(repository / "tools/prepare_store.py"), *words(repository, tmp_path / "store")]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    line += ["--source", f"numpy:{archive}"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["recordings"] == 24
    assert said["shards"] >= 12
    assert not (tmp_path / "store").exists()


def test_dry_run_counts_recordings_of_one_name_in_two_sources_and_of_an_addition_what_is_new(tmp_path, repository):
    main = runpy.run_path(str(repository / "tools/prepare_store.py"))["main"]
    one, other = (write_archive(tmp_path / name, 2, minutes=1.2) for name in ("one", "other"))
    store = prepare(one, tmp_path / "store")
    before = bytes_of(store.path)
    line = [*words(repository, store.path), "--source", f"numpy:{one}"]
    assert main([*line, "--source", f"numpy:{other}"])["recordings"] == 4
    planned = main([*line, "--source", f"numpy:{other}", "--add"])
    assert (planned["recordings"], planned["segments_at_most"]) == (2, 4)
    assert main([*line, "--add"])["recordings"] == 0
    with pytest.raises(UserError, match=r"prepare\.block_h.*prepared with"):
        main([*line, "--add", "--config.prepare.block_h=0.5"])
    assert bytes_of(store.path) == before
