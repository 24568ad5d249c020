"""One preparation as several jobs of a scheduler that knows only arrays of jobs: share I of N writes every N-th shard.

share = parse_share("0/3")
share.of(range(7))      # 0, 3, 6
"""

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.folder_lock import hold, name_holder
from jaxbio.data.store_files import PARTS

FLAG = "--share"
_FOLDER = "shares"


@dataclass(frozen=True)
class Share:
    """Share `index`, counted from 0, of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, shards: Iterable[int]) -> list[int]:
        """Return which of `shards` are this share's."""
        return [shard for shard in shards if shard % self.count == self.index]


def parse_share(text: str) -> Share:
    """Return the share I/N; raises UserError for what is none, naming those that there are."""
    found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not index < count:
        last = f"0/{count} to {count - 1}/{count}" if count else "0/3, 1/3 and 2/3"
        raise UserError(Fault(FLAG, text, f"write I/N, shares counted from 0: {last}"))
    return Share(index, count)


@contextlib.contextmanager
def hold_share(out: Path, share: Share) -> Iterator[None]:
    """Hold a share of the preparation in folder `out` for the time of a with block.

    Raises UserError where another job has the share, or one prepares the store as a whole or assembles it.
    """
    if holder := name_holder(out / PARTS):
        raise UserError(Fault("--out", str(out), f"is prepared or assembled by {holder}: nothing is left for a share"))
    folder = out / PARTS / _FOLDER / f"{share.index}-of-{share.count}"
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder, field=FLAG, named=Path(str(share))):
        yield


def check_no_share(out: Path) -> None:
    """Raise UserError where a job is at work on a share of the preparation in folder `out`."""
    for folder in sorted((out / PARTS / _FOLDER).glob("*")):
        if holder := name_holder(folder):
            remedy = f"share {folder.name.replace('-of-', '/')} is written by {holder}: wait for it, or stop it"
            raise UserError(Fault("--out", str(out), remedy))
