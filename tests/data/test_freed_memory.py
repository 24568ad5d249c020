"""Arrays of megabytes that are made and freed again and again take the memory that is there."""

import ctypes
import os
import subprocess
import sys

import pytest

ROUNDS = """
import resource, sys
import numpy as np
from jaxbio.data.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for number in range(5):
    if number == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(6 * 2**20, np.float32) for _ in range(6)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(said, root) -> int:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ROUNDS, said], env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_used_again(repository):
    assert 10 * faults("kept", repository) < faults("left", repository)
