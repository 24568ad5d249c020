"""A machine that follows a pickle's operations without carrying any out: values of our own, and no name of theirs.

machine = Machine()
for name, argument in operations_of(file, path): machine.follow(name, argument)
machine.stack[-1]      # what the pickle holds
"""

from typing import Any

from jaxbio.data.recordings.pickle_values import Pairs, Thing, make, set_state


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
                stack.append(make(*self._take(2)))
            case "BUILD":
                (state,) = self._take(1)
                set_state(stack[-1], state)
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
