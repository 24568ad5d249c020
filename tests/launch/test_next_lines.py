"""What commands print under Next works when it is pasted into a shell, whatever folders are called."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from simulated import xla_flags
from tiny_recipe import TINY_RECIPE

from jaxbio.config import next_lines

ROOT = Path(__file__).resolve().parent.parent.parent


def lines_under_next(said: str) -> list[str]:
    """Return the commands that stand under the word Next."""
    found = re.search(r"^Next:   (.*(?:\n {8}.*)*)", said, flags=re.MULTILINE)
    assert found, said
    return [line.strip() for line in found.group(1).splitlines()]


def paste(line: str, folder: Path) -> str:
    """Run a line in a shell, as its user would; return what it said on standard error."""
    surroundings = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": xla_flags(1)}
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr[-3000:]}"
    return done.stderr


def test_lines_are_quoted_and_name_this_interpreter_and_the_clone(monkeypatch, tmp_path):
    words = ("--out", "a [b] $c 'd' é")
    for folder, argument, script in (
        (ROOT, "launch/run.py", "tools/x.py"),
        (ROOT / "launch", "run.py", str(ROOT / "tools/x.py")),
        (tmp_path, str(ROOT / "tools/look.py"), str(ROOT / "tools/x.py")),
    ):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [argument])
        for path, interpreter in (("", sys.executable), (str(Path(sys.executable).parent), "python")):
            monkeypatch.setenv("PATH", path)
            assert shlex.split(next_lines.python("tools/x.py", *words)) == [interpreter, script, *words]


@pytest.mark.slow
def test_next_lines_of_a_preparation_a_run_and_an_export_work_when_pasted(tmp_path):
    folder = tmp_path / "it's [my] work"
    folder.mkdir()
    steps = ("--config.train.steps=6", "--config.eval.every_steps=6")
    config = ["--config", TINY_RECIPE, *steps]
    prepare = [sys.executable, ROOT / "tools/prepare_store.py", *config, "--source", "synthetic:96", "--out", "a store"]
    inspect, train = lines_under_next(paste(shlex.join(map(str, prepare)), folder))
    paste(inspect, folder)
    workdir = "runs/b & [c] #1"
    (export,) = lines_under_next(paste(f"{train} --workdir '{workdir}'", folder))
    (load,) = lines_under_next(paste(export, folder))
    paste(load, folder)
    assert {"report.html", "export"} <= {path.name for path in (folder / workdir).iterdir()}
    pairs = [sys.executable, ROOT / "tools/make_pairs.py", *config, "--store", "a store"]
    (again,) = lines_under_next(paste(shlex.join(map(str, pairs)), folder))
    assert "all 6 steps were done before" in paste(f"{again} --workdir '{workdir}'", folder)
