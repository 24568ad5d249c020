"""Paths to give to Orbax: what is done in a folder does not depend on the characters of its name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

from etils.epath.gpath import PosixGPath


class LiteralPath(PosixGPath):
    """A path of Orbax's kind whose own name is no pattern in `glob`, only what is looked for under it.

    The library joins both and reads `a[1]/ocdbt.process_*` as the folder `a1`. Orbax then finds nothing to merge, says
    so in a warning, and a checkpoint is left that nobody can read. Paths derived from one of these are of this class.
    """

    def glob(self, pattern: str) -> Iterator[Self]:
        """Yield what matches `pattern` under this folder."""
        for found in Path(self).glob(pattern):
            yield self._new(found)
