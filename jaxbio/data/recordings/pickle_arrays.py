"""The NumPy arrays of a pickle, without running it: where their bytes lie in the file, by the keys that lead there.

A pickle is a program. Here nobody runs it (see `pickle_machine`, `pickle_values`): nothing that a file asks for is
imported or called, and arrays are found without being read, so that a gigabyte is walked through in a moment.

    leaves_of("S2/S2.pkl")      # {"signal/chest/ECG": Leaf((4255300, 1), ...), ...}
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxbio.data.recordings.array_paths import Leaf
from jaxbio.data.recordings.pickle_machine import Machine
from jaxbio.data.recordings.pickle_operations import Bytes, operations_of
from jaxbio.data.recordings.pickle_values import Array, Pairs, Type, dtype_of
from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.regular_files import open_regular

_MOST_STEPS = 2**18  # paths within containers
_DEEPEST = 24  # containers within containers, which may hold one another


class Where(NamedTuple):
    """Where an array's bytes lie, of which type they are, and in which order of axes ("C" or "F")."""

    content: Bytes
    dtype: str
    order: str


def leaves_of(path: str) -> dict[str, Leaf]:
    """Return the arrays of real numbers in a pickle's dictionaries, lists and tuples, by path."""
    with open_regular(path) as file:
        machine = Machine()
        for name, argument in operations_of(file, path):
            machine.follow(name, argument)
    leaves: dict[str, Leaf] = {}
    for steps, (name, found) in enumerate(_walk(machine.stack[-1])):
        if steps > _MOST_STEPS:
            raise RecordingError("not_a_recording", path, f"more than {_MOST_STEPS:,} values, or endless ones")
        if isinstance(found, Array) and (leaf := _leaf(found, name, path)) is not None:
            leaves[name] = leaf
        elif type(found) in (int, float):
            leaves[name] = Leaf((), number=float(found))
    return leaves


def _walk(found: Any) -> Iterator[tuple[str, Any]]:
    """Yield what lies within containers by its path, as often as paths lead there."""
    levels: list[Iterator[tuple[str, Any]]] = [iter([("", found)])]
    while levels:
        step = next(levels[-1], None)
        if step is None:
            levels.pop()
            continue
        yield step
        if len(levels) <= _DEEPEST:
            levels.append(_parts(*step))


def _parts(name: str, found: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(found, (list, tuple)) or isinstance(found, Bytes):
        return
    pairs = zip(found[::2], found[1::2]) if isinstance(found, Pairs) else enumerate(found, 1)
    for key, part in pairs:
        called = key.text if isinstance(key, Bytes) else str(key) if type(key) is int else ""
        if called:
            yield f"{name}/{called}".lstrip("/"), part


def _leaf(array: Array, name: str, path: str) -> Leaf | None:
    """Return an array of real numbers, None for any other; raises RecordingError for one shorter than its shape."""
    match array.state:
        case _, shape, Type() as kind, in_columns, Bytes() as content if (dtype := dtype_of(kind)) is not None:
            if not all(type(length) is int and length > 0 for length in shape):
                return None
            if math.prod(shape) * dtype.itemsize > content.length:
                raise RecordingError("truncated_file", path, f"{name!r} is shorter than its shape {shape}")
            return Leaf(shape, Where(content, dtype.str, "F" if in_columns else "C"))
    return None
