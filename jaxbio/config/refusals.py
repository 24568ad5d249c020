"""What to try when the operating system refuses a file or folder: one advice for each of its error numbers.

    except OSError as error:
        raise UserError(Fault(str(path), "not written", f"{error}: {advise(error)}, and start again")) from error

Room is asked for only where room is wanted.
"""

import errno
import os
import re
from collections.abc import Iterator

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

_OPEN_FILES = "raise the limit of open files (ulimit -n 4096)"
_RIGHTS = "give this user the right to read and write there, or name another folder"
_UNABLE = "its file system cannot do that (a mounted bucket: see its options for renaming folders): name another folder"
_FAILING = "the disk or its mount fails: see to it"
_PATH = "see that the folder is still there, and that every part of its path is a folder"
_ADVICE = {
    **dict.fromkeys(NO_ROOM, "make room"),
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: "the machine has too many files open: end other processes, or raise fs.file-max",
    **dict.fromkeys((errno.EACCES, errno.EPERM), _RIGHTS),
    errno.EROFS: "the file system is mounted for reading only: name another folder",
    **dict.fromkeys((errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.ENOLCK), _UNABLE),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ETIMEDOUT), _FAILING),
    errno.ENAMETOOLONG: "name a folder with a shorter path",
    errno.EFBIG: "files of that size are not allowed there: raise ulimit -f, or name another file system",
    errno.ENOMEM: "end other processes, or take a machine with more memory",
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR), _PATH),
}
_OTHER = "see to the disk"
# What no program causes by itself: the state of the disk, of the machine, and of rights on it.
OUTSIDE = NO_ROOM | {
    errno.EMFILE,
    errno.ENFILE,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EOPNOTSUPP,
    errno.EIO,
    errno.ESTALE,
    errno.ENAMETOOLONG,
    errno.EFBIG,
}
_NUMBER = re.compile(r"(?:Errno|OS error|errno:?)\s*(\d+)", re.IGNORECASE)
# The longest first: "Too many open files" begins another.
_TEXTS = {os.strerror(number): number for number in sorted(_ADVICE, key=lambda number: -len(os.strerror(number)))}


def advise(error: BaseException) -> str:
    """Return what to try, by the operating system's error number that `error` or what caused it carries."""
    return _ADVICE.get(error_number(error), _OTHER)


def error_number(error: BaseException) -> int:
    """Return the operating system's error number that `error`, or what it came from, carries or tells; 0 for none.

    Libraries pass it on as text: "[Errno 28]" (Python's), "OS error 28" (TensorStore's), or in its words.
    """
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno:
            return cause.errno
        if found := _NUMBER.search(str(cause)):
            return int(found[1])
        for text, number in _TEXTS.items():
            if text in str(cause):
                return number
    return 0


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
