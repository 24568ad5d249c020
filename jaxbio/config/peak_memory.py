"""How much of the host's memory this process has had at most.

peak_bytes()  # since it began
"""

import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """Return the largest memory that this process has held since it began, bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose getrusage would count the parent's peak before exec
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
