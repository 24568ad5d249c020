"""A folder of this user's on this host (TMPDIR moves it), for what may hold patients' signals.

Nobody else may enter it.

folder = own_folder(host_folder(), "data.cache", "host")
"""

import os
import stat
import tempfile
from pathlib import Path

from jaxbio.config.faults import Fault, UserError


def host_folder() -> Path:
    """Return where this user's folder lies."""
    return Path(tempfile.gettempdir()) / f"jaxbio-{os.getuid()}"


def own_folder(folder: Path, field: str, value: str) -> Path:
    """Make the folder, or see that it is one of this user's own; nobody else may enter it from now on.

    Raises UserError, of field `field` and its `value`, where it is a link, another user's, or cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise UserError(Fault(field, value, f"{folder} is a link: remove it, or point TMPDIR elsewhere"))
        if found.st_uid != os.getuid():
            raise UserError(Fault(field, value, f"{folder} belongs to another user: point TMPDIR elsewhere"))
        folder.chmod(0o700)
    except OSError as error:
        remedy = f"{folder}: {error.strerror}: point TMPDIR elsewhere"
        raise UserError(Fault(field, value, remedy)) from error
    return folder
