"""Recordings as they lie on disk: one reader a file format, one `Recording` for all of them.

A new format is one module with a function `list_files(source, channel_names)` that yields `Recording` and `Refused`,
and one line in FORMATS. Knows nothing of segments, stores or quality.

    source = parse_source("wfdb:/archive/mimic")
    entries = list_recordings(source, {"ppg": ("PLETH",), "ecg": ("II", "V")}, required=("ppg", "ecg"))
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.local_paths import check_local, is_address, without_file
from jaxbio.config.roles import LIMB_LEADS
from jaxbio.data.recordings import (
    arrow,
    dicom,
    ecg_xml,
    edf,
    hdf5,
    mat,
    named_arrays,
    numpy_files,
    pickles,
    synthetic,
    text,
    vital,
    wfdb_records,
)
from jaxbio.data.recordings.channels import name_missing
from jaxbio.data.recordings.folders import group_folders
from jaxbio.data.recordings.mirror import Elsewhere, bring_heads, make_folders, mirror_root
from jaxbio.data.recordings.missing import complete
from jaxbio.data.recordings.recording import REASONS, Channel, Recording, RecordingError, Refused
from jaxbio.data.recordings.source import Options, Source, parse_assumed, parse_options, split_name, split_source
from jaxbio.data.recordings.subjects import assign_subjects

__all__ = [
    "FORMATS",
    "REASONS",
    "Channel",
    "Options",
    "Recording",
    "RecordingError",
    "Refused",
    "Source",
    "assign_subjects",
    "check_found",
    "group_folders",
    "list_found",
    "list_recordings",
    "parse_assumed",
    "parse_source",
]

ChannelNames = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Format:
    """One file format: what lists its recordings, the options it takes, whether its path lies on disk, and the suffix
    that the name of a file may lack.
    """

    list_files: Callable[[Source, ChannelNames], Iterable[Recording | Refused]]
    options: tuple[str, ...]
    on_disk: bool = True
    suffix: str = ""
    headers: tuple[str, ...] = ()  # suffixes of the files that listing reads whole; empty: all


_TEXT = Format(text.list_files, ("rate_hz", "time", "columns", "missing", "decimal", "assume_unit", "glob", "name"))
_ARROW = Format(arrow.list_files, ("rate_hz", "rates", "time", "columns", "assume_unit", "glob", "name"))
FORMATS: dict[str, Format] = {
    "wfdb": Format(
        wfdb_records.list_files, ("columns", "assume_unit", "glob", "name"), suffix=".hea", headers=(".hea",)
    ),
    "csv": _TEXT,
    "text": _TEXT,
    "numpy": Format(numpy_files.list_files, ("rate_hz", "columns", "assume_unit", "glob", "name")),
    "edf": Format(edf.list_files, ("columns", "assume_unit", "glob", "name")),
    "vital": Format(vital.list_files, ("columns", "assume_unit", "glob", "name")),
    "hdf5": Format(hdf5.list_files, named_arrays.OPTIONS),
    "mat": Format(mat.list_files, named_arrays.OPTIONS),
    "pickle": Format(pickles.list_files, named_arrays.OPTIONS),
    "parquet": _ARROW,
    "arrow": _ARROW,
    "dicom": Format(dicom.list_files, ("columns", "assume_unit", "glob", "name")),
    "xml": Format(ecg_xml.list_files, ("columns", "assume_unit", "glob", "name")),
    "synthetic": Format(synthetic.list_files, ("seed", "rate_hz"), on_disk=False),
}


def parse_source(text: str, assumed: Mapping[str, str] | None = None) -> Source:
    """Return the source of a line [NAME=]FORMAT:PATH?options; raises UserError for one that names nothing readable.

    `assumed` has by role the unit of signals that state none, unless the line's own `assume_unit` says it.
    """
    given, line = split_name(text)
    check_local("--source", line, opened=True)
    name, path, pairs = split_source(line)
    if name not in FORMATS:
        known = ", ".join(f"{known}:" for known in FORMATS)
        raise UserError(Fault("--source", text, f"begin with one of {known} and a path, or with NAME= before them"))
    chosen = FORMATS[name]
    pairs = [*pairs, ("name", given)] if given else pairs
    options = parse_options(pairs, chosen.options, text)
    path = without_file(path)
    address = path if is_address(path) else ""
    if address:
        path = mirror_root(address)
    elif chosen.on_disk and not os.path.exists(path):
        path += chosen.suffix
        if not os.path.exists(path):
            raise UserError(Fault("--source", text, f"no file or folder {path!r}"))
    if assumed:
        options = replace(options, assume_unit={**assumed, **options.assume_unit})
    return Source(name, path, options, address=address)


def list_recordings(
    source: Source,
    channel_names: ChannelNames,
    *,
    required: Collection[str] = (),
    missing_channel: str = "refuse",
    min_duration_s: float = 0.0,
) -> list[Recording | Refused]:
    """Return what the source holds, sorted by name, read from headers alone (text without a length is scanned).

    A recording without one of the `required` roles is completed as `missing_channel` says. What still lacks one (or has
    no role at all) is refused as `missing_channel`, or for what is wrong with that role's signal; a role that is not
    required and cannot be used is absent. One shorter than `min_duration_s` is refused as `too_short`, the second of a
    name as `duplicate_name`. Raises UserError where the source holds nothing of its format.
    """
    found = list_found(source, channel_names)
    return check_found(
        source,
        found,
        channel_names,
        required=required,
        missing_channel=missing_channel,
        min_duration_s=min_duration_s,
    )


def list_found(source: Source, channel_names: ChannelNames) -> list[Recording | Refused]:
    """Return what the source, or some of its folders, holds, as its reader finds it."""
    form = FORMATS[source.format]
    if not source.address:
        return list(form.list_files(source, _names(source, channel_names)))
    if source.folders is None:
        make_folders(source.address, source.path)
    folders = source.folders or [folder for group in group_folders(source, 1) for folder in group]
    bring_heads(source.address, source.path, folders, form.headers)
    found = list(form.list_files(source, _names(source, channel_names)))
    return [
        replace(entry, elsewhere=Elsewhere(source.address, source.path, os.path.dirname(entry.recording)))
        if isinstance(entry, Recording)
        else entry
        for entry in found
    ]


def check_found(
    source: Source,
    found: Iterable[Recording | Refused],
    channel_names: ChannelNames,
    *,
    required: Collection[str] = (),
    missing_channel: str = "refuse",
    min_duration_s: float = 0.0,
) -> list[Recording | Refused]:
    """Return all that a source holds, completed or refused as `list_recordings` says, sorted by name."""
    names = _names(source, channel_names)
    found = sorted(found, key=lambda entry: entry.recording)
    if not found:
        raise UserError(Fault("--source", f"{source.format}:{source.path}", "holds no file of this format"))
    entries: list[Recording | Refused] = []
    seen: set[str] = set()
    for entry in found:
        if isinstance(entry, Recording):
            entry = complete(replace(entry, reading=source.reading), required, missing_channel)
            entry = _check(entry, names, seen, required, missing_channel, min_duration_s)
            seen.add(entry.recording)
        entries.append(entry)
    return entries


def _names(source: Source, channel_names: ChannelNames) -> ChannelNames:
    """Return the names of each role in the source, best first: the one that its line gives, where it gives one."""
    return {**channel_names, **{role: (name,) for role, name in source.options.columns.items()}}


def _check(
    entry: Recording,
    names: ChannelNames,
    seen: Collection[str],
    required: Collection[str],
    policy: str,
    min_duration_s: float,
) -> Recording | Refused:
    def refuse(reason: str, detail: str) -> Refused:
        return Refused(entry.source, entry.recording, reason, f"{entry.recording!r}: {detail}", entry.duration_s)

    if entry.recording in seen:
        return refuse("duplicate_name", "another file of the source gives this name")
    missing = [role for role in required if role not in entry.channels]
    for role in missing if entry.channels else entry.faults:
        if role in entry.faults:
            reason, detail = entry.faults[role]
            return Refused(entry.source, entry.recording, reason, detail, entry.duration_s)
    if missing or not entry.channels:
        return refuse("missing_channel", name_missing(missing, entry.signals, names, _why(missing, policy)))
    if entry.duration_s < min_duration_s:
        return refuse("too_short", f"{entry.duration_s:g} s; a segment takes {min_duration_s:g} s")
    return entry


def _why(missing: Collection[str], policy: str) -> str:
    """Return why a policy did not help, as the end of a sentence."""
    if policy != "derive" or not missing:
        return ""
    if all(role in LIMB_LEADS for role in missing):
        return "; deriving a limb lead takes two others of one rate and unit"
    return "; only limb leads can be derived"
