"""What devices tell each other in one call of a compiled program: collectives counted in its HLO text.

    count_collectives(compiled.as_text()).by_kind["all-reduce"]        # Traffic(count=5, bytes=1_276_543_210)

A collective in a loop counts as often as the loop runs, of the branches of a conditional the dearest counts. Bytes are
a device's: of the whole array where it is gathered or reduced, so the larger of what goes in and what comes out.
"""

import functools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

_KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^ +(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<shape>.*?) (?P<opcode>[a-z][a-z-]*)\((?P<rest>.*)$")
_ARRAY = re.compile(r"\b(?P<type>pred|[a-z]+\d+\w*)\[(?P<sizes>[\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|body)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_EITHER = re.compile(r"\b(?:true|false)_computation=%?([\w.-]+)")
_CONDITION = re.compile(r"\bcondition=%?([\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Traffic(NamedTuple):
    """How often a kind of collective runs, and the bytes of it at one device."""

    count: int
    bytes: int


@dataclass(frozen=True)
class Collectives:
    """Traffic by kind; `unknown_loops` hold collectives and do not tell how often they run: counted as once."""

    by_kind: Mapping[str, Traffic] = field(default_factory=dict)
    unknown_loops: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of all kinds at one device."""
        return sum(traffic.bytes for traffic in self.by_kind.values())

    def __add__(self, other: "Collectives") -> "Collectives":
        kinds = {**self.by_kind, **other.by_kind}
        none = Traffic(0, 0)
        sums = {
            kind: Traffic(*map(sum, zip(self.by_kind.get(kind, none), other.by_kind.get(kind, none)))) for kind in kinds
        }
        return Collectives(sums, self.unknown_loops + other.unknown_loops)

    def times(self, runs: int) -> "Collectives":
        """Return what `runs` runs of these are."""
        scaled = {kind: Traffic(count * runs, size * runs) for kind, (count, size) in self.by_kind.items()}
        return Collectives(scaled, self.unknown_loops)


class _Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes


def count_collectives(hlo: str) -> Collectives:
    """Return the collectives of one call of the compiled HLO module `hlo`; raises ValueError where it has no entry."""
    bodies, entry = _computations(hlo)

    @functools.cache
    def of_computation(name: str) -> Collectives:
        body = bodies.get(name, ())
        shapes = {instruction.name: instruction.shape for instruction in body}
        return sum((of_instruction(instruction, shapes, name) for instruction in body), Collectives())

    def of_instruction(instruction: _Instruction, shapes: Mapping[str, str], within: str) -> Collectives:
        kind = instruction.opcode.removesuffix("-done")
        if kind in _KINDS:
            # the TPU compiler's name for a reduction of which each device keeps its part
            kind = "reduce-scatter" if within.startswith("all-reduce-scatter") else kind
            return Collectives({kind: Traffic(1, _moved_bytes(instruction, shapes))})
        if instruction.opcode in ("async-update", "async-done"):
            return Collectives()  # counted at their start
        if instruction.opcode == "conditional":
            return max(map(of_computation, _branches(instruction.rest)), key=lambda branch: branch.bytes)
        inner = sum(map(of_computation, _CALLED.findall(instruction.rest)), Collectives())
        if instruction.opcode == "while" and inner.by_kind:
            runs = _trip_count(instruction.rest, bodies)
            return inner + Collectives(unknown_loops=1) if runs is None else inner.times(runs)
        return inner

    return of_computation(entry)


def _computations(hlo: str) -> tuple[dict[str, list[_Instruction]], str]:
    """Return the instructions of every computation by its name, and the name of the entry."""
    bodies: dict[str, list[_Instruction]] = {}
    entry = None
    for line in hlo.splitlines():
        if opening := _COMPUTATION.match(line):
            current = bodies.setdefault(opening["name"], [])
            entry = opening["name"] if line.startswith("ENTRY") else entry
        elif instruction := _INSTRUCTION.match(line):
            current.append(_Instruction(**instruction.groupdict()))
    if entry is None:
        raise ValueError("no HLO module: it has no ENTRY computation")
    return bodies, entry


def _branches(attributes: str) -> Iterator[str]:
    listed = _BRANCHES.search(attributes)
    names = listed[1].split(",") if listed else _EITHER.findall(attributes)
    return (name.strip().removeprefix("%") for name in names)


def _trip_count(attributes: str, bodies: Mapping[str, list[_Instruction]]) -> int | None:
    """Return how often a loop runs: what the compiler noted, or the bound of a condition that counts up from 0.

    JAX's loops of known length do count so; the TPU compiler leaves no note.
    """
    if noted := _TRIPS.search(attributes):
        return int(noted[1])
    condition = _CONDITION.search(attributes)
    if condition is None:
        return None
    body = bodies.get(condition[1], [])
    compares = any("direction=LT" in instruction.rest for instruction in body)
    bounds = [
        int(instruction.rest.partition(")")[0])
        for instruction in body
        if instruction.opcode == "constant" and instruction.shape.startswith("s32[]")
    ]
    return bounds[0] if compares and len(bounds) == 1 else None


def _moved_bytes(instruction: _Instruction, shapes: Mapping[str, str]) -> int:
    result = _shape_bytes(instruction.shape)
    if instruction.opcode.endswith("-done"):
        return result  # its operand is the tuple of the start
    operands = re.findall(r"%?([\w.-]+)", instruction.rest.partition(")")[0])
    return max(result, sum(_shape_bytes(shapes.get(name, "")) for name in operands))


def _shape_bytes(shape: str) -> int:
    """Return the bytes of an HLO shape or tuple of shapes, without the padding of its layout."""
    return sum(
        math.ceil(math.prod(map(int, filter(None, array["sizes"].split(",")))) * _bits(array["type"]) / 8)
        for array in _ARRAY.finditer(shape)
    )


def _bits(element: str) -> int:
    """Return the bits of an element type: bf16, f8e4m3fn, s32, pred."""
    digits = re.search(r"\d+", element)
    return 8 if digits is None else int(digits[0])
