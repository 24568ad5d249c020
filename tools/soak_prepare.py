"""Kill a preparation at random, start it again, and compare its store with one that was left alone: every byte.

python tools/soak_prepare.py --config configs/quickstart.py --source synthetic:2000 --out DIR --kills 20
python tools/soak_prepare.py --config configs/quickstart.py --source synthetic:2000 --out DIR --kills 20 --on dask
python tools/soak_prepare.py --config configs/quickstart.py --source synthetic:2000 --out DIR --kills 20 --on shares

Real processes of tools/prepare_store.py, ended by SIGKILL when a random number of shards is written: one of two local
processes; on a cluster that is started here (a scheduler, two workers) one of its workers or the command; one of three
shares that work at the same time. A store that is finished before all kills are spent is followed by another. Exit 1
when any byte differs.
"""

import argparse
import contextlib
import hashlib
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

from jaxbio.config.command_line import parse_command, recipe_words
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.data.store_files import MANIFEST

ROOT = Path(__file__).resolve().parent.parent
SHARES = 3
_PATIENCE_S = 120
log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Prepare once undisturbed and as often as it takes disturbed; return how many kills and stores there were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", required=True, metavar="FORMAT:PATH", help="may be repeated")
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder for the stores")
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="how often something is ended")
    parser.add_argument("--on", choices=("local", "dask", "shares"), default="local", help="who prepares")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of who is ended")
    flags, _ = parse_command(arguments, parser)
    out = Path(flags.out)
    if out.exists():
        raise UserError(Fault("--out", str(out), "exists; name a new folder"))
    out.mkdir(parents=True)
    line = [*recipe_words(arguments), *(word for source in flags.source for word in ("--source", source))]
    whole = start([*line, "--out", str(out / "whole")], out / "whole.log")
    if whole.wait():
        raise RuntimeError(f"the undisturbed preparation failed; see {out / 'whole.log'}")
    expected, total = bytes_of(out / "whole"), shards_in(out / "whole")
    chance, kills, stores = random.Random(flags.seed), 0, 0
    moments: list[int] = []
    with cluster(out / "cluster") if flags.on == "dask" else contextlib.nullcontext() as workers:
        while kills < flags.kills or stores == 0:
            store = out / "disturbed"
            shutil.rmtree(store, ignore_errors=True)
            while not (store / MANIFEST).exists():
                if shards_in(store) == total and chance.random() < 0.7:  # else every later moment would lie in the end
                    shutil.rmtree(store)
                lines = lines_of(flags.on, [*line, "--out", str(store)], workers)
                started = [start(words, out / "disturbed.log") for words in lines]
                victim = None
                moment = min(total, shards_in(store) + chance.randint(0, 1 + total // 4))
                if kills < flags.kills and await_shards(store, moment, started):
                    victim = chance.choice([*started, *(workers.processes if workers else ())])
                    moments.append(shards_in(store))
                    victim.kill()
                    kills += 1
                    log.info("%d kills; the last with %d shards", kills, moments[-1])
                if any(process.wait() for process in started if process is not victim):
                    raise RuntimeError(f"one that was not ended failed; see {out / 'disturbed.log'}")
                if victim is not None:
                    victim.wait()
                if workers:
                    workers.refill()
            differing = sorted(name for name, digest in bytes_of(store).items() if expected.get(name) != digest)
            if differing or bytes_of(store).keys() != expected.keys():
                raise RuntimeError(f"store {stores} differs: {differing or 'other files'}")
            stores += 1
    return {"on": flags.on, "kills": kills, "stores": stores, "moments": moments, "identical": True}


def lines_of(on: str, line: Sequence[str], workers: "Workers | None") -> list[list[str]]:
    """Return the command lines that prepare one store together."""
    if on == "shares":
        return [[*line, "--share", f"{share}/{SHARES}"] for share in range(SHARES)]
    return [[*line, "--runner", f"dask:{workers.address}"] if workers else [*line, "--workers", "2"]]


def start(words: Sequence[str], said: Path) -> subprocess.Popen:
    """Start tools/prepare_store.py; what it says goes to the end of file `said`."""
    with said.open("a") as file:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "tools/prepare_store.py"), *words], stdout=file, stderr=file, env=environment()
        )


def await_shards(store: Path, shards: int, started: Sequence[subprocess.Popen]) -> bool:
    """Wait until so many shards are written, and a random moment more; return whether somebody is still at work."""
    while shards_in(store) < shards and any(process.poll() is None for process in started):
        time.sleep(0.002)
    time.sleep(random.uniform(0.0, 0.05))
    return any(process.poll() is None for process in started)


class Workers:
    """Two dask workers of the scheduler at `address`, each a process, one thread each."""

    def __init__(self, address: str, said: Path):
        self.address, self._said = address, said
        self.processes: list[subprocess.Popen] = []
        self.refill()

    def refill(self) -> None:
        """Start workers in the place of those that were ended."""
        self.processes = [process for process in self.processes if process.poll() is None]
        while len(self.processes) < 2:
            words = ["worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "60"]
            self.processes.append(start_dask(words, self._said))
        wait_for_workers(self.address, 2)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Workers]:
    """A scheduler and two workers on this machine for the time of a with block."""
    folder.mkdir(parents=True)
    file = folder / "scheduler.json"
    words = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    scheduler = start_dask(words, folder / "log")
    workers = None
    try:
        until = time.monotonic() + _PATIENCE_S
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.05)
        workers = Workers(json.loads(file.read_text())["address"], folder / "log")
        yield workers
    finally:
        for process in (*(workers.processes if workers else ()), scheduler):
            process.kill()
            process.wait()


def start_dask(words: Sequence[str], said: Path) -> subprocess.Popen:
    """Start a scheduler or a worker in the folder of its log."""
    line = [sys.executable, "-m", f"distributed.cli.dask_{words[0]}", *words[1:]]
    with said.open("a") as file:
        return subprocess.Popen(line, stdout=file, stderr=file, env=environment(), cwd=said.parent)


def wait_for_workers(address: str, workers: int) -> None:
    """Return when the scheduler has exactly so many workers: those that were ended are forgotten."""
    from distributed import Client

    until = time.monotonic() + _PATIENCE_S
    with Client(address, timeout=_PATIENCE_S, set_as_default=False) as client:
        while len(client.scheduler_info(n_workers=-1)["workers"]) != workers:
            if time.monotonic() > until:
                raise RuntimeError(f"{address} does not come to have {workers} workers")
            time.sleep(0.1)


def environment() -> dict[str, str]:
    """The environment of what is started: this clone, one thread a process."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def shards_in(store: Path) -> int:
    """Return how many shards are written."""
    return len(list(store.glob("segments-*.array_record")))


def bytes_of(store: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a store but its page, by relative path."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.suffix != ".html"
    }


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
