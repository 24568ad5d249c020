"""What must be in force before JAX is imported: the C library's allocator, XLA's flags, cache and logs.

    from launch import environment
    environment.configure()
    import jax

Knows no configuration and no model; imports neither JAX nor NumPy.
"""

import ctypes
import os
import sys
from typing import Any

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8

# Eight simulated devices on two cores: XLA ends a process whose collective waits longer than this.
_COLLECTIVE_TIMEOUT = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
# Not --xla_gpu_deterministic_ops, which also ends the search for the fastest kernel.
_DETERMINISTIC = "--xla_gpu_exclude_nondeterministic_ops=true"
_CACHE = "JAX_COMPILATION_CACHE_DIR"
_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # 1: without XLA's information lines; warnings stay

# libtpu as a compiler alone: nobody is asked what this machine is, and a run that holds the TPU is not disturbed.
_COMPILER_ONLY = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def configure(*, deterministic: bool = False, compile_cache: str | None = None) -> dict[str, Any]:
    """Put allocator, XLA settings and cache in force for this process; return what was set, for the log.

    `deterministic` asks XLA for run-to-run identical GPU kernels; `compile_cache` is the folder where JAX keeps
    compiled programs, None for none. Flags that the caller's XLA_FLAGS already names are left as they are, and so is a
    folder in JAX_COMPILATION_CACHE_DIR. Raises RuntimeError when JAX has been imported, because it would not read them
    any more.
    """
    if "jax" in sys.modules:
        raise RuntimeError("launch.environment.configure() was called after JAX was imported")
    flags = [_COLLECTIVE_TIMEOUT] + [_DETERMINISTIC] * deterministic
    asked = os.environ.get("XLA_FLAGS", "")
    added = [flag for flag in flags if flag.partition("=")[0] not in asked]
    os.environ["XLA_FLAGS"] = " ".join(filter(None, [asked, *added]))
    if compile_cache is not None:
        os.environ.setdefault(_CACHE, os.path.expanduser(compile_cache))
    os.environ.setdefault(_LOG_LEVEL, "1")
    return {
        "allocator": keep_large_buffers(),
        "XLA_FLAGS": os.environ["XLA_FLAGS"],
        "compile_cache": os.environ.get(_CACHE),
    }


def compile_only() -> None:
    """Keep JAX to the CPU, and libtpu from looking for a TPU, in a process that only compiles for one.

    The allocator is left as it is: what suits a step makes the compiler's threads wait for each other, a third of the
    time of a plan.
    """
    os.environ.update(_COMPILER_ONLY)
    os.environ.setdefault(_LOG_LEVEL, "1")


def keep_large_buffers() -> str:
    """Make glibc's allocator keep what XLA frees, instead of mapping and unmapping it at every step.

    On two cores that mapping took 20 to 25 % of a base step; resident memory may rise by a third. Returns what was
    done: "kept", or why nothing was.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        settings = [library.mallopt(_M_MMAP_MAX, 0), library.mallopt(_M_TRIM_THRESHOLD, -1)]
        settings.append(library.mallopt(_M_ARENA_MAX, 1))
    except (OSError, AttributeError):
        return "left alone: not glibc"
    return "kept" if all(settings) else "left alone: mallopt refused"
