"""From recordings to a store: plan from headers, write shards in worker processes, assemble, make the index.

Work that a killed preparation finished is kept: started again, it writes only the shards that are missing, and the
store has the same bytes. It knows no waveform and no rule; those are `shards` and `pairs`.

    prepare_store([parse_source("synthetic:1600")], config, Path("store"), workers=2)
"""

import contextlib
import csv
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from tqdm import tqdm

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.interrupt import keeping
from jaxbio.config.local_paths import check_local
from jaxbio.config.refusals import advise
from jaxbio.data.account import lines_of
from jaxbio.data.assemble import assemble_store, write_json
from jaxbio.data.folder_lock import hold
from jaxbio.data.known_labels import write_known_labels
from jaxbio.data.pairs import make_pairs
from jaxbio.data.plausibility import judge_sources
from jaxbio.data.recordings import Recording, Refused, Source, assign_subjects, list_recordings
from jaxbio.data.recordings.missing import roles_read
from jaxbio.data.regular_files import open_text, read_text
from jaxbio.data.shard_plan import KEPT, Plan, plan_store
from jaxbio.data.shards import PARTS, Part, read_part, write_shard
from jaxbio.data.store import INDEX, MANIFEST, Store, open_store
from jaxbio.data.whole_files import remove_unfinished
from jaxbio.data.workers import open_pool

_PLAN = "plan.json"


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
    also: Sequence[str] = (),
) -> list[Recording | Refused]:
    """Return what the sources hold, from headers alone, in the order of the sources and of their names.

    `also` names roles that recordings may have beside the configured ones; none is refused for lacking them.
    """
    channels, policy = tuple(config.data.channels), config.prepare.missing_channel
    names = {role: config.prepare.channel_names[role] for role in (*roles_read(channels, policy), *also)}
    found: list[Recording | Refused] = []
    listed: set[tuple[str, str]] = set()
    for source in sources:
        entries = list_recordings(
            source, names, required=channels, missing_channel=policy, min_duration_s=config.data.segment_s
        )
        listed |= {(entry.source, entry.recording) for entry in entries}
        found += assign_subjects(entries[:limit], subjects or {})
    _check_source_names(sources, listed)
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
    out = _checked(out)
    plan = plan_store(found, config)
    if (out / MANIFEST).exists():
        return _reopen(out, plan, config).manifest
    words = f"finished shards are kept in {out}; start the same line again to go on with them"
    with _writing(out), _locked(out), keeping(words):
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
        with open_text(path) as file:
            for number, line in enumerate(csv.DictReader(file), 2):
                key, subject = (line.get("source"), line.get("recording")), line.get("subject")
                if not (key[0] and key[1] and subject) or key in subjects:
                    raise UserError(Fault("--subjects", f"{path}, line {number}", remedy))
                subjects[key[0], key[1]] = subject
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(Fault("--subjects", str(path), f"{error}; {remedy}")) from None
    return subjects


def _check_source_names(sources: Sequence[Source], listed: set[tuple[str, str]]) -> None:
    """Refuse two folders of one name: recordings and patients of both would pass for each other's."""
    folder_of: dict[str, str] = {}
    faults = []
    for source in sources:
        first = folder_of.setdefault(source.name, source.folder)
        if first != source.folder and source.format != "synthetic":
            example = min(recording for name, recording in listed if name == source.name)
            remedy = f"{first} and {source.folder} have one name, by which patients and splits go: "
            remedy += f"give one of them another, {source.format}:{source.path}?name=NAME"
            faults.append(Fault("--source", f"{source.name}: {example}", remedy))
    if faults:
        raise UserError(*faults)


def _check_subjects(subjects: Mapping[tuple[str, str], str], listed: set[tuple[str, str]]) -> None:
    """Refuse a file of subjects that knows none of the recordings, and say how many of its lines name none."""
    strangers = [key for key in subjects if key not in listed]
    if subjects and len(strangers) == len(subjects):
        example = ",".join(min(listed)) if listed else "none"
        remedy = f"names none of the recordings; one of them is source,recording = {example}"
        raise UserError(Fault("--subjects", ",".join(strangers[0]), remedy))
    if strangers:
        logging.warning("%d lines of --subjects name no recording; the first: %s,%s", len(strangers), *strangers[0])


def _checked(out: Path | str) -> Path:
    """Return the folder `out`; raises UserError for an address, and for a name that is no text."""
    check_local("--out", out)
    try:
        os.fspath(out).encode()
    except UnicodeEncodeError:
        remedy = "its name is no text in UTF-8, which the writer of shards needs: name another folder"
        raise UserError(Fault("--out", ascii(os.fspath(out)), remedy)) from None
    return Path(out)


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
        remedy = f"{error}; {advise(error)}, and start again: finished shards are kept"
        raise UserError(Fault("--out", str(out), remedy)) from error


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder of the parts: two preparations may not write into one store."""
    (out / PARTS).mkdir(parents=True, exist_ok=True)
    with hold(out / PARTS, field="--out", named=out):
        yield


def _begin(out: Path, plan: Plan) -> None:
    """Refuse a folder in which something else was begun, and clear what a killed preparation left half-written."""
    begun = out / PARTS / _PLAN
    if not begun.exists():
        strangers = [entry.name for entry in out.iterdir() if entry.name != PARTS]
        if strangers:
            raise UserError(Fault("--out", str(out), f"holds {strangers[0]!r}: name a new or empty folder"))
        write_json(begun, {"plan": plan.hash, "config": plan.config})
    elif plan.hash not in read_text(begun):
        remedy = "a preparation of other recordings or settings was begun there: remove it, or name another folder"
        raise UserError(Fault("--out", str(out), remedy))
    for folder in (out, out / PARTS):
        remove_unfinished(folder, alone=True)
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
    try:
        with open_pool(min(workers, len(jobs))) as pool:
            futures = {pool.submit(write_shard, *job): number for number, job in jobs.items()}
            for future in as_completed(futures):
                yield futures[future], future.result()
    except BrokenProcessPool:
        remedy = "a worker was ended from outside, most often for want of memory: start again with fewer --workers"
        raise UserError(Fault("--workers", workers, remedy)) from None


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
