"""From recordings to a store: plan from headers, write shards in worker processes, assemble, make the index.

Work that a killed preparation finished is kept: started again, it writes only the shards that are missing, and the
store has the same bytes. It knows no waveform and no rule; those are `shards` and `pairs`.

    prepare_store([parse_source("synthetic:1600")], config, Path("store"), workers=2)
"""

import contextlib
import csv
import fcntl
import logging
import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from tqdm import tqdm

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.account import lines_of
from jaxbio.data.assemble import assemble_store, write_json
from jaxbio.data.known_labels import write_known_labels
from jaxbio.data.pairs import make_pairs
from jaxbio.data.plausibility import judge_sources
from jaxbio.data.recordings import Recording, Refused, Source, assign_subjects, list_recordings
from jaxbio.data.recordings.missing import roles_read
from jaxbio.data.shard_plan import KEPT, Plan, plan_store
from jaxbio.data.shards import PARTS, Part, read_part, write_shard
from jaxbio.data.store import INDEX, MANIFEST, Store, open_store
from jaxbio.data.whole_files import UNFINISHED

_PLAN = "plan.json"
_LOCK = "lock"


def prepare_store(
    sources: Sequence[Source],
    config: ConfigDict,
    out: Path | str,
    *,
    workers: int = 1,
    limit: int | None = None,
    subjects: Mapping[tuple[str, str], str] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the store of `sources` into folder `out` and return its manifest; a finished one is left as it is.

    `limit` takes the first recordings of every source only; `subjects` gives subjects by (source, recording).

    Raises UserError where the sources hold nothing, `out` holds another store or cannot be written.
    """
    found = find_recordings(sources, config, limit=limit, subjects=subjects)
    return prepare_recordings(found, config, out, workers=workers, progress=progress)


def find_recordings(
    sources: Sequence[Source],
    config: ConfigDict,
    *,
    limit: int | None = None,
    subjects: Mapping[tuple[str, str], str] | None = None,
) -> list[Recording | Refused]:
    """Return what the sources hold, from headers alone, in the order of the sources and of their names."""
    channels, policy = tuple(config.data.channels), config.prepare.missing_channel
    names = {role: config.prepare.channel_names[role] for role in roles_read(channels, policy)}
    found: list[Recording | Refused] = []
    listed: set[tuple[str, str]] = set()
    for source in sources:
        entries = list_recordings(
            source, names, required=channels, missing_channel=policy, min_duration_s=config.data.segment_s
        )
        listed |= {(entry.source, entry.recording) for entry in entries}
        found += assign_subjects(entries[:limit], subjects or {})
    _check_subjects(subjects or {}, listed)
    recordings = [entry for entry in found if isinstance(entry, Recording)]
    unknown = sum(not recording.subject_known for recording in recordings)
    if unknown:
        logging.warning(
            "%d of %d recordings name no subject: each counts as its own, so that a patient with several may be in "
            "several splits; --subjects FILE.csv mends that",
            unknown,
            len(recordings),
        )
    return found


def prepare_recordings(
    found: Sequence[Recording | Refused],
    config: ConfigDict,
    out: Path | str,
    *,
    workers: int = 1,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the store of these recordings into folder `out` and return its manifest; see `prepare_store`."""
    out = Path(out)
    plan = plan_store(found, config)
    if (out / MANIFEST).exists():
        return _reopen(out, plan, config).manifest
    with _writing(out), _locked(out):
        _begin(out, plan)
        parts = _write_shards(out, plan, workers, progress)
        if not any(part.records for part in parts):
            raise UserError(Fault("--source", "no segment was kept", _why_nothing(plan, parts)))
        store = assemble_store(out, plan, parts, config)
        make_pairs(store, config)
        write_known_labels(store, [entry for entry in found if isinstance(entry, Recording)])
        write_json(out / MANIFEST, store.manifest)
        shutil.rmtree(out / PARTS)
    for line in lines_of(store.manifest["account"]):
        logging.info(line)
    for line, doubt in judge_sources(store, config.quality.variant):
        logging.info(line)
        if doubt:
            logging.warning("doubtful: %s", doubt)
    return store.manifest


def read_subjects(path: Path | str) -> dict[tuple[str, str], str]:
    """Return {(source, recording): subject} of a CSV with the columns source, recording, subject.

    Raises UserError for a file that cannot be read, lacks a column or names a recording twice.
    """
    remedy = "a CSV in UTF-8 with the columns source,recording,subject and each recording once"
    subjects: dict[tuple[str, str], str] = {}
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            for number, line in enumerate(csv.DictReader(file), 2):
                key, subject = (line.get("source"), line.get("recording")), line.get("subject")
                if not (key[0] and key[1] and subject) or key in subjects:
                    raise UserError(Fault("--subjects", f"{path}, line {number}", remedy))
                subjects[key[0], key[1]] = subject
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(Fault("--subjects", str(path), f"{error}; {remedy}")) from None
    return subjects


def _check_subjects(subjects: Mapping[tuple[str, str], str], listed: set[tuple[str, str]]) -> None:
    """Refuse a file of subjects that knows none of the recordings, and say how many of its lines name none."""
    strangers = [key for key in subjects if key not in listed]
    if subjects and len(strangers) == len(subjects):
        example = ",".join(min(listed)) if listed else "none"
        remedy = f"names none of the recordings; one of them is source,recording = {example}"
        raise UserError(Fault("--subjects", ",".join(strangers[0]), remedy))
    if strangers:
        logging.warning("%d lines of --subjects name no recording; the first: %s,%s", len(strangers), *strangers[0])


def _reopen(out: Path, plan: Plan, config: ConfigDict) -> Store:
    store = open_store(out)
    if store.manifest["plan"] != plan.hash:
        raise UserError(Fault("--out", str(out), "holds a store of other recordings or settings: name another folder"))
    logging.info("%s is finished: nothing to prepare", out)
    shutil.rmtree(out / PARTS, ignore_errors=True)  # of a preparation that was killed after its last word
    make_pairs(store, config)
    return store


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Turn what a disk refuses into the user's fault, named."""
    try:
        yield
    except OSError as error:
        remedy = "make room or choose another --out, and start again: finished shards are kept"
        raise UserError(Fault("--out", str(out), f"{error}; {remedy}")) from error


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    (out / PARTS).mkdir(parents=True, exist_ok=True)
    with (out / PARTS / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(Fault("--out", str(out), "another preparation is writing there: wait for it")) from None
        yield


def _begin(out: Path, plan: Plan) -> None:
    """Refuse a folder in which something else was begun, and clear what a killed preparation left half-written."""
    begun = out / PARTS / _PLAN
    if not begun.exists():
        strangers = [entry.name for entry in out.iterdir() if entry.name != PARTS]
        if strangers:
            raise UserError(Fault("--out", str(out), f"holds {strangers[0]!r}: name a new or empty folder"))
        write_json(begun, {"plan": plan.hash, "config": plan.config})
    elif plan.hash not in begun.read_text(encoding="utf-8"):
        remedy = "a preparation of other recordings or settings was begun there: remove it, or name another folder"
        raise UserError(Fault("--out", str(out), remedy))
    for unfinished in (*out.glob(f"{UNFINISHED}*"), *(out / PARTS).glob(f"{UNFINISHED}*")):
        unfinished.unlink(missing_ok=True)
    shutil.rmtree(out / INDEX, ignore_errors=True)


def _write_shards(out: Path, plan: Plan, workers: int, progress: bool) -> list[Part]:
    """Write the shards that are missing and return the parts of all, in order; segments and time left are shown."""
    parts = {name: read_part(out, name) for name in map(plan.shard_name, range(len(plan.shards)))}
    missing = [number for number, part in enumerate(parts.values()) if part is None]
    done = sum(len_of(plan, number) for number in range(len(plan.shards)) if number not in set(missing))
    with tqdm(
        total=plan.windows, initial=done, unit=" segments", desc="prepare", smoothing=0.05, disable=not progress
    ) as bar:
        for number, part in _results(out, plan, missing, workers):
            parts[part.name] = part
            bar.update(len_of(plan, number))
    return [part for part in parts.values() if part is not None]


def len_of(plan: Plan, shard: int) -> int:
    """Return how many windows a shard reads."""
    return sum(block.windows for block in plan.shards[shard])


def _results(out: Path, plan: Plan, missing: Sequence[int], workers: int) -> Iterator[tuple[int, Part]]:
    jobs = {number: (out, plan.shard_name(number), number, plan.shards[number], plan.settings) for number in missing}
    if workers <= 1 or len(jobs) <= 1:
        for number, job in jobs.items():
            yield number, write_shard(*job)
        return
    # Spawned: the parent may hold threads (a launcher's JAX), which a fork would not survive.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_leave_with_parent) as pool:
        futures = {pool.submit(write_shard, *job): number for number, job in jobs.items()}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            remedy = "a worker was ended from outside, most often for want of memory: start again with fewer --workers"
            raise UserError(Fault("--workers", workers, remedy)) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_with_parent() -> None:
    """End this worker when its parent is gone, so that a killed preparation leaves nobody writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _why_nothing(plan: Plan, parts: Sequence[Part]) -> str:
    outcomes = [*plan.outcomes, *(outcome for part in parts for outcome in part.outcomes if outcome.outcome != KEPT)]
    seconds: dict[str, float] = {}
    details: dict[str, str] = {}
    for outcome in outcomes:
        seconds[outcome.outcome] = seconds.get(outcome.outcome, 0.0) + outcome.seconds
        details.setdefault(outcome.outcome, outcome.detail)
    listed = [
        f"{name} {spent:.0f} s" + (f" ({details[name]})" if details[name] else "")
        for name, spent in sorted(seconds.items())
    ]
    return f"look at one recording with tools/look.py; rejected: {', '.join(listed) or 'nothing was found'}"
