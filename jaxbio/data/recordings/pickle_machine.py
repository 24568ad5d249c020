"""A machine that follows a pickle's operations without carrying any out: values of our own, and no name of theirs.

Of all that a pickle may name only NumPy's arrays and types mean anything; else it is a `Thing`, which does nothing.

    machine = Machine()
    for name, argument in operations_of(file, path): machine.follow(name, argument)
    machine.stack[-1]      # what the pickle holds
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


class Machine:
    """Follows operations on a stack, with marks and a memo, as Python's unpickler does, and makes nothing of theirs."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[Any, Any] = {}

    def follow(self, name: str, argument: Any) -> None:
        """Change the stack as the operation does; raises LookupError where it takes what is not there."""
        stack = self.stack
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self._marks.append(len(stack))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_SET":
                stack.append(Pairs() if name == "EMPTY_DICT" else () if name == "EMPTY_TUPLE" else [])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._take(int(name[-1]))))
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "LIST" | "FROZENSET":
                stack.append(self._since_mark())
            case "DICT":
                stack.append(Pairs(self._since_mark()))
            case "APPEND" | "SETITEM":
                parts = self._take(1 if name == "APPEND" else 2)
                _extend(stack[-1], parts)
            case "APPENDS" | "SETITEMS" | "ADDITEMS":
                parts = self._since_mark()
                _extend(stack[-1], parts)
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "GLOBAL":
                stack.append(Thing(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                stack.append(Thing(".".join(part.text for part in self._take(2))))
            case "REDUCE" | "NEWOBJ":
                stack.append(_make(*self._take(2)))
            case "BUILD":
                (state,) = self._take(1)
                _set_state(stack[-1], state)
            case _ if argument is not None:  # a text, a number
                stack.append(argument)
            case _:
                raise LookupError(f"the operation {name}, which no pickle of arrays has")

    def _take(self, count: int) -> list[Any]:
        if len(self.stack) < count + (self._marks[-1] if self._marks else 0):
            raise LookupError("an operation takes more than there is")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken


def _extend(container: Any, parts: list[Any]) -> None:
    if isinstance(container, list):
        container.extend(parts)


def _make(called: Any, arguments: Any) -> Any:
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


def _set_state(made: Any, state: Any) -> None:
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
