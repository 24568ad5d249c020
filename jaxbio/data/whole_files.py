"""Files that appear whole or not at all, whatever ends the process that writes them.

with whole_file(path) as unfinished:
    unfinished.write_text("...")
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".unfinished-"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield where to write; what lies there becomes `path` in one move, unless an exception leaves the block."""
    unfinished = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
