"""The run folder on disk: made, found to take what a run writes, and cleared of what a killed one left.

    check_writable(workdir)
    with hold(workdir): remove_leftovers(workdir)

The folder lies on a file system (a shared one where several hosts train); only process 0, which holds it, writes into
it.
"""

import os
import shutil
import socket
import tempfile
from pathlib import Path

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.local_paths import check_local
from jaxbio.config.refusals import advise
from jaxbio.data.folder_lock import hold
from jaxbio.data.whole_files import UNFINISHED, remove_unfinished

__all__ = ["check_writable", "hold", "remove_leftovers"]


def check_writable(folder: Path) -> None:
    """Make `folder` and try in it what a run does: write a file, rename it over another, rename a folder.

    Raises UserError when any of it fails, or where `folder` is an address or no text.
    """
    check_local("--workdir", folder)
    try:
        str(folder).encode()
        folder.mkdir(parents=True, exist_ok=True)
        _try_out(folder)
    except UnicodeEncodeError:
        remedy = "its name is no text in UTF-8, which checkpoints need: name another folder"
        raise UserError(Fault("--workdir", str(folder), remedy)) from None
    except OSError as error:
        raise UserError(Fault("--workdir", str(folder), f"{error.strerror or error}: {advise(error)}")) from error


def remove_leftovers(workdir: Path) -> None:
    """Remove what killed processes of the run were writing; to be called by the one that holds the folder."""
    checkpoints = workdir / "checkpoints"
    for folder in (workdir, workdir / "nonfinite", *(checkpoints.iterdir() if checkpoints.is_dir() else ())):
        remove_unfinished(folder, alone=True)


def _try_out(folder: Path) -> None:
    # Other processes of the run may try it at this moment, and one of another host may have this one's number.
    place = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}{socket.gethostname()}-{os.getpid()}-", dir=folder))
    try:
        for name in ("old", "new"):
            (place / name).write_bytes(b"jaxbio")
        os.replace(place / "new", place / "old")
        (place / "half").mkdir()
        os.replace(place / "old", place / "half" / "file")
        os.replace(place / "half", place / "whole")
    finally:
        shutil.rmtree(place, ignore_errors=True)
