"""Faults a user can mend, and how a command reports them.

A fault names the field, its value and what to try. Faults found together are raised together, as one `UserError`;
a command turns them into one line each on standard error and exit code 2.

    raise UserError(Fault("train.batch", 300, "make it a multiple or a divisor of 256: 256 or 512"))
"""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

EXIT_USER_FAULT = 2
EXIT_PREEMPTED = 75  # EX_TEMPFAIL: saved; the launch scripts start the same line again


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


def run_command(main: Callable[[Sequence[str]], dict | None]) -> NoReturn:
    """Run `main(arguments)`, print the dictionary it returns as one JSON line, and exit.

    Exit code 0 is success, 2 a `UserError` (one line for each fault on standard error), 75 `Preempted`; any other
    exception keeps its traceback and ends with 1.
    """
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)  # it tells of every platform that is not there
    try:
        result = main(sys.argv[1:])
    except UserError as error:
        for fault in error.faults:
            print(f"error: {fault}", file=sys.stderr)
        sys.exit(EXIT_USER_FAULT)
    except Preempted as stop:
        print(f"preempted: {stop}", file=sys.stderr)
        sys.exit(EXIT_PREEMPTED)
    if result is not None:
        print(json.dumps(result), flush=True)
    sys.exit(0)
