"""From recordings to a store: plan from headers, write shards, assemble, make the index.

Who writes the shards is a runner's affair, or that of several jobs, a share each. Work that a killed preparation
finished is kept: started again, only the shards that are missing are written, and the store has the same bytes. It
knows no waveform and no rule; those are `shards` and `pairs`.

    prepare_store([parse_source("synthetic:1600")], config, Path("store"), workers=2)
    prepare_share([parse_source("synthetic:1600")], config, Path("store"), parse_share("0/3"))
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from tqdm import tqdm

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.interrupt import keeping
from jaxbio.config.local_paths import check_local
from jaxbio.config.refusals import advise
from jaxbio.data.account import lines_of
from jaxbio.data.addition import Base, finish_addition, is_decided, open_base
from jaxbio.data.assemble import assemble_store, write_json
from jaxbio.data.begun import LISTING, agree, settle_plan
from jaxbio.data.folder_lock import hold, name_holder
from jaxbio.data.known_labels import write_known_labels
from jaxbio.data.listing import Groups, find_recordings
from jaxbio.data.pairs import make_pairs
from jaxbio.data.plan_file import write_planned
from jaxbio.data.plausibility import judge_sources
from jaxbio.data.pseudonyms import SubjectKey
from jaxbio.data.recordings import Recording, Refused, Source, list_found
from jaxbio.data.runners import LocalProcesses, Piece, Runner
from jaxbio.data.shard_plan import KEPT, Plan, plan_store, preparation_config
from jaxbio.data.shards import Part, read_part, write_shard
from jaxbio.data.shares import Share, check_no_share, hold_share
from jaxbio.data.store import Store, open_store
from jaxbio.data.store_files import INDEX, MANIFEST, PARTS
from jaxbio.data.whole_files import remove_unfinished


@dataclass(frozen=True)
class Preparation:
    """What a store is made of: sources, configuration, and what is said about their recordings (`find_recordings`).

    `adds` extends the finished store in the folder by recordings that it does not know.
    """

    sources: Sequence[Source]
    config: ConfigDict
    limit: int | None = None
    subjects: Mapping[tuple[str, str], str] | None = None
    excluded: Sequence[tuple[str, str]] = ()
    key: SubjectKey | None = None
    adds: bool = False

    def request(self, base: Base | None) -> str:
        """Hash of all that decides the plan, but for what the sources hold."""
        sources = [(source.format, os.path.realpath(source.path), repr(source.options)) for source in self.sources]
        said: list[Any] = [sources, preparation_config(self.config), self.limit, sorted((self.subjects or {}).items())]
        said += [sorted(self.excluded), self.key.id if self.key else None, base.store.hash if base else None]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]

    def plan(self, base: Base | None, groups: Groups | None = None) -> Plan:
        """Return the plan of what the sources hold and `base` does not; `groups` lists in groups."""
        found = find_recordings(
            self.sources,
            self.config,
            limit=self.limit,
            subjects=self.subjects,
            excluded=self.excluded,
            key=self.key,
            read=groups.read if groups else list_found,
        )
        if base is None:
            return plan_store(found, self.config)
        return replace(plan_store(base.leave_out_known(found), self.config), first=len(base.store.shards))


def prepare_store(
    sources: Sequence[Source],
    config: ConfigDict,
    out: Path | str,
    *,
    workers: int = 1,
    runner: Runner | None = None,
    progress: bool = True,
    **said: Any,
) -> dict[str, Any]:
    """Write the store of `sources` into folder `out` and return its manifest; a finished one is left as it is.

    `runner` does the work, by default `workers` processes of this machine; `said` are fields of `Preparation`.

    Raises UserError where the sources hold nothing, `out` holds another store or cannot be written.
    """
    preparation, runner = Preparation(sources, config, **said), runner or LocalProcesses(workers)
    with _at_work(out) as folder:
        base = _open_base(folder, preparation)
        if base is None and (folder / MANIFEST).exists():
            return _reopen(folder, preparation.plan(None), config).manifest
        plan = _settle(folder, preparation, base, runner, progress)
        if base is not None and not plan.shards and not plan.outcomes:
            return _left_as_it_is(folder, base, config)
        with _locked(folder):
            check_no_share(folder)
            _write_shards(folder, plan, _planned_pieces(folder, plan, range(len(plan.shards))), runner, progress)
            return _finish(folder, plan, preparation, base)


def prepare_share(
    sources: Sequence[Source],
    config: ConfigDict,
    out: Path | str,
    share: Share,
    *,
    workers: int = 1,
    progress: bool = True,
    **said: Any,
) -> tuple[int, dict[str, Any] | None]:
    """Write this share of the shards of `prepare_store`; return how many shards others still have to write.

    The job that finds none missing assembles the store, and its manifest is returned too. Raises UserError as
    `prepare_store`, and where another job has this share.
    """
    preparation, runner = Preparation(sources, config, **said), LocalProcesses(workers)
    with _at_work(out) as folder:
        base = _open_base(folder, preparation)
        if base is None and (folder / MANIFEST).exists():
            return 0, _reopen(folder, preparation.plan(None), config).manifest
        plan = _settle(folder, preparation, base, runner, progress)
        if base is not None and not plan.shards and not plan.outcomes:
            return 0, _left_as_it_is(folder, base, config)
        with hold_share(folder, share):
            mine = share.of(range(len(plan.shards)))
            _write_shards(folder, plan, _planned_pieces(folder, plan, mine), runner, progress)
        missing = sum(read_part(folder, plan.shard_name(number)) is None for number in range(len(plan.shards)))
        if missing and not _is_finished(folder, base):
            return missing, None
        if holder := name_holder(folder / PARTS):
            logging.info("%s assembles the store", holder)
            return 0, None
        with _locked(folder):
            if _is_finished(folder, base):  # by the job that came just before
                shutil.rmtree(folder / PARTS)
                return 0, open_store(folder).manifest
            return 0, _finish(folder, plan, preparation, base)


def prepare_recordings(
    found: Sequence[Recording | Refused],
    config: ConfigDict,
    out: Path | str,
    *,
    workers: int = 1,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the store of these recordings, which may lie in memory, into folder `out` and return its manifest.

    Raises UserError as `prepare_store`.
    """
    with _at_work(out) as folder:
        plan = plan_store(found, config)
        if (folder / MANIFEST).exists():
            return _reopen(folder, plan, config).manifest
        with _locked(folder):
            agree(folder, plan)
            check_no_share(folder)
            pieces = {
                number: partial(write_shard, folder, plan.shard_name(number), number, blocks, plan.settings)
                for number, blocks in enumerate(plan.shards)
                if read_part(folder, plan.shard_name(number)) is None
            }
            _write_shards(folder, plan, pieces, LocalProcesses(workers), progress)
            return _finish(folder, plan, Preparation((), config), None)


