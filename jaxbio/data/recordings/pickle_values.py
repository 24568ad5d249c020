"""What a pickle is followed on: arrays and types of our own, and things that stand for all else and do nothing.

Of all that a pickle may name only NumPy's arrays and types of numbers mean anything here.
"""

import re
from typing import Any

import numpy as np

from jaxbio.data.recordings.pickle_operations import UTF8, Bytes

_NUMBERS = re.compile(r"[iu][1248]|f[248]")


class Thing:
    """What a pickle names or makes, and nobody here needs."""

    def __init__(self, name: str = ""):
        self.name = name


class Type(Thing):
    """A type of numbers, by NumPy's name; its order of bytes is set later."""

    order = "<"


class Array(Thing):
    """An array, once its state is set: version, shape, Type, whether in Fortran's order, and Bytes."""

    state: tuple[Any, ...] = ()


class Pairs(list):
    """A dictionary: keys and values in turn."""


def make(called: Any, arguments: Any) -> Any:
    """Return what a call would make, where it makes an array, a type of numbers, or bytes; else a thing."""
    match getattr(called, "name", ""), arguments:
        case "numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct", _:
            return Array()
        case "numpy.core.numeric._frombuffer" | "numpy._core.numeric._frombuffer", (content, kind, shape, order):
            array = Array()
            array.state = (1, shape, kind, getattr(order, "text", "C") == "F", content)
            return array
        case "numpy.dtype", (Bytes() as code, *_):
            return Type(code.text)
        case "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar", (Type() as kind, Bytes() as content):
            return _scalar(kind, content)
        case "_codecs.encode", (Bytes() as text, *_):  # how Python 3 writes bytes for Python 2
            return text
    return Thing()


def set_state(made: Any, state: Any) -> None:
    """Give an array or a type the state that a pickle has for it; of anything else it is not looked at."""
    match made, state:
        case Array(), (_, tuple(), Type(), _, Bytes()):
            made.state = state
        case Type(), (_, Bytes() as order, *_):
            made.order = order.text


def _scalar(kind: Type, content: Bytes) -> Any:
    dtype = dtype_of(kind)
    if dtype is None or content.short is None or content.coding == UTF8 or len(content.short) != dtype.itemsize:
        return Thing()
    return np.frombuffer(content.short, dtype)[0].item()


def dtype_of(kind: Type) -> np.dtype | None:
    """Return a type as NumPy has it; None where it is none of real numbers."""
    order = kind.order if kind.order in "<>" else "<"
    return np.dtype(order + kind.name) if _NUMBERS.fullmatch(kind.name) else None
