"""The start of every command: what is forgotten or not there is a line, and Ctrl-C during imports is one too."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_recipe import TINY_RECIPE

ROOT = Path(__file__).resolve().parent.parent.parent
COMMANDS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("launch", "tools")
    for path in (ROOT / folder).glob("*.py")
    if "run_command(main)" in path.read_text()
)
LIMIT_S = 5.0


def fake_package(folder: Path, name: str, text: str) -> dict[str, str]:
    """Return surroundings in which `name` is a module of this text."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return os.environ | {"PYTHONPATH": str(folder)}


def error_lines(process) -> list[str]:
    assert "Traceback" not in process.stderr, process.stderr
    return [line for line in process.stderr.splitlines() if line.startswith("error: ")]


def test_there_are_commands():
    assert {"launch/run.py", "tools/prepare_store.py", "tools/evaluate.py"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_interrupt_during_imports_is_a_line(command, tmp_path):
    """The import is deaf as a library's own start is: it sits in C."""
    deaf = "import ctypes\nprint('importing', flush=True)\nwhile True:\n    ctypes.CDLL(None).sleep(60)\n"
    for package in ("psutil", "ml_collections"):  # of which every command imports one
        surroundings = fake_package(tmp_path / "fake", package, deaf)
    process = subprocess.Popen(
        [sys.executable, ROOT / command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < LIMIT_S
    assert process.returncode == (75 if command == "launch/run.py" else 130)
    assert said.strip() == "stopped by SIGINT: nothing was changed, what was there is kept; start the same line again"


def test_sigterm_before_the_launch_line_has_begun_asks_to_be_started_again(tmp_path):
    deaf = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    surroundings = fake_package(tmp_path / "fake", "ml_collections", deaf)
    line = [sys.executable, ROOT / "launch/run.py"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM" in process.communicate(timeout=60)[1]
    assert process.returncode == 75


@pytest.mark.parametrize("command", COMMANDS)
def test_forgotten_environment_is_a_line_that_says_what_to_type(command, tmp_path):
    bare = subprocess.run(
        [sys.executable, "-I", "-S", ROOT / command, "--help"], capture_output=True, text=True, cwd=tmp_path
    )
    (line,) = error_lines(bare)
    assert bare.returncode == 2
    assert f"is not installed for {sys.executable}" in line
    assert "source .venv/bin/activate" in line
    assert bare.stderr == line + "\n"


def test_environment_without_jax_is_a_line_and_nothing_is_written(tmp_path):
    absent = "raise ModuleNotFoundError(\"No module named 'jax'\", name='jax')\n"
    surroundings = fake_package(tmp_path / "fake", "jax", absent)
    line = ["launch/run.py", "--config", TINY_RECIPE, "--config.data.store=synthetic:96", "--workdir", tmp_path / "run"]
    process = subprocess.run([sys.executable, *line], capture_output=True, text=True, cwd=ROOT, env=surroundings)
    assert process.returncode == 2
    (said,) = error_lines(process)
    assert said.startswith("error: jax is not installed for ")
    assert not (tmp_path / "run").exists()


def test_module_of_ours_that_is_missing_is_a_failure_with_its_traceback():
    code = "import sys; sys.path.insert(0, '.'); from launch.begin import begin; begin(); import jaxbio.nowhere"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 1
    assert "Traceback" in process.stderr


def test_old_python_is_told_what_to_use():
    code = "import sys; sys.version_info = (3, 8, 0); from launch.begin import begin; begin()"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 2
    (line,) = error_lines(process)
    assert "Python 3.8, jaxbio needs 3.11 or newer" in line


@pytest.mark.parametrize("path", ["launch/begin.py", *COMMANDS])
def test_old_python_can_read_what_tells_it_so(path):
    ast.parse((ROOT / path).read_text(), feature_version=(3, 8))


@pytest.mark.parametrize(
    ("platforms", "preset", "words"),
    [
        ("cuda", "smoke", "JAX_PLATFORMS = 'cuda'"),
        ("cudda", "smoke", "JAX_PLATFORMS = 'cudda'"),
        ("cpu", "smoke,gpu", "mesh.platform = 'gpu': JAX finds no gpu on this machine"),
    ],
)
def test_devices_that_are_not_there_are_a_line_and_nothing_is_written(tmp_path, platforms, preset, words):
    line = ["launch/run.py", f"--config={ROOT}/configs/quickstart.py:{preset}", "--workdir", tmp_path / "run"]
    process = subprocess.run(
        [sys.executable, *line],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": platforms},
    )
    assert process.returncode == 2
    (said,) = error_lines(process)
    assert words in said
    assert list(tmp_path.iterdir()) == []
