"""The first call of every command, before imports that take seconds: signals, an old Python and a missing package are
answered in a line from there on.

    if __name__ == "__main__":
        from launch.begin import begin

        begin()

Old Pythons must be able to read this file, and what stands above it in a command: it is what tells them so.
"""

import signal
import sys

NEEDED = (3, 11)


def begin(code=130, signals=(signal.SIGINT,)):
    """Leave with `code` when one of `signals` comes (128 + 2 is what shells give an interrupt), and with 2 where Python
    is too old or a package is missing.
    """
    if sys.version_info < NEEDED:
        have, need = ("{}.{}".format(*version) for version in (sys.version_info, NEEDED))
        sys.stderr.write(
            f"error: {sys.executable} is Python {have}, jaxbio needs {need} or newer: source .venv/bin/activate, or "
            f"make environment PYTHON=python{need} before it\n"
        )
        sys.exit(2)
    from jaxbio.config import faults, interrupt

    def report(kind, error, trace):
        sys.exit(faults.report(error))

    sys.excepthook = report
    interrupt.end_at_once(code, signals)
