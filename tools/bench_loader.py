"""Time the loader beside raw array_record, at the same batches in the same run: pairs a second, assembled.

python tools/bench_loader.py --config configs/qualityfm_base.py --store store --config.train.batch=512
python tools/bench_loader.py --config configs/quickstart.py --source synthetic:1600 --config.data.cache=host
python tools/bench_loader.py --config configs/qualityfm_base.py --store store --soak_s 60      memory after a minute

Under data.batching=neighbourhoods the pairs of a step are the mean of those among its segments. With data.cache=device
the loader is the drawing of a step's rows from the memory of one device, a program of its own. Raw is
`ArrayRecordReader.read(list of rows)`, shard by shard, with and without the join into one array. Every figure is a
median over repeats that take turns; the steps are the same in each, and read once before: the page cache is warm.
"""

import argparse
import contextlib
import itertools
import logging
import math
import statistics
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

import jax
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from ml_collections import ConfigDict

from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import run_command
from jaxbio.config.interrupt import temporary_folder
from jaxbio.data.loader import Loader, make_loader
from jaxbio.data.pairs import make_pairs
from jaxbio.data.prepare import prepare_store
from jaxbio.data.recordings import parse_source
from jaxbio.data.store import Store, open_store
from jaxbio.training.run_data import RunData, open_run_data
from jaxbio.training.sharding import batch_sharding, make_mesh
from launch import environment

log = logging.getLogger(__name__)

Batches = Generator[object, None, None]


def main(arguments: Sequence[str]) -> dict:
    """Time raw reading and the loader of a recipe on a store; return medians, their ratio and the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--store", metavar="DIR", help="a finished store")
    place.add_argument("--source", action="append", metavar="FORMAT:PATH", help="prepare a store for this run alone")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="batches timed at a time")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="times each is timed; the median counts")
    parser.add_argument(
        "--soak_s", type=float, default=0.0, metavar="S", help="then load for S seconds; memory after it"
    )
    flags, config = parse_command(arguments, parser)
    allocator = environment.keep_large_buffers()
    with temporary_folder() as folder:
        if flags.source:
            prepare_store([parse_source(text) for text in flags.source], config, folder / "store")
        store = open_store(flags.store or folder / "store")
        store.check(config)
        make_pairs(store, config)
        cache_dir = folder / "cache" if flags.source else None
        return bench(store, config, flags.steps, flags.repeats, flags.soak_s, cache_dir) | {"allocator": allocator}


def bench(
    store: Store, config: ConfigDict, steps: int, repeats: int, soak_s: float, cache_dir: Path | None = None
) -> dict:
    """Return pairs a second of raw reading and of the loader, medians of `repeats` times `steps` batches.

    The batches are those of a run, of pairs or of neighbourhoods.
    """
    data = open_run_data(config, str(store.path))

    def loader() -> Loader:
        return make_loader(
            store,
            data.drawn,
            data.order,
            by_row=data.by_row,
            cache=config.data.cache,
            cache_dir=cache_dir,
            read_threads=config.data.read_threads,
            prefetch=config.data.prefetch,
        )

    def load() -> Batches:
        if config.data.cache == "device":
            yield from draw_on_device(data)
            return
        with loader() as batches:
            yield from batches

    ways: dict[str, Callable[[], Batches]] = {
        "raw": lambda: read_raw(store, data, join=True),
        "raw_unjoined": lambda: read_raw(store, data, join=False),
        "loader": load,
    }
    pairs_per_s: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, start in ways.items():
            seconds = time_steps(start(), steps)
            if repeat:  # the first warms the page cache, and builds the host's cache
                pairs_per_s[name].append(steps * data.pairs_per_step / seconds)
        log.info("repeat %d: %s", repeat, {name: round(found[-1]) for name, found in pairs_per_s.items() if found})
    memory = soak(contextlib.closing(load()), soak_s)
    median = {name: statistics.median(found) for name, found in pairs_per_s.items()}
    return {
        "pairs_per_s": median["loader"],
        "ratio_to_raw": median["loader"] / median["raw"],
        "ratio_to_raw_unjoined": median["loader"] / median["raw_unjoined"],
        "raw_pairs_per_s": median["raw"],
        "raw_unjoined_pairs_per_s": median["raw_unjoined"],
        "pairs_per_s_min": min(pairs_per_s["loader"]),
        "pairs_per_s_max": max(pairs_per_s["loader"]),
        "repeats": repeats,
        "cache": config.data.cache,
        "read_threads": config.data.read_threads,
        "prefetch": config.data.prefetch,
        "batching": config.data.batching,
        "batch": config.train.batch,
        "pairs_per_step": data.pairs_per_step,
        "pairs": len(data.train.rows_NM),
        "segments": store.rows,
        "segment_bytes": math.prod(store.record_CT) * 2,
        "shards": len(store.shards),
        "cache_bytes": store.rows * math.prod(store.record_CT) * 2 if config.data.cache == "host" else 0,
        "soak_s": soak_s,
        **memory,
    }


def read_raw(store: Store, data: RunData, *, join: bool) -> Batches:
    """Yield the batches of steps 0, 1, ... as array_record gives them: a list of records, or joined into one array."""
    readers = [ArrayRecordReader(str(store.path / shard["name"]), "readahead_buffer_size:0") for shard in store.shards]
    step = 0
    while True:
        row_N = data.rows(step).reshape(-1).astype(np.int64)
        shard_N = np.searchsorted(store.first_rows, row_N, side="right") - 1
        records: list[bytes] = []
        for shard in np.unique(shard_N):
            records += readers[shard].read((row_N[shard_N == shard] - store.first_rows[shard]).tolist())
        yield np.frombuffer(b"".join(records), "<i2").reshape(-1, store.length) if join else records
        step += 1


def time_steps(batches: Batches, steps: int) -> float:
    """Return the seconds of `steps` batches, start-up and the first batches apart."""
    with contextlib.closing(batches):
        for _ in range(3):
            next(batches)
        started = time.perf_counter()
        for _ in range(steps):
            next(batches)
        return time.perf_counter() - started


def draw_on_device(data: RunData) -> Batches:
    """Yield the batches of steps 0, 1, ... as a device draws them from its memory; it is waited for."""
    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    resident = data.resident(mesh)
    assert resident is not None, "data.cache is device"
    source = resident.load(data.store)
    fetch = jax.jit(resident.fetch, out_shardings=batch_sharding(mesh))
    for step in itertools.count():
        yield jax.block_until_ready(fetch(source, np.int32(step)))


def soak(loading: contextlib.closing[Batches], seconds: float) -> dict[str, int]:
    """Load for `seconds`; return the process's resident memory after it, and what of it is no file's page, bytes."""
    with loading as batches:
        until = time.monotonic() + seconds
        next(batches)
        while time.monotonic() < until:
            next(batches)
        lines = Path("/proc/self/status").read_text().splitlines()
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest}
    return {"resident_bytes": kib["VmRSS"] * 1024, "resident_anonymous_bytes": kib["RssAnon"] * 1024}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
