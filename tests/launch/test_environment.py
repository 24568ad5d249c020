"""What a process is set to before JAX is imported: flags of XLA and where compiled programs are kept."""

import subprocess
import sys

import pytest

from launch import environment


def test_environment_refuses_to_come_too_late():
    with pytest.raises(RuntimeError, match="after JAX was imported"):
        environment.configure()


def configured(repository, code, **variables):
    """Return what a fresh process prints that was configured for a deterministic run with a cache in ~/compiled."""
    code = (
        f"from launch.environment import configure; configure(deterministic=True, compile_cache='~/compiled'); {code}"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, env=variables, check=True
    )
    return said.stdout.split()


def test_environment_keeps_the_callers_flags_and_sets_its_own(repository):
    flags = {"XLA_FLAGS": "--xla_gpu_exclude_nondeterministic_ops=false"}
    assert configured(repository, "import os; print(os.environ['XLA_FLAGS'])", **flags) == [
        "--xla_gpu_exclude_nondeterministic_ops=false",
        "--xla_cpu_collective_call_terminate_timeout_seconds=600",
    ]


def test_the_installed_jax_knows_the_flags_and_takes_the_cache(repository, tmp_path):
    """XLA ends a process whose flags it does not know."""
    code = "import jax; print(jax.device_count(), jax.config.jax_compilation_cache_dir)"
    home = {"HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    assert configured(repository, code, **home) == ["1", f"{tmp_path}/compiled"]
    named = home | {"JAX_COMPILATION_CACHE_DIR": f"{tmp_path}/elsewhere"}
    assert configured(repository, code, **named) == ["1", f"{tmp_path}/elsewhere"]
