"""A pod on this machine: processes over the network stack, delayed and killed at random, beside one left alone.

python tools/simulate_pod.py --config RECIPE --config.data.store=STORE --out DIR --hosts 2,4 --kills 20

The same run is made by one process, by each number of hosts undisturbed, and by hosts whose number changes from start
to start, one of which is ended by SIGKILL, SIGTERM or SIGSTOP; all starts have the same number of simulated devices.
What must hold: losses are those of the one process (--tolerance); the rows of a step come to the devices of all hosts
together once each, and are those of the one process; after a signal every process ends within --limit_s, with the
exit code and the words for it, and a start without one within --start_limit_s; processes that CPUs' network library
ended instead are counted, and never are all of them. Exit 1 when anything does not.
"""

import argparse
import json
import logging
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    if sys.argv[1:2] == ["as_host"]:  # this file is the pod's processes, too
        begin(75, (signal.SIGINT, signal.SIGTERM))
    else:
        begin()

from jaxbio.config.command_line import count, counts, parse_command, recipe_words
from jaxbio.config.faults import EXIT_PEER_GONE, EXIT_PREEMPTED, Fault, UserError, run_command
from jaxbio.training.writers import read_metrics

log = logging.getLogger(__name__)
AS_HOST = "as_host"
HOST = (sys.executable, __file__, AS_HOST)  # the process of one host
# What all others end with, and say of process {0}, when it gets a signal.
GONE = EXIT_PEER_GONE, r"process {0}\b.* is gone, killed or cut off"
ENDS = {signal.SIGKILL: GONE, signal.SIGSTOP: GONE, signal.SIGTERM: (EXIT_PREEMPTED, "preempted: ")}
# What CPUs' network library says when it ends a process by SIGABRT, whose next collective meets what is left of the one
# that another process died in. GPUs and TPUs have no such library.
ABORTED = "gloo::EnforceNotMet"
DELAYED = 0.1  # share of the batches that come late


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Make the run in one process, in each number of them, and disturbed; return what was done."""
    flags, config = parse_command(arguments, make_parser())
    assert config is not None
    hosts = flags.hosts
    check(flags, hosts, config.data)
    limits = flags.limit_s, flags.start_limit_s
    pod = Pod(recipe_words(arguments), Path(flags.out), flags.devices, flags.delay_s, *limits)
    pod.out.mkdir(parents=True)
    whole, differences = pod.undisturbed("whole", 1), []
    for processes in hosts:
        differences += compare(whole, pod.undisturbed(f"hosts_{processes}", processes), flags.tolerance)
        log.info("%d hosts: %d differences so far", processes, len(differences))
    rng, kills, runs = random.Random(flags.seed), [], 0
    while len(kills) < flags.kills:
        kills += pod.disturbed(f"disturbed_{runs}", hosts, rng, flags.kills - len(kills), flags.within_steps)
        differences += compare(whole, read_run(pod.out / f"disturbed_{runs}"), flags.tolerance)
        runs += 1
        log.info("%d kills in %d runs: %d differences so far", len(kills), runs, len(differences))
    if differences:
        raise RuntimeError(f"{len(differences)} differences: {differences[:5]}")
    by_signal = {name.name: sum(kill.signal == name for kill in kills) for name in ENDS}
    longest_s = max((kill.ended_after_s for kill in kills), default=0.0)
    ends = {"longest_end_s": round(longest_s, 1), "ended_by_gloo": sum(kill.ended_by_gloo for kill in kills)}
    return {"kills": len(kills), **by_signal, "runs": runs, **ends, "hosts": list(hosts)}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's own flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="new folder for the runs")
    add("--hosts", type=counts, default="2,4", metavar="N,N", help="numbers of processes to try")
    add("--devices", type=count, default=4, metavar="N", help="simulated devices of all processes together")
    add("--kills", type=int, default=0, metavar="N", help="how often a process is ended")
    add("--delay_s", type=float, default=0.2, help="by how much a host's batch is late at most, one in ten")
    add(
        "--within_steps",
        type=count,
        default=20,
        metavar="N",
        help="a start gets its signal after one of its first N steps, drawn at random",
    )
    add("--limit_s", type=float, default=60.0, help="from a signal to the end of every process, at most")
    add("--start_limit_s", type=float, default=3600.0, help="from a start to its signal, or to its end, at most")
    add("--tolerance", type=float, default=1e-5, help="relative difference of losses")
    add("--seed", type=int, default=0, help="of signals, moments and numbers of hosts")
    return parser


def check(flags: argparse.Namespace, hosts: Sequence[int], data: Any) -> None:
    """Raise UserError for flags and fields that do not go together."""
    faults = [
        Fault("--hosts", number, f"divisors of --devices={flags.devices}") for number in hosts if flags.devices % number
    ]
    if data.store is None or str(data.store).startswith("synthetic:"):
        faults.append(Fault("data.store", data.store, "name a store, so that all runs read the same one"))
    if data.cache == "device":
        faults.append(
            Fault("data.cache", data.cache, "none or host: rows that a device draws itself are not seen here")
        )
    if Path(flags.out).exists():
        faults.append(Fault("--out", flags.out, "exists; name a new folder"))
    if faults:
        raise UserError(*faults)


@dataclass(frozen=True)
class Kill:
    """A process that got a signal, of how many; how long it took until all had ended, in seconds; and how many of them
    did not end by themselves.
    """

    signal: signal.Signals
    process: int
    processes: int
    ended_after_s: float
    ended_by_gloo: int


@dataclass(frozen=True)
class Run:
    """What a run leaves: losses by key and step, and by step the rows that came to devices, start after start."""

    losses: dict[str, dict[int, float]] = field(default_factory=dict)
    rows: dict[int, list[Counter[tuple[int, ...]]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pod:
    """Starts the processes of a launch line; what each says and the rows that it gets lie beside the workdir.

    `limit_s` is from a signal to the end of every process, `start_limit_s` from a start to its signal or its end.
    """

    line: Sequence[str]
    out: Path
    devices: int
    delay_s: float
    limit_s: float
    start_limit_s: float

    def undisturbed(self, name: str, processes: int) -> Run:
        """Make a run in so many processes, of which several are delayed, and none ended."""
        started = self._start(self.out / name, processes, 0, self.delay_s if processes > 1 else 0.0)
        self._check_done(started, self.out / name)
        return read_run(self.out / name)

    def disturbed(self, name: str, hosts: Sequence[int], rng: random.Random, most: int, within: int) -> list[Kill]:
        """Make a run, ended `most` times at most, after one of the first `within` steps of a start, and each time
        started again by some number of hosts.
        """
        workdir, kills, starts = self.out / name, [], 0
        while len(kills) < most:
            processes = self._start(workdir, rng.choice(hosts), starts, self.delay_s)
            starts += 1
            kill = self._kill_one(processes, workdir, rng, within)
            if kill is None:
                break
            kills.append(kill)
            named = f"{kill.signal.name} to process {kill.process} of {kill.processes}"
            log.info("%s %s: all ended after %.1f s, %d by gloo", name, named, kill.ended_after_s, kill.ended_by_gloo)
        self._check_done(self._start(workdir, rng.choice(hosts), starts, self.delay_s), workdir)
        return kills

    def _start(self, workdir: Path, processes: int, start: int, delay_s: float) -> list[subprocess.Popen]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        flag = f"--xla_force_host_platform_device_count={self.devices // processes}"
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flag}
        started = []
        for number in range(processes):
            own = [str(rows_file(workdir, number)), str(start), str(delay_s)]
            cluster = ["--coordinator", address, "--processes", str(processes), "--process", str(number)]
            words = [*self.line, "--workdir", str(workdir), *(cluster if processes > 1 else [])]
            with log_file(workdir, number).open("a") as said:
                command = [*HOST, *own, *words]
                started.append(subprocess.Popen(command, stdout=said, stderr=said, env=environment))
        return started

    def _kill_one(
        self, processes: Sequence[subprocess.Popen], workdir: Path, rng: random.Random, within: int
    ) -> Kill | None:
        """Send a signal to one process when it has some of its batches; None where the run was done before it came."""
        chosen, number = rng.choice(list(ENDS)), rng.randrange(len(processes))
        said, rows = log_file(workdir, number), rows_file(workdir, number)
        wanted = count_lines(rows) + rng.randint(1, within)
        until = time.monotonic() + self.start_limit_s
        said_before = [size_bytes(log_file(workdir, place)) for place in range(len(processes))]
        while count_lines(rows) < wanted and processes[number].poll() is None:
            if time.monotonic() > until:
                end(processes)
                raise RuntimeError(
                    f"{workdir.name}: process {number} has {count_lines(rows)} batches of {wanted} after "
                    f"{self.start_limit_s:g} s, see {said}"
                )
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, self.delay_s))
        if processes[number].poll() is not None:
            self._check_done(processes, workdir)
            return None
        processes[number].send_signal(chosen)
        began = time.monotonic()
        others = [place for place in range(len(processes)) if place != number or chosen == signal.SIGTERM]
        while any(processes[place].poll() is None for place in others):
            if time.monotonic() - began > self.limit_s:
                end(processes)
                raise RuntimeError(f"{chosen.name} to process {number}: hangs for {self.limit_s} s, see {said}")
            time.sleep(0.05)
        ended_after_s = time.monotonic() - began
        end(processes)
        if all(processes[place].returncode == 0 for place in others or [number]):
            return None  # the last step was done before the signal came
        ended_by_gloo = 0
        for place in others:
            path, ended = log_file(workdir, place), processes[place].returncode
            text = path.read_bytes()[said_before[place] :].decode()
            if chosen != signal.SIGTERM and ended == -signal.SIGABRT and ABORTED in text:
                ended_by_gloo += 1
            elif not is_right_end(chosen, number, ended, text):
                raise RuntimeError(f"{chosen.name} to {number}: process {place} ended with {ended}, see {path}")
        if others and ended_by_gloo == len(others):
            raise RuntimeError(f"{chosen.name} to {number}: no process was left to say so, see {said}")
        return Kill(chosen, number, len(processes), ended_after_s, ended_by_gloo)

    def _check_done(self, processes: Sequence[subprocess.Popen], workdir: Path) -> None:
        """See that all processes end by themselves and well."""
        until = time.monotonic() + self.start_limit_s
        while running := [number for number, process in enumerate(processes) if process.poll() is None]:
            if time.monotonic() > until:
                end(processes)
                said = log_file(workdir, running[0])
                raise RuntimeError(
                    f"{workdir.name}: processes {running} run on after {self.start_limit_s:g} s, see {said}"
                )
            time.sleep(0.05)
        codes = [process.returncode for process in processes]
        if any(codes):
            raise RuntimeError(f"{workdir.name} ended with {codes}; see {log_file(workdir, 0)}")


def is_right_end(chosen: signal.Signals, number: int, ended: int, text: str) -> bool:
    """Tell whether a process ended as it should after the signal `chosen` to process `number`: exit code and words."""
    code, words = ENDS[chosen]
    return ended == code and re.search(words.format(number), text) is not None


def end(processes: Sequence[subprocess.Popen]) -> None:
    """End what is left of the processes."""
    for process in processes:
        process.kill()
        process.wait()


def log_file(workdir: Path, process: int) -> Path:
    """Return where a process's words go."""
    return workdir.with_name(f"{workdir.name}.{process}.log")


