"""What the sources of a preparation hold, and whose it is: from headers alone, before a signal is read.

An archive is listed group of folders by group, by whoever does the work. What a group holds is a file until the plan is
made, so that a listing that was ended goes on where it was.

    found = find_recordings(sources, config, subjects=read_subjects("subjects.csv"))
    found = find_recordings(sources, config, read=Groups(out / "listing", runner).read)
"""

import csv
import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict
from tqdm import tqdm

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.own_pickles import load, save
from jaxbio.data.pseudonyms import SubjectKey
from jaxbio.data.recordings import (
    FORMATS,
    ChannelNames,
    Recording,
    Refused,
    Source,
    assign_subjects,
    check_found,
    group_folders,
    list_found,
)
from jaxbio.data.recordings.mirror import make_folders
from jaxbio.data.recordings.missing import roles_read
from jaxbio.data.regular_files import open_text
from jaxbio.data.runners import Runner

# A group takes seconds: much longer than handing it out, short enough to be lost.
FILES_A_GROUP = 5000
_FOLDERS_A_GROUP = 100  # of object storage, where a folder is asked for, and then its files

Read = Callable[[Source, ChannelNames], Sequence[Recording | Refused]]


@dataclass(frozen=True)
class Groups:
    """Lists sources group of folders by group: results lie in `folder`, `runner` does the work."""

    folder: Path
    runner: Runner
    progress: bool = True

    def read(self, source: Source, names: ChannelNames) -> list[Recording | Refused]:
        """Return what `list_found` returns; small sources are listed here, at once."""
        if source.address:
            make_folders(source.address, source.path)
        groups = group_folders(source, _FOLDERS_A_GROUP if source.address else FILES_A_GROUP)
        if not FORMATS[source.format].on_disk or len(groups) <= 1:
            return list_found(source, names)
        self.folder.mkdir(parents=True, exist_ok=True)
        parts = [replace(source, folders=group) for group in groups]
        paths = [
            self.folder / hashlib.sha256(repr((part, sorted(names.items()))).encode()).hexdigest() for part in parts
        ]
        pieces = {
            number: partial(_list_group, path, part, dict(names))
            for number, (path, part) in enumerate(zip(paths, parts, strict=True))
            if not path.exists()
        }
        done = len(groups) - len(pieces)
        with tqdm(
            total=len(groups), initial=done, unit=" groups", desc=f"list {source.name}", disable=not self.progress
        ) as bar:
            for _ in self.runner.run(pieces):
                bar.update()
        return [entry for path in paths for entry in load(path.read_bytes())]


def _list_group(path: Path, source: Source, names: ChannelNames) -> None:
    save(path, list_found(source, names))


def find_recordings(
    sources: Sequence[Source],
    config: ConfigDict,
    *,
    limit: int | None = None,
    subjects: Mapping[tuple[str, str], str] | None = None,
    excluded: Collection[tuple[str, str]] = (),
    key: SubjectKey | None = None,
    read: Read = list_found,
    also: Sequence[str] = (),
) -> list[Recording | Refused]:
    """Return what the sources hold, from headers alone, in the order of the sources and of their names.

    `limit` takes the first recordings of every source only; `subjects` gives subjects by (source, recording). Those of
    `excluded`, (source, subject) where source "" means any, are refused as `excluded`; `key` hides all names.
    `also` names roles that recordings may have beside the configured ones; none is refused for lacking them.

    Raises UserError where the sources hold nothing, two of them have one name, or `subjects` knows none of them.
    """
    channels, policy = tuple(config.data.channels), config.prepare.missing_channel
    names = {role: tuple(config.prepare.channel_names[role]) for role in (*roles_read(channels, policy), *also)}
    found: list[Recording | Refused] = []
    listed: set[tuple[str, str]] = set()
    for source in sources:
        entries = check_found(
            source,
            read(source, names),
            names,
            required=channels,
            missing_channel=policy,
            min_duration_s=config.data.segment_s,
        )
        listed |= {(entry.source, entry.recording) for entry in entries}
        found += assign_subjects(entries[:limit], subjects or {})
    _check_source_names(sources, listed)
    _check_subjects(subjects or {}, listed)
    _warn_of_namesakes(subjects or {}, listed)
    found = _exclude(found, excluded)
    recordings = [entry for entry in found if isinstance(entry, Recording)]
    unknown = sum(not recording.subject_known for recording in recordings)
    if unknown:
        logging.warning(
            "%d of %d recordings name no subject: each counts as its own, so that a patient with several may be in "
            "several splits; --subjects FILE.csv mends that",
            unknown,
            len(recordings),
        )
    return key.hide(found) if key else found


def read_subjects(path: Path | str) -> dict[tuple[str, str], str]:
    """Return {(source, recording): subject} of a CSV with the columns source, recording, subject.

    Blanks around a name are no part of it.

    Raises UserError for a file that cannot be read, lacks a column or names a recording twice.
    """
    remedy = "a CSV in UTF-8 with the columns source,recording,subject and each recording once"
    subjects: dict[tuple[str, str], str] = {}
    try:
        with open_text(path) as file:
            for number, line in enumerate(csv.DictReader(file), 2):
                cells = [(line.get(name) or "").strip() for name in ("source", "recording", "subject")]
                source, recording, subject = cells
                if not (source and recording and subject) or (source, recording) in subjects:
                    raise UserError(Fault("--subjects", f"{path}, line {number}", remedy))
                subjects[source, recording] = subject
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(Fault("--subjects", str(path), f"{error}; {remedy}")) from None
    return subjects


def _exclude(found: Sequence[Recording | Refused], excluded: Collection[tuple[str, str]]) -> list[Recording | Refused]:
    """Refuse the recordings of excluded subjects, and say how many there were and whom nobody is."""
    met: set[tuple[str, str]] = set()

    def refuse(entry: Recording | Refused) -> Recording | Refused:
        hits = {("", entry.subject), (entry.source, entry.subject)} & named if isinstance(entry, Recording) else set()
        met.update(hits)
        return Refused(entry.source, entry.recording, "excluded", "", entry.duration_s) if hits else entry

    named = set(excluded)
    entries = [refuse(entry) for entry in found]
    if named:
        count = sum(isinstance(entry, Refused) and entry.reason == "excluded" for entry in entries)
        logging.info("--exclude_subjects leaves out %d recordings of %d subjects", count, len(met))
    if strangers := sorted(named - met):
        logging.warning(
            "%d of --exclude_subjects are here under no such name; the first: %s", len(strangers), strangers[0][1]
        )
    return entries


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


def _warn_of_namesakes(subjects: Mapping[tuple[str, str], str], listed: set[tuple[str, str]]) -> None:
    """Say how many subjects have recordings in two sources: splits go by source and subject, and may part them."""
    sources_of: dict[str, set[str]] = {}
    for (source, recording), subject in subjects.items():
        if (source, recording) in listed:
            sources_of.setdefault(subject, set()).add(source)
    namesakes = sorted(subject for subject, sources in sources_of.items() if len(sources) > 1)
    if namesakes:
        logging.warning(
            "--subjects gives %d names in more than one source; the first: %s, in %s. In each it is another subject, "
            "perhaps in another split: if they are one patient, docs/data.md says under Splits what to do",
            len(namesakes),
            namesakes[0],
            " and ".join(sorted(sources_of[namesakes[0]])),
        )
