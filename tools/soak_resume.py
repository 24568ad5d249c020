"""Kill a run at random, start it again, and compare it with the same run left alone: bit for bit.

python tools/soak_resume.py --config tests/launch/tiny_recipe.py --config.data.store=STORE --out DIR --kills 20

Real processes of launch/run.py, ended by SIGKILL and SIGTERM at moments drawn at random: in a step, in a save, at
start-up. A run that ends before all kills are spent is followed by another. Exit 1 when any value differs.
"""

import argparse
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

from jaxbio.config.command_line import parse_command, recipe_words
from jaxbio.config.faults import EXIT_PREEMPTED, Fault, UserError, run_command
from jaxbio.training.writers import read_metrics

LAUNCH = Path(__file__).resolve().parent.parent / "launch" / "run.py"
EXACT = ("train/", "eval/", "data/rows_crc32")
log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run once undisturbed and as often as it takes disturbed; return counts and whether all values are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder for the runs")
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="how often a run is ended")
    parser.add_argument("--seed", type=int, default=0, help="of the kinds and moments")
    parser.add_argument("--within_s", type=float, default=1.0, help="latest moment after the first new line of metrics")
    flags, config = parse_command(arguments, parser)
    assert config is not None
    flags.out = Path(flags.out)
    if config.data.store is None or str(config.data.store).startswith("synthetic:"):
        raise UserError(Fault("data.store", config.data.store, "name a store, so that all runs read the same one"))
    if flags.out.exists():
        raise UserError(Fault("--out", str(flags.out), "exists; name a new folder"))
    flags.out.mkdir(parents=True)
    line = recipe_words(arguments)
    whole = start(line, flags.out / "whole", flags.out)
    if whole.wait() != 0:
        raise RuntimeError(f"the undisturbed run failed; see {flags.out / 'whole.log'}")
    expected = exact_values(flags.out / "whole")
    rng, kills, runs, differences = random.Random(flags.seed), {"SIGKILL": 0, "SIGTERM": 0}, 0, []
    while sum(kills.values()) < flags.kills:
        workdir = flags.out / f"killed{runs}"
        runs += 1
        while (name := disturb(line, workdir, flags.out, rng, flags.within_s, sum(kills.values()) < flags.kills)) != "":
            kills[name] += 1
            log.info("%d kills; the last was a %s", sum(kills.values()), name)
        found = exact_values(workdir)
        differences += [f"{workdir.name} step {step}" for step in expected if found.get(step) != expected[step]]
        differences += [f"{workdir.name} has {len(found)} steps, not {len(expected)}"] * (len(found) != len(expected))
    shutil.rmtree(flags.out / "compiled", ignore_errors=True)
    if differences:
        raise RuntimeError(f"{len(differences)} differences: {differences[:5]}")
    return {"kills": sum(kills.values()), **kills, "runs": runs, "steps": len(expected), "identical": True}


def start(line: Sequence[str], workdir: Path, out: Path) -> subprocess.Popen:
    """Start the run in `workdir`; what it says goes into a log beside it, what it compiles is kept for the next."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(out / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    with (out / f"{workdir.name}.log").open("a") as said:
        return subprocess.Popen(
            [sys.executable, str(LAUNCH), *line, "--workdir", str(workdir)],
            stdout=said,
            stderr=said,
            env=os.environ | cache,
        )


def disturb(line: Sequence[str], workdir: Path, out: Path, rng: random.Random, within_s: float, kill: bool) -> str:
    """Start the run and end it at a random moment; return by which signal, "" when it came to its end."""
    process, lines = start(line, workdir, out), count_lines(workdir)
    chosen, at_start = rng.choice([signal.SIGKILL, signal.SIGTERM]), rng.random() < 0.1
    while process.poll() is None and kill:
        if at_start or count_lines(workdir) > lines:
            time.sleep(rng.uniform(0.0, within_s))
            process.send_signal(chosen)
            break
        time.sleep(0.005)
    code = process.wait()
    if code == 0:
        return ""
    if code in (EXIT_PREEMPTED, -chosen) and kill:
        return chosen.name
    raise RuntimeError(f"{workdir.name} ended with {code}; see {out / workdir.name}.log")


def count_lines(workdir: Path) -> int:
    """Return the lines of a run's record so far."""
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def exact_values(workdir: Path) -> dict[int, str]:
    """Return by step what must not differ, as text."""
    found: dict[int, dict[str, Any]] = {}
    for record in read_metrics(workdir / "metrics.jsonl"):
        kept = {key: value for key, value in record.items() if key.startswith(EXACT)}
        found.setdefault(record["step"], {}).update(kept)
    return {step: json.dumps(values, sort_keys=True) for step, values in found.items()}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
