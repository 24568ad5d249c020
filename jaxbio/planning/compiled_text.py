"""A compiled program as text (HLO): its computations and their instructions, counted by what they do.

    count_operations(compiled.as_text())["transpose"]       # 12
    find_host_transfers(compiled.as_text())                 # (): devices go on without their host

Knows no model; what devices tell each other is read in `collectives.py`.
"""

import re
from collections import Counter
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(
    r"^ +(?P<root>ROOT )?%?(?P<name>[\w.-]+) = (?P<shape>.*?) (?P<opcode>[a-z][a-z-]*)\((?P<rest>.*)$"
)
_HOST_OPCODES = ("infeed", "outfeed")
# Slices of TPUs reach each other through their hosts' network, of which a program says host transfers too: collectives.
_BETWEEN_SLICES = '_xla_host_transfer_handler_name="xla_megascale_runtime"'
_CALLBACK = re.compile(r'\bcustom_call_target="([^"]*callback[^"]*)"')


class Instruction(NamedTuple):
    """One line of a computation."""

    root: str | None
    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes

    @property
    def operands(self) -> list[str]:
        """Names of the operands."""
        return [word.split()[-1].lstrip("%") for word in self.rest.partition(")")[0].split(",") if word.strip()]


def count_operations(hlo: str) -> Counter[str]:
    """Return how many instructions of each opcode the text has, fused ones included, loops counted once.

    Raises ValueError where it has no entry.
    """
    bodies, _ = read_computations(hlo)
    return Counter(instruction.opcode for body in bodies.values() for instruction in body)


def find_host_transfers(hlo: str) -> tuple[str, ...]:
    """Return what in the program waits for the host or sends to it: names of opcodes and of callbacks, one for each.

    What slices of TPUs send each other is none of it. Raises ValueError where the text has no entry.
    """
    bodies, _ = read_computations(hlo)
    found = []
    for instruction in (one for body in bodies.values() for one in body):
        if called := _CALLBACK.search(instruction.rest):
            found.append(called[1])
        elif instruction.opcode in _HOST_OPCODES or _asks_host(instruction):
            found.append(instruction.opcode)
    return tuple(sorted(found))


def _asks_host(instruction: Instruction) -> bool:
    return "is_host_transfer=true" in instruction.rest and _BETWEEN_SLICES not in instruction.rest


def read_computations(hlo: str) -> tuple[dict[str, list[Instruction]], str]:
    """Return the instructions of every computation by its name, and the name of the entry.

    Raises ValueError where the text has no entry.
    """
    bodies: dict[str, list[Instruction]] = {}
    entry = None
    for line in re.sub(r"/\*.*?\*/", "", hlo).splitlines():  # every fifth of many operands has its number before it
        if opening := _COMPUTATION.match(line):
            current = bodies.setdefault(opening["name"], [])
            entry = opening["name"] if line.startswith("ENTRY") else entry
        elif instruction := _INSTRUCTION.match(line):
            current.append(Instruction(**instruction.groupdict()))
    if entry is None:
        raise ValueError("no HLO module: it has no ENTRY computation")
    return bodies, entry
