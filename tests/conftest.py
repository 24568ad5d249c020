"""What every test shares: eight simulated devices, strict ranks, and where real recordings and reference arrays lie."""

import os
import runpy
import sys
from pathlib import Path
from typing import Any

from simulated import xla_flags

# Before JAX is imported by any test. Most of a test's time is the compiler's, so what one test, worker or run has
# compiled the next one finds. Not the user's own cache.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "cuda" not in os.environ["JAX_PLATFORMS"]:  # a GPU is asked with the code that users get
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags(8)}".strip()

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [
    str(ROOT),
    *(str(ROOT / "tests" / room) for room in ("data", "training", "objectives", "planning")),
]  # small stores, small runs, small steps


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `JAX_PLATFORMS=cuda python -m pytest -m gpu` ask a GPU for the references' numbers, too."""
    if "cuda" in os.environ["JAX_PLATFORMS"]:
        for item in items:
            if "parity_dir" in getattr(item, "fixturenames", ()):
                item.add_marker("gpu")


def _folder(variable: str) -> Path:
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set: it names the folder this test reads")
    folder = Path(os.environ[variable])
    assert folder.is_dir(), f"{variable} = {folder} is no folder"
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real recordings, from JAXBIO_DATA."""
    return _folder("JAXBIO_DATA")


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """The folder of reference arrays, from JAXBIO_PARITY."""
    return _folder("JAXBIO_PARITY")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository, for tests that run commands."""
    return ROOT


@pytest.fixture
def soak(repository) -> dict[str, Any]:
    """The names of tools/soak_prepare.py: a cluster of dask and its like."""
    return runpy.run_path(str(repository / "tools/soak_prepare.py"))
