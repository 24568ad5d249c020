"""Measure how fast recordings become finished shards: segments over CPU seconds of all processes, start-up excluded.

python tools/bench_prepare.py --config configs/qualityfm_base.py --source wfdb:/data/cinc2015_vt
python tools/bench_prepare.py --config configs/qualityfm_base.py --source wfdb:/data/cinc2015_vt --workers 2 --repeats 5

Counted are listing, planning, reading, measuring (every term of both quality variants), writing and hashing; segments
are those that were kept. Started processes and imported libraries are not counted, nor is one first shard.
"""

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

# One thread a worker: processes already fill the cores. Before NumPy is imported, here and in every worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from ml_collections import ConfigDict

from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import run_command
from jaxbio.config.peak_memory import peak_bytes
from jaxbio.data.listing import find_recordings
from jaxbio.data.recordings import Source, parse_source
from jaxbio.data.shard_plan import plan_store
from jaxbio.data.shards import write_shard
from jaxbio.data.store_files import PARTS
from jaxbio.data.workers import open_pool


def main(arguments: Sequence[str]) -> dict:
    """Prepare the sources' shards several times into temporary folders; return the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", required=True, metavar="FORMAT:PATH", help="may be repeated")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="runs; the median counts")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N recordings of every source")
    flags, config = parse_command(arguments, parser)
    sources = [parse_source(text) for text in flags.source]
    with open_pool(flags.workers) as pool:
        _prepare(pool, sources, config, 1)
        runs = [_prepare(pool, sources, config, flags.limit) for _ in range(flags.repeats)]
        peaks = list(pool.map(_peak_of, range(flags.workers)))
    segments, cpu_s, wall_s = (statistics.median(values) for values in zip(*(run[:3] for run in runs), strict=True))
    return {
        "segments_per_s_per_core": round(segments / cpu_s, 1),
        "segments_per_s": round(segments / wall_s, 1),
        "segments": int(segments),
        "workers": flags.workers,
        "peak_bytes_a_worker": max(peaks),
        "each": [round(segments / cpu_s, 1) for segments, cpu_s, *_ in runs],
        "along_the_last": _by_tenths(runs[-1].done),
    }


class Written(NamedTuple):
    """What writing one shard took: its segments, CPU seconds, and the most memory its worker has had until then."""

    segments: int
    cpu_s: float
    peak_bytes: int


class Run(NamedTuple):
    """One preparation: segments kept, CPU seconds of all processes, seconds, and its shards in order."""

    segments: int
    cpu_s: float
    wall_s: float
    done: list[Written]


def _by_tenths(done: Sequence[Written]) -> list[tuple[float, int]]:
    """Return segments a CPU second, and the peak of memory, of each tenth of the shards: whether either drifts."""
    step = max(1, -(-len(done) // 10))
    tenths = [done[first : first + step] for first in range(0, len(done), step)]
    return [
        (
            round(sum(one.segments for one in tenth) / max(1e-9, sum(one.cpu_s for one in tenth)), 1),
            max(one.peak_bytes for one in tenth),
        )
        for tenth in tenths
    ]


def _prepare(pool: ProcessPoolExecutor, sources: Sequence[Source], config: ConfigDict, limit: int | None) -> Run:
    began_s, cpu_s = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / PARTS).mkdir()
        plan = plan_store(find_recordings(sources, config, limit=limit), config)
        jobs = [
            (Path(folder), plan.shard_name(number), number, blocks, plan.settings)
            for number, blocks in enumerate(plan.shards)
        ]
        done = list(pool.map(_write_timed, jobs))
        cpu_s = time.process_time() - cpu_s + sum(one.cpu_s for one in done)
        return Run(sum(one.segments for one in done), cpu_s, time.perf_counter() - began_s, done)


def _write_timed(job: tuple) -> Written:
    began_s = time.process_time()
    part = write_shard(*job)
    return Written(part.records, time.process_time() - began_s, peak_bytes())


def _peak_of(_: int) -> int:
    return peak_bytes()


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    run_command(main)