@contextlib.contextmanager
def _at_work(out: Path | str) -> Iterator[Path]:
    """Yield the folder `out`; turn what a disk refuses into the user's fault, named.

    Raises UserError for an address, and for a name that is no text.
    """
    check_local("--out", out)
    try:
        os.fspath(out).encode()
    except UnicodeEncodeError:
        remedy = "its name is no text in UTF-8, which the writer of shards needs: name another folder"
        raise UserError(Fault("--out", ascii(os.fspath(out)), remedy)) from None
    try:
        with keeping(f"finished shards are kept in {out}; start the same line again to go on with them"):
            yield Path(out)
    except OSError as error:
        remedy = f"{error}; {advise(error)}, and start again: finished shards are kept"
        raise UserError(Fault("--out", str(out), remedy)) from error


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder of the parts: two preparations may not write into one store."""
    (out / PARTS).mkdir(parents=True, exist_ok=True)
    with hold(out / PARTS, field="--out", named=out):
        yield


def _open_base(out: Path, preparation: Preparation) -> Base | None:
    """Return what is extended, or None where a store is made anew."""
    if is_decided(out):
        with _locked(out):
            finish_addition(out)
    if not preparation.adds:
        return None
    return open_base(out, preparation.config, preparation.key)


def _settle(out: Path, preparation: Preparation, base: Base | None, runner: Runner, progress: bool) -> Plan:
    groups = Groups(out / PARTS / LISTING, runner, progress)
    return settle_plan(out, preparation.request(base), lambda: preparation.plan(base, groups))


def _is_finished(out: Path, base: Base | None) -> bool:
    """Whether the store in folder `out` is made, or extended."""
    return (out / MANIFEST).exists() and (base is None or open_store(out).hash != base.store.hash)


def _reopen(out: Path, plan: Plan, config: ConfigDict) -> Store:
    store = open_store(out)
    if store.manifest["plan"] != plan.hash:
        raise UserError(Fault("--out", str(out), "holds a store of other recordings or settings: name another folder"))
    logging.info("%s is finished: nothing to prepare", out)
    shutil.rmtree(out / PARTS, ignore_errors=True)  # of a preparation that was killed after its last word
    make_pairs(store, config)
    return store


def _left_as_it_is(out: Path, base: Base, config: ConfigDict) -> dict[str, Any]:
    logging.info("the sources hold nothing that %s does not know: nothing to add", out)
    shutil.rmtree(out / PARTS, ignore_errors=True)
    make_pairs(base.store, config)
    return base.store.manifest


def _planned_pieces(out: Path, plan: Plan, shards: Iterable[int]) -> dict[int, Piece]:
    """Return what writes those of `shards` that are not written yet."""
    return {
        number: partial(write_planned, out.resolve(), number, plan.hash)
        for number in shards
        if read_part(out, plan.shard_name(number)) is None
    }


def _write_shards(out: Path, plan: Plan, pieces: Mapping[int, Piece], runner: Runner, progress: bool) -> None:
    """Do the pieces; segments and time left are shown."""
    total = sum(len_of(plan, number) for number in pieces)
    with tqdm(
        total=plan.windows,
        initial=plan.windows - total,
        unit=" segments",
        desc="prepare",
        smoothing=0.05,
        disable=not progress,
    ) as bar:
        for number in runner.run(pieces):
            bar.update(len_of(plan, number))


def len_of(plan: Plan, shard: int) -> int:
    """Return how many windows a shard reads."""
    return sum(block.windows for block in plan.shards[shard])


def _finish(out: Path, plan: Plan, preparation: Preparation, base: Base | None) -> dict[str, Any]:
    """Assemble the store of finished shards, write its index and its manifest, and remove the parts."""
    config = preparation.config
    parts = [part for number in range(len(plan.shards)) if (part := read_part(out, plan.shard_name(number)))]
    if len(parts) < len(plan.shards):
        remedy = f"{len(plan.shards) - len(parts)} shards that were written are gone: start again"
        raise UserError(Fault("--out", str(out), remedy))
    if base is None and not any(part.records for part in parts):
        raise UserError(Fault("--source", "no segment was kept", _why_nothing(plan, parts)))
    for folder in (out, out / PARTS):  # all is written: what is still unfinished was left by somebody
        remove_unfinished(folder, alone=True)
    recordings = [block.recording for shard in plan.shards for block in shard]
    extra = {"subject_key": preparation.key.id} if preparation.key else {}
    if base is not None:
        store = base.extend(plan, parts, recordings, config)
        make_pairs(store, config)
    else:
        shutil.rmtree(out / INDEX, ignore_errors=True)
        store = assemble_store(out, plan, parts, config, extra)
        make_pairs(store, config)
        write_known_labels(store, recordings)
        write_json(out / MANIFEST, store.manifest)
    shutil.rmtree(out / PARTS, ignore_errors=True)
    for line in lines_of(store.manifest["account"]):
        logging.info(line)
    for line, doubt in judge_sources(store, config.quality.variant):
        logging.info(line)
        if doubt:
            logging.warning("doubtful: %s", doubt)
    return store.manifest


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
