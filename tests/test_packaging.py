"""What is installed: the files of a wheel, and every extra with the tested versions. Both ask the package registry."""

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
EXTRAS = list(SETUP["options.extras_require"])
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Skip where no package registry can be reached."""
    folder = tmp_path_factory.mktemp("registry")
    asked = subprocess.run([*PIP, "download", "--no-deps", "--dest", folder, "setuptools>=70"], capture_output=True)
    if asked.returncode:
        pytest.skip("no package registry can be reached")


@pytest.mark.slow
def test_wheel_holds_every_module_the_marker_of_types_and_nothing_else(registry, tmp_path):
    """Built from a copy of what git tracks, because a build leaves a folder beside the sources."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = listed.splitlines()
    for name in names:
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clone" / name).write_bytes((ROOT / name).read_bytes())
    wheel = [*PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, tmp_path / "clone"]
    subprocess.run(wheel, check=True, capture_output=True, text=True)
    (path,) = tmp_path.glob("jaxbio-*.whl")
    held = {name for name in zipfile.ZipFile(path).namelist() if ".dist-info/" not in name}
    assert "jaxbio/py.typed" in held
    assert held == {name for name in names if name.startswith("jaxbio/")}


@pytest.mark.slow
def test_all_extras_resolve_together_with_the_tested_versions(registry):
    install = [*PIP, "install", "--dry-run", "--ignore-installed", "--quiet", "-c", ROOT / "constraints.txt"]
    asked = subprocess.run([*install, f"{ROOT}[{','.join(EXTRAS)}]"], capture_output=True, text=True, timeout=600)
    assert asked.returncode == 0, asked.stderr
    assert "does not provide the extra" not in asked.stderr
