"""Arrays of a file by their paths: which are signals, what they are called, and which numbers are their rates.

What a format finds is a `Leaf` by its path. An array with one long axis is a signal of that path; of two long axes the
longer is time, and the signals are PATH/1, PATH/2, ...; of three the first counts as well: PATH/1/1, PATH/1/2, ...

    signals = dict(lines_of("ecg", Leaf((12, 5000))))      # "ecg/1" ... "ecg/12", each a Line of 5,000 samples
"""

import fnmatch
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxbio.data.recordings.recording import RecordingError

RATE_NAMES = ("rate_hz", "fs", "sampling_rate", "sampling_frequency", "srate", "sfreq", "freq")
MOST_LEAVES = 2**20  # arrays of a file
MOST_LINES = 2**22  # signals of a file: a million windows of four
_MOST_SIGNALS = 1000  # of a recording: a square matrix is none
_FEWEST_SAMPLES = 16


class Leaf(NamedTuple):
    """An array of real numbers in a file, or the `number` that it is; `where` tells its format where it lies."""

    shape: tuple[int, ...]
    where: Any = None
    number: float | None = None
    unit: str = ""


class Line(NamedTuple):
    """A signal of an array: its entries along `axis`, at the place `at` (0 on that axis)."""

    leaf: Leaf
    axis: int
    at: tuple[int, ...]

    @property
    def samples(self) -> int:
        """How many there are."""
        return self.leaf.shape[self.axis]


def lines_of(name: str, leaf: Leaf) -> Iterator[tuple[str, Line]]:
    """Yield the signals of an array by their paths."""
    if not count_lines(leaf):
        return
    time, others = _axes(leaf)
    for place in np.ndindex(*(leaf.shape[axis] for axis in others)):
        at = [0] * len(leaf.shape)
        for axis, number in zip(others, place):
            at[axis] = number
        yield "/".join([name, *(str(number + 1) for number in place)]), Line(leaf, time, tuple(at))


def count_lines(leaf: Leaf) -> int:
    """Return how many signals an array has."""
    long = sum(length > 1 for length in leaf.shape)
    if not 1 <= long <= 3:
        return 0
    time, others = _axes(leaf)
    if leaf.shape[time] < _FEWEST_SAMPLES or (len(others) == 1 and leaf.shape[others[0]] > _MOST_SIGNALS):
        return 0
    return math.prod(leaf.shape[axis] for axis in others)


def _axes(leaf: Leaf) -> tuple[int, list[int]]:
    """Return the axis of time, the longer of the last two long ones, and the other long ones."""
    long = [axis for axis, length in enumerate(leaf.shape) if length > 1]
    time = max(long[-2:], key=lambda axis: (leaf.shape[axis], axis))
    return time, [axis for axis in long if axis != time]


def split_path(name: str, each: str | None) -> tuple[str, str] | None:
    """Return (recording, signal) of a path; None where it is of no recording."""
    if each is None:
        return "", name
    parts, wanted = name.split("/"), each.strip("/").split("/")
    if len(parts) < len(wanted) or not all(map(fnmatch.fnmatchcase, parts, wanted)):
        return None
    return "/".join(parts[: len(wanted)]), "/".join(parts[len(wanted) :]) or parts[-1]


def nearest_rate(name: str, numbers: Mapping[str, float]) -> float | None:
    """Return the number called as rates are that is nearest to a signal's path: beneath it, beside it, or above."""
    parts = name.split("/")
    for depth in range(len(parts), -1, -1):
        for called in RATE_NAMES:
            if (found := numbers.get("/".join([*parts[:depth], called]))) is not None:
                return found
    return None


def said_rate(said: str, group: str, numbers: Mapping[str, float], path: str) -> float:
    """Return the rate that the source line says: a number, or the path of one in the recording or the file."""
    try:
        return float(said)
    except ValueError:
        for name in (f"{group}/{said}", said):
            if (found := numbers.get(name.strip("/").casefold())) is not None:
                return found
    raise RecordingError("bad_rate", path, f"has no number {said!r}; it has {', '.join(list(numbers)[:12]) or 'none'}")
