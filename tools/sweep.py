"""Run a recipe many times, one line of changes each, over several seeds; put the last evaluations into one table.

python tools/sweep.py --config configs/qualityfm_base.py --config.data.store=STORE --config.train.steps=400 \\
    --lines configs/sweeps/qualityfm.txt --out DIR --seeds 3

A line of the file is a name and the fields that it changes, `warm optimizer.warmup_frac=0.1`; `#` begins a remark.
The runs are those of launch/run.py, one after the other, each in DIR/<name>/<seed>. Started again, the command goes
on where it was: finished runs are read, one that was ended is resumed, a folder of other runs is refused. table.csv
and table.md hold for every line the mean and the range over seeds of the metrics of the last evaluation, and the mean
of the first.
"""

import argparse
import csv
import fnmatch
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

import numpy as np
from tqdm import tqdm

from jaxbio.config.command_line import parse_command, recipe_words
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.report.series import read_series

LAUNCH = Path(__file__).resolve().parent.parent / "launch" / "run.py"
METRICS = ("eval/*_explained", "eval/teacher_entropy", "eval/amplitude", "eval/*_batch_spread", "eval/*_effective_rank",
           "eval/probe_*")  # fmt: skip
_COLUMNS = ("line", "metric", "seeds", "first", "last", "lowest", "highest")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Line:
    """A name, which is a folder's too, and `--config.<field>=<value>` words."""

    name: str
    words: tuple[str, ...]


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run what has not been run, write the table and return where it lies.

    Raises UserError for lines that are none, for a folder whose runs had other words, and, when all others have been
    run, for those that failed.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=Path, required=True, metavar="FILE", help="a name and its changes a line")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the runs and the table")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="train.seed 0 to N - 1 for every line")
    parser.add_argument("--metrics", nargs="+", default=list(METRICS), metavar="PATTERN", help="of metrics.jsonl")
    flags, config = parse_command(arguments, parser)
    assert config is not None
    if flags.seeds < 1:
        raise UserError(Fault("--seeds", flags.seeds, "at least 1"))
    lines, recipe = read_lines(flags.lines), recipe_words(arguments)
    flags.out.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(flags.out / line.name / str(seed), (*recipe, *line.words, f"--config.train.seed={seed}"))
        for seed in range(flags.seeds)
        for line in lines
    ]
    check_finished(jobs)
    failed = []
    for job in tqdm(jobs, unit="run", desc="sweep", disable=None):
        if not job.run():
            failed.append(Fault(str(job.workdir), "failed", f"see {job.log}, mend it and start the sweep again"))
            log.error("%s", failed[-1])
        write_table(flags.out, gather(flags.out, lines, flags.seeds, flags.metrics))
    if failed:
        raise UserError(*failed)
    return {"table": str(flags.out / "table.md"), "runs": len(jobs)}


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a file of changes; raises UserError, all faults together."""
    lines: list[Line] = []
    faults = []
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(Fault("--lines", str(path), str(error))) from None
    for number, text in enumerate(texts, 1):
        name, *words = text.partition("#")[0].split() or [""]
        if not name:
            continue
        wrong = [word for word in words if "=" not in word]
        if "=" in name or "/" in name or name.startswith(".") or name in {line.name for line in lines}:
            faults.append(Fault(f"{path}, line {number}", name, "begin with a name of its own that can be a folder"))
        faults += [Fault(f"{path}, line {number}", word, "changes are FIELD=VALUE") for word in wrong]
        lines.append(Line(name, tuple(f"--config.{word}" for word in words)))
    if not lines:
        faults.append(Fault("--lines", str(path), "holds no line"))
    if faults:
        raise UserError(*faults)
    return lines


@dataclass(frozen=True)
class Job:
    """One run: its folder, beside which its log lies and, when it is finished, the words that it was run with."""

    workdir: Path
    words: tuple[str, ...]

    @property
    def log(self) -> Path:
        """What the run says."""
        return self.workdir.with_suffix(".log")

    @property
    def finished(self) -> Path:
        """The words of the finished run, one a line."""
        return self.workdir.with_suffix(".done")

    def run(self) -> bool:
        """Run or resume it unless it is finished; return whether it is now."""
        if self.finished.exists():
            return True
        self.workdir.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(LAUNCH), *self.words, "--workdir", str(self.workdir)]
        with self.log.open("a") as said:
            code = subprocess.run(command, stdout=said, stderr=said, check=False).returncode
        if code == 0:
            self.finished.write_text("\n".join(self.words) + "\n", encoding="utf-8")
        return code == 0


def check_finished(jobs: Sequence[Job]) -> None:
    """Raise UserError where a finished run had other words than its job has: its figures would be another recipe's."""
    remedy = "was run with {}: name another folder, or the words as they were"
    faults = []
    for job in jobs:
        if not job.finished.exists():
            continue
        words = job.finished.read_text(encoding="utf-8").splitlines()
        if tuple(words) != job.words:
            faults.append(Fault("--out", str(job.workdir), remedy.format(" ".join(words))))
    if faults:
        raise UserError(*faults)


def gather(out: Path, lines: Sequence[Line], seeds: int, patterns: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each line and metric, over the seeds that are finished."""
    rows = []
    for line in lines:
        runs = [out / line.name / str(seed) for seed in range(seeds)]
        series = [read_series(run) for run in runs if run.with_suffix(".done").exists()]
        names = dict.fromkeys(name for found in series for name in found if _wanted(name, patterns))
        rows += [_row(line.name, name, [found[name][1] for found in series if name in found]) for name in names]
    return rows


def write_table(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write table.csv, a row for each line and metric, and table.md, a row for each line."""
    with (out / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    names = list(dict.fromkeys(row["metric"] for row in rows))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        spread = f" ({row['lowest']:.3g} to {row['highest']:.3g})" if row["seeds"] > 1 else ""
        cells.setdefault(row["line"], {})[row["metric"]] = f"{row['first']:.3g} → {row['last']:.3g}{spread}"
    table = [
        "| line | " + " | ".join(name.removeprefix("eval/") for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    table += [f"| {line} | " + " | ".join(of.get(name, "") for name in names) + " |" for line, of in cells.items()]
    (out / "table.md").write_text("\n".join(table) + "\n")


def _wanted(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _row(line: str, metric: str, values: Sequence[np.ndarray]) -> dict[str, Any]:
    last = [float(value_N[-1]) for value_N in values]
    first = float(np.mean([value_N[0] for value_N in values]))
    return dict(
        zip(_COLUMNS, (line, metric, len(values), first, float(np.mean(last)), min(last), max(last)), strict=True)
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
