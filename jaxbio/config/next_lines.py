"""Command lines that a command tells its user to type next: quoted, so that they work when they are pasted.

say_next(python("tools/export_params.py", "--workdir", workdir, "--out", workdir / "export"))
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

_COMMANDS = ("launch", "tools")  # folders of the clone that hold commands


def python(script: str, *words: object) -> str:
    """Return the line that runs `script`, a path in the clone, with `words`, from where the user is now.

    The interpreter is called `python` where the user's shell finds this one by that name.
    """
    return shlex.join([_interpreter(), str(_root() / script), *map(str, words)])


def python_code(code: str) -> str:
    """Return the line that runs `code`, for a user in the clone or with jaxbio installed."""
    return shlex.join([_interpreter(), "-c", code])


def say_next(*lines: str) -> None:
    """Print the lines to standard error under the word Next."""
    print("Next:   " + "\n        ".join(lines), file=sys.stderr)


def _interpreter() -> str:
    found = shutil.which("python")
    return "python" if found is not None and os.path.abspath(found) == sys.executable else sys.executable


def _root() -> Path:
    """Return the clone as the user would write it: nothing in it, else its whole path."""
    folder = Path(sys.argv[0]).resolve().parent
    if folder.name not in _COMMANDS or folder.parent == Path.cwd():
        return Path()
    return folder.parent
