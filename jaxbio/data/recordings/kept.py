"""What was unpacked last, kept for the next span: as much as comes to a number of bytes, whatever its parts' size.

_KEPT = Kept(2**28)
content = _KEPT.get((path, begin, version), lambda: inflate(packed, most, path))
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Kept:
    """Bytes, or arrays, by key; the last one stays even where it alone is larger than `most_bytes`."""

    def __init__(self, most_bytes: int):
        self._most, self._nbytes = most_bytes, 0
        self._held: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what is kept under `key`, or what `make` makes, which is then kept."""
        if key not in self._held:
            self._held[key] = made = make()
            self._nbytes += memoryview(made).nbytes
        self._held.move_to_end(key)
        while self._nbytes > self._most and len(self._held) > 1:
            _, oldest = self._held.popitem(last=False)
            self._nbytes -= memoryview(oldest).nbytes
        return self._held[key]
