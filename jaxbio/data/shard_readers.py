"""Open readers of shards, of all stores of this process: so many as its limit of open files has room for.

Which was used longest ago is closed first, unless a thread reads with it. Opening one again takes under a millisecond.

    pool = ReaderPool()
    with pool.reader("segments-00000-of-00064.array_record") as reader:
        reader.read([3, 7])
"""

import contextlib
import itertools
import resource
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from array_record.python.array_record_module import ArrayRecordReader

# Of the limit: the rest is for checkpoints, sockets and libraries.
_SHARE = 0.5
_MOST = 4096  # each keeps its shard's list of records in memory


@dataclass
class _Opened:
    reader: ArrayRecordReader
    users: int = 0


_opened: OrderedDict[tuple[int, str], _Opened] = OrderedDict()  # by pool and path, the one used last at the end
_lock = threading.Lock()
_numbers = itertools.count()
_gone: deque[int] = deque()


class ReaderPool:
    """The readers of one store; they are closed when the store is no more and another one is read."""

    def __init__(self) -> None:
        self._number = next(_numbers)
        weakref.finalize(self, _gone.append, self._number)  # no more: it may come while this thread has the lock

    @contextlib.contextmanager
    def reader(self, path: str) -> Iterator[ArrayRecordReader]:
        """Lend the reader of the shard in file `path` for the time of a with block; threads may share it."""
        key = (self._number, path)
        with _lock:
            if key not in _opened:
                _close_gone()
                _close_idle(room=1)
                # Random access: what lies ahead of a record is not wanted.
                _opened[key] = _Opened(ArrayRecordReader(path, "readahead_buffer_size:0"))
            opened = _opened[key]
            opened.users += 1
            _opened.move_to_end(key)
        try:
            yield opened.reader
        finally:
            with _lock:
                opened.users -= 1


def most_open() -> int:
    """Return how many readers may be open at a time in this process."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(int(limit * _SHARE), _MOST)) if limit >= 0 else _MOST


def _close_idle(room: int) -> None:
    """Close readers that nobody uses until there is room for so many."""
    excess = len(_opened) + room - most_open()
    idle = (key for key, opened in _opened.items() if not opened.users)
    for key in list(itertools.islice(idle, max(0, excess))):
        _close(key)


def _close_gone() -> None:
    """Close the readers of stores that are no more."""
    while _gone:
        number = _gone.popleft()
        for key in [key for key in _opened if key[0] == number]:
            _close(key)


def _close(key: tuple[int, str]) -> None:
    with contextlib.suppress(RuntimeError):  # of a damaged shard: whoever read it was told
        _opened.pop(key).reader.close()
