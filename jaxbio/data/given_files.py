"""Files that somebody gave, opened or refused with a user's fault: weights, cards, examples, what was seen.

with open_given(path, missing="copy the whole export folder") as file: ...
"""

import contextlib
import os
from collections.abc import Iterator
from io import BufferedReader
from typing import cast

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.regular_files import check_written, open_regular

_STATES = {"missing_file": "missing", "not_a_recording": "no regular file", "truncated_file": "almost all hole"}


@contextlib.contextmanager
def open_given(path: str | os.PathLike[str], *, missing: str) -> Iterator[BufferedReader]:
    """Yield the regular file `path`, links followed, open for reading.

    Raises UserError for what is not there (with the remedy `missing`), no regular file, almost nowhere written, or
    cannot be opened or read. A pipe is not waited for, a device not read.
    """
    name = os.fspath(path)
    try:
        with open_regular(name) as file:
            check_written(file, name)
            yield cast(BufferedReader, file)
    except RecordingError as error:
        state = _STATES.get(error.reason, "unreadable")
        remedy = missing if state == "missing" else f"it {error.detail}; name another file"
        raise UserError(Fault(name, state, remedy)) from error
    except OSError as error:
        raise UserError(Fault(name, "unreadable", f"{error}; name another file")) from error
