"""The closing account of a preparation: every second of every recording is kept, or rejected with a reason.

account = account_of(outcomes)      # seconds by outcome, over all and by source; counts of recordings
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jaxbio.data.shard_plan import KEPT, Outcome


def account_of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return seconds by outcome, in all and by source, and how many recordings there are and gave segments.

    `total_s` is the sum over the recordings' outcomes; `kept_s` and `rejected_s` (by reason) add up to it.
    """
    by_source: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_source[outcome.source].append(outcome)
    return {
        **_seconds(outcomes),
        "recordings": len({outcome[:2] for outcome in outcomes}),
        "recordings_kept": len({outcome[:2] for outcome in outcomes if outcome.outcome == KEPT}),
        "sources": {source: _seconds(of_source) for source, of_source in sorted(by_source.items())},
    }


def _seconds(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    spent: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        spent[outcome.outcome].append(outcome.seconds)
    summed = {name: math.fsum(seconds) for name, seconds in sorted(spent.items())}
    kept_s = summed.pop(KEPT, 0.0)
    return {"total_s": math.fsum([kept_s, *summed.values()]), "kept_s": kept_s, "rejected_s": summed}


def write_recordings(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write what became of every recording: one row an outcome, with seconds and, where something failed, the file."""
    ordered = sorted(outcomes)
    columns = {name: [getattr(outcome, name) for outcome in ordered] for name in Outcome._fields}
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_outcomes(path: Path) -> list[Outcome]:
    """Return what `write_recordings` was given, in its order."""
    columns = [column.to_pylist() for column in pq.read_table(path, columns=list(Outcome._fields)).columns]
    return [Outcome(*row) for row in zip(*columns, strict=True)]


def lines_of(account: dict[str, Any]) -> list[str]:
    """Return the account as lines of text, hours first."""
    total_s = account["total_s"]
    rows = [("kept", account["kept_s"]), *account["rejected_s"].items(), ("total", total_s)]
    return [f"{seconds / 3600:12.3f} h {seconds / total_s if total_s else 0:7.2%}  {name}" for name, seconds in rows]
