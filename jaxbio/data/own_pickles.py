"""Recordings on their way to another process, through a file: pickles that can name nothing but what jaxbio reads with.

A folder may have been begun by somebody else, so what is read there may make objects of this package and of NumPy's
arrays, and runs nothing.

    save(path, recordings)
    recordings = load(path.read_bytes())
"""

import io
import pickle
from pathlib import Path
from typing import Any

from jaxbio.data.whole_files import whole_file

_OWN = "jaxbio.data."
_NUMPY = ("numpy", "numpy.core.", "numpy._core.")
_PLAIN = {("builtins", name) for name in ("set", "frozenset", "complex", "slice", "range")}


def dump(content: Any) -> bytes:
    """Return `content` as bytes that `load` reads."""
    return pickle.dumps(content, protocol=5)


def save(path: Path, content: Any) -> None:
    """Write `content` to `path` in one move."""
    with whole_file(path) as unfinished:
        unfinished.write_bytes(dump(content))


def load(content: bytes) -> Any:
    """Return what `dump` was given; raises pickle.UnpicklingError where it names anything else."""
    return _Unpickler(io.BytesIO(content)).load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = None
        if module.startswith(_OWN) or (module, name) in _PLAIN:
            found = super().find_class(module, name)
        elif module.startswith(_NUMPY) and name in ("ndarray", "dtype", "scalar", "_reconstruct", "_frombuffer"):
            return super().find_class(module, name)
        if not isinstance(found, type):  # a function of ours could do anything
            raise pickle.UnpicklingError(f"names {module}.{name}, which is no part of a recording")
        return found
