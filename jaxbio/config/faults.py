"""Faults a user can mend, and how a command reports them.

A fault names the field, its value and what to try. Faults found together are raised together, as one `UserError`;
a command turns them into one line each on standard error and exit code 2.

    raise UserError(Fault("train.batch", 300, "make it a multiple or a divisor of 256: 256 or 512"))
"""

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from jaxbio.config import interrupt
from jaxbio.config.refusals import OUTSIDE, advise

EXIT_FAILURE = 1
EXIT_USER_FAULT = 2
EXIT_PEER_GONE = 69  # EX_UNAVAILABLE: another process of the run ended without a word, or never came
EXIT_PREEMPTED = 75  # EX_TEMPFAIL: saved; the launch scripts start the same line again
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_OWN = ("jaxbio", "launch", "tools")
_ENVIRONMENT = (
    "activate the environment (source .venv/bin/activate; make environment makes it), or install it beside the clone "
    "with pip install -c constraints.txt -e '.[test,evaluate]'"
)


@dataclass(frozen=True)
class Fault:
    """One thing the user can mend: `field` (or file), its `value`, and the `remedy` to try."""

    field: str
    value: object
    remedy: str

    def __str__(self) -> str:
        shown = repr(self.value) if isinstance(self.value, str) else str(self.value)
        return f"{self.field} = {shown}: {self.remedy}"


class UserError(ValueError):
    """One or more faults of the user, all found together."""

    def __init__(self, *faults: Fault):
        self.faults = faults
        super().__init__("\n".join(str(fault) for fault in faults))


class Preempted(Exception):
    """The run was asked to stop, has saved its state, and wants to be started again."""


class EndedByPeer(Exception):
    """A run of several processes ends for the reason that `words` give, one a line; all leave with `exit_code`."""

    def __init__(self, words: Sequence[str], exit_code: int):
        self.words, self.exit_code = words, exit_code
        super().__init__("\n".join(words))


def report(error: BaseException) -> int:
    """Say on standard error what ended a command, and return its exit code.

    2 is a `UserError` (one line for each fault), a package that is not installed, and what the operating system refused
    for a reason of its own (a disk without room, a folder that may not be written); 75 `Preempted`, 130 Ctrl-C, an
    `EndedByPeer` brings its own; any other exception shows its traceback and is 1.
    """
    if isinstance(error, UserError):
        lines, code = [f"error: {fault}" for fault in error.faults], EXIT_USER_FAULT
    elif isinstance(error, Preempted):
        lines, code = [f"preempted: {error}"], EXIT_PREEMPTED
    elif isinstance(error, EndedByPeer):
        lines, code = list(error.words), error.exit_code
    elif isinstance(error, OSError) and error.errno in OUTSIDE:
        fault = Fault(str(error.filename or "a file"), error.strerror, f"{advise(error)}, and start again")
        lines, code = [f"error: {fault}"], EXIT_USER_FAULT
    elif isinstance(error, ModuleNotFoundError) and (error.name or "jaxbio").split(".")[0] not in _OWN:
        lines, code = [f"error: {error.name} is not installed for {sys.executable}: {_ENVIRONMENT}"], EXIT_USER_FAULT
    elif isinstance(error, KeyboardInterrupt):
        lines, code = [f"stopped by SIGINT: {str(error) or interrupt.kept()}"], EXIT_INTERRUPTED
    else:
        lines, code = ["".join(traceback.format_exception(error)).rstrip()], EXIT_FAILURE
    print("\n".join(lines), file=sys.stderr, flush=True)
    return code


def run_command(main: Callable[[Sequence[str]], dict | None]) -> NoReturn:
    """Run `main(arguments)`, print the dictionary it returns as one JSON line, and exit.

    Exit code 0 is success; those of `report` are the others.
    """
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)  # it tells of every platform that is not there
    try:
        result = main(sys.argv[1:])
    except Preempted as stop:
        os._exit(report(stop))  # all is saved, and the end of the interpreter would wait for threads that draw
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(report(error))
    if result is not None:
        print(json.dumps(result), flush=True)
    sys.exit(0)