def rows_file(workdir: Path, process: int) -> Path:
    """Return where a process writes the rows that come to its devices."""
    return workdir.with_name(f"{workdir.name}.{process}.rows")


def count_lines(path: Path) -> int:
    """Return how many lines a file has, 0 where there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def size_bytes(path: Path) -> int:
    """Return the size of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def read_run(workdir: Path) -> Run:
    """Return losses and rows of a run."""
    run = Run()
    for record in read_metrics(workdir / "metrics.jsonl"):
        for key in ("train/loss", "eval/loss"):
            if key in record:
                run.losses.setdefault(key, {})[record["step"]] = record[key]
    by_start: dict[tuple[int, int], Counter[tuple[int, ...]]] = {}
    for path in workdir.parent.glob(f"{workdir.name}.*.rows"):
        for line in path.read_text().splitlines():
            said = json.loads(line)
            by_start.setdefault((said["start"], said["step"]), Counter()).update(map(tuple, said["rows"]))
    for (_, step), rows in sorted(by_start.items(), key=lambda item: item[0]):
        run.rows.setdefault(step, []).append(rows)
    return run


def compare(whole: Run, found: Run, tolerance: float) -> Iterator[str]:
    """Yield what differs: a loss; rows that no device should have got, or too often, or that none has got."""
    for key, wanted in whole.losses.items():
        got = found.losses.get(key, {})
        if got.keys() != wanted.keys():
            yield f"{key} of {len(got)} steps, not {len(wanted)}"
            continue
        for step, value in wanted.items():
            if abs(got[step] - value) > tolerance * abs(value):
                yield f"{key} at step {step}: {got[step]} instead of {value}"
    for step, (rows,) in whole.rows.items():
        tries = found.rows.get(step, [Counter()])
        if tries[-1] != rows or any(tried - rows for tried in tries):  # a start that was ended may lack some
            yield f"rows of step {step}"


