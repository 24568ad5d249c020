"""What the compilers make of every family's training step, on eight CPU devices and on a v5e, beside a golden summary.

    python tests/planning/test_compiled_steps.py                # writes both anew, after an intended change

It has the collectives of a step, by kind, and counts of transposes and converts. Such a summary is a compiler's: it is
compared under the versions that its first line names, and skipped under others. That no step waits for its host and
that every loop with collectives tells its length holds under all of them. The v5e needs libtpu and none of its chips.
"""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import conftest  # noqa: F401 - the devices and precision of all tests

import pytest
from family_steps import STEPS, compile_text

from jaxbio.config import families
from jaxbio.planning.collectives import count_collectives
from jaxbio.planning.compiled_text import count_operations, find_host_transfers

COMPILERS = {"cpu:8": ("jax", "jaxlib"), "v5e:2x2": ("jax", "libtpu")}  # topology -> whose versions a summary is of
COUNTED = ("transpose", "convert")


def golden_path(topology: str) -> Path:
    return Path(__file__).with_name(f"compiled_steps_{topology.replace(':', '_')}.txt")


def installed(topology: str) -> bool:
    return importlib.util.find_spec(COMPILERS[topology][-1]) is not None


def versions(topology: str) -> str:
    return "# " + ", ".join(f"{package} {importlib.metadata.version(package)}" for package in COMPILERS[topology])


def summarise(step: str, text: str) -> list[str]:
    """Return the lines of one step: collectives by kind, how often and how many bytes; counts of instructions."""
    traffic, operations = count_collectives(text).by_kind, count_operations(text)
    lines = [f"{step} {kind} {traffic[kind].runs} times {traffic[kind].bytes} bytes" for kind in sorted(traffic)]
    return [*lines, *(f"{step} {opcode} {operations[opcode]}" for opcode in COUNTED)]


def find_changes(step: str, found: list[str], golden: list[str]) -> list[str]:
    """Return the lines of `step` that are in one of the two alone, each with a word for which."""
    wanted = [line for line in golden if line.split()[0] == step]
    gone = [f"gone:  {line}" for line in wanted if line not in found]
    return [*gone, *(f"found: {line}" for line in found if line not in wanted)]


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("topology", COMPILERS)
def test_a_step_is_compiled_to_its_golden_summary_and_never_waits_for_its_host(step, topology):
    if not installed(topology):
        pytest.skip(f"{COMPILERS[topology][-1]}, which compiles for {topology}, is not installed")
    text = compile_text(step, topology)
    assert find_host_transfers(text) == ()
    assert count_collectives(text).unknown_loops == 0
    made_with, *golden = golden_path(topology).read_text().splitlines()
    if made_with != versions(topology):
        pytest.skip(f"the summary is of {made_with[2:]}, here is {versions(topology)[2:]}")
    changes = find_changes(step, summarise(step, text), golden)
    assert not changes, "\n".join(["the step changed; if that is meant, run this file and commit:", *changes])


def test_every_objective_has_a_step():
    assert {objective for _, objective, _ in STEPS.values()} == set(families.OBJECTIVES)


@pytest.mark.parametrize("topology", COMPILERS)
def test_every_step_has_a_golden_summary(topology):
    lines = golden_path(topology).read_text().splitlines()[1:]
    assert [*dict.fromkeys(line.split()[0] for line in lines)] == [*STEPS]


def test_what_changed_is_said_line_by_line():
    golden = ["a all-reduce 2 times 8 bytes", "a transpose 3", "b transpose 9"]
    assert find_changes("a", golden[:2], golden) == []
    assert find_changes("a", [golden[0], "a transpose 4"], golden) == ["gone:  a transpose 3", "found: a transpose 4"]


if __name__ == "__main__":
    for topology in COMPILERS:
        if not installed(topology):
            print(f"{golden_path(topology).name} stays as it is: {COMPILERS[topology][-1]} is not installed")
            continue
        lines = [line for step in STEPS for line in summarise(step, compile_text(step, topology))]
        golden_path(topology).write_text("\n".join([versions(topology), *lines]) + "\n")
