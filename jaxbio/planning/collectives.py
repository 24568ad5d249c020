"""What devices tell each other in one call of a compiled program: collectives counted in its HLO text.

    count_collectives(compiled.as_text()).by_kind["all-reduce"]        # Traffic(runs=5, bytes=1_276_543_210)

A collective inside a loop is counted as often as the loop runs. Of a conditional every branch is counted, since the
text does not tell which is taken. Bytes are those at one device: the larger of a collective's operands and its result,
which for a gather or a reduction is the whole array.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxbio.planning.compiled_text import Instruction, read_computations

_KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_ARRAY = re.compile(r"\b(?P<type>pred|[a-z]+\d+\w*)\[(?P<sizes>[\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_INDEX = re.compile(r"\bindex=(\d+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Traffic(NamedTuple):
    """How often a kind of collective runs, and the bytes of all of them at one device."""

    runs: int
    bytes: int


@dataclass(frozen=True)
class Collectives:
    """Traffic by kind; `unknown_loops` hold collectives and do not tell how often they run: counted as once."""

    by_kind: Mapping[str, Traffic]
    unknown_loops: int


class _Found(NamedTuple):
    kind: str
    channel: str | None
    piece: bool
    runs: int
    bytes: int


def count_collectives(hlo: str) -> Collectives:
    """Return the collectives of one call of the compiled HLO module `hlo`; raises ValueError where it has no entry."""
    bodies, entry = read_computations(hlo)
    found: list[_Found] = []
    unknown_loops = 0

    def walk(name: str, runs: int) -> None:
        nonlocal unknown_loops
        body = bodies.get(name, [])
        shapes = {instruction.name: instruction.shape for instruction in body}
        for instruction in body:
            if instruction.opcode.removesuffix("-done") in _KINDS:
                found.append(_describe(instruction, shapes, name, runs))
                continue
            before = len(found)
            trips = _trip_count(instruction, bodies) if instruction.opcode == "while" else 1
            for called in _called(instruction):
                walk(called, runs * (trips or 1))
            unknown_loops += trips is None and len(found) > before

    walk(entry, 1)
    return Collectives(_sums(_without_pieces(found)), unknown_loops)


def _describe(instruction: Instruction, shapes: Mapping[str, str], within: str, runs: int) -> _Found:
    """Return what one instruction of the computation `within` moves."""
    channel = _CHANNEL.search(instruction.rest)
    # The TPU compiler's names for a reduction of which each device keeps its part, and for part of a collective that
    # goes on while other operations run.
    scatters, piece = within.startswith("all-reduce-scatter"), within.startswith("async_collective_fusion")
    kind = "reduce-scatter" if scatters else instruction.opcode.removesuffix("-done")
    return _Found(kind, channel and channel[1], piece, runs, _moved_bytes(instruction, shapes))


def _without_pieces(found: Sequence[_Found]) -> Iterator[_Found]:
    """Yield each collective once, also those that the TPU compiler spreads over several computations.

    It does so to hide a collective behind other work. The pieces share a channel; some lie inside a loop and seem to
    run many times. The piece that runs least often is the start, and stands for the whole.
    """
    in_pieces = {one.channel for one in found if one.piece}
    yield from (one for one in found if one.channel not in in_pieces)
    for channel in in_pieces:
        yield min((one for one in found if one.channel == channel), key=lambda one: one.runs)


def _sums(found: Iterable[_Found]) -> dict[str, Traffic]:
    counts: dict[str, int] = defaultdict(int)
    sizes: dict[str, int] = defaultdict(int)
    for one in found:
        counts[one.kind] += one.runs
        sizes[one.kind] += one.runs * one.bytes
    return {kind: Traffic(counts[kind], sizes[kind]) for kind in counts}


def _called(instruction: Instruction) -> list[str]:
    """Return the computations that an instruction runs."""
    if instruction.opcode in ("async-update", "async-done"):
        return []  # the work of their start
    listed = _BRANCHES.search(instruction.rest)
    branches = [name.strip().removeprefix("%") for name in listed[1].split(",")] if listed else []
    return [*_CALLED.findall(instruction.rest), *branches]


def _trip_count(loop: Instruction, bodies: Mapping[str, list[Instruction]]) -> int | None:
    """Return how often a loop runs, None where the text does not tell.

    Most compilers note it. The TPU compiler does not; its loops count from 0 and end where the counter reaches a
    constant. Loops that JAX made count by one; those that the compiler made to compute a product piece by piece count
    by one or by two.
    """
    if noted := _TRIPS.search(loop.rest):
        return int(noted[1])
    condition, body = ({one.name: one for one in bodies.get(_named(part, loop), [])} for part in ("condition", "body"))
    ends = next((one for one in condition.values() if one.root and "direction=LT" in one.rest), None)
    root = next((one for one in body.values() if one.root), None)
    if ends is None or root is None:
        return None
    place = _INDEX.search(condition[ends.operands[0]].rest)
    counted = place and body.get(root.operands[int(place[1])])
    if not counted or counted.opcode != "add":
        return None
    bound, step = _constant(ends.operands[1], condition), _constant(counted.operands[1], body)
    return -(-bound // step) if bound and step else None


def _named(attribute: str, instruction: Instruction) -> str:
    """Return the computation that an attribute of an instruction names."""
    found = re.search(rf"\b{attribute}=%?([\w.-]+)", instruction.rest)
    return found[1] if found else ""


def _constant(name: str, body: Mapping[str, Instruction]) -> int | None:
    instruction = body.get(name)
    if instruction is None or instruction.opcode != "constant":
        return None
    return int(instruction.rest.partition(")")[0])


def _moved_bytes(instruction: Instruction, shapes: Mapping[str, str]) -> int:
    result = _shape_bytes(instruction.shape)
    if instruction.opcode.endswith("-done"):
        return result  # its operand is the tuple of the start
    return max(result, sum(_shape_bytes(shapes.get(name, "")) for name in instruction.operands))


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
