"""The peak of a process's memory is its own."""

import subprocess
import sys

import numpy as np

from jaxbio.config.peak_memory import peak_bytes

CHILD = "from jaxbio.config.peak_memory import peak_bytes; print(peak_bytes())"


def test_a_process_does_not_count_what_the_one_that_started_it_holds(repository):
    held = np.ones(2**26)  # 512 MiB
    assert peak_bytes() > held.nbytes
    said = subprocess.run([sys.executable, "-c", CHILD], cwd=repository, capture_output=True, text=True, check=True)
    assert 2**22 < int(said.stdout) < held.nbytes / 2