class Recorded:
    """The data of a run that comes late at random and writes down which rows come to this process's devices."""

    def __init__(self, data: Any, rows: Path, start: int, delay_s: float):
        self._data, self._rows, self._start, self._delay_s = data, rows, start, delay_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def batches(self, mesh: Any, start_step: int) -> Iterator[Any]:
        """Yield the batches of the data."""
        batches = self._data.batches(mesh, start_step)
        try:
            for batch in batches:
                if random.random() < DELAYED:
                    time.sleep(random.uniform(0.0, self._delay_s))
                self._write(batch)
                yield batch
        finally:
            batches.close()

    def _write(self, batch: Any) -> None:
        """Write the rows of a dispatch, a line a step, from the arrays that lie on the devices."""
        with self._rows.open("a") as file:
            for place in range(len(batch.rows_crc32)):
                shards = [shard for shard in batch.arrays["row_BM"].addressable_shards if shard.replica_id == 0]
                rows = [row.tolist() for shard in shards for row in shard.data[place].__array__()]
                file.write(json.dumps({"start": self._start, "step": batch.step + place, "rows": rows}) + "\n")


def run_as_host(rows: str, start: str, delay_s: str, *line: str) -> None:
    """Run the launch line `line` as one host of the pod."""
    from launch import run as launch

    sys.argv[1:] = line
    train = launch.start

    def recorded(config: Any, data: Any, *others: Any, **named: Any) -> Any:
        return train(config, Recorded(data, Path(rows), int(start), float(delay_s)), *others, **named)

    launch.start = recorded
    run_command(launch.main)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("absl").setLevel(logging.WARNING)
    if sys.argv[1:2] == [AS_HOST]:
        run_as_host(*sys.argv[2:])
    run_command(main)
