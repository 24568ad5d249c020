"""Finding the files of a source, and keeping inside its folder.

Links to folders are not followed: one that points inside is reached anyway, one that points outside is refused, so a
walk never loops and never leaves. What is no regular file (a pipe, a device) is refused unopened.
"""

import fnmatch
import os
from collections.abc import Callable, Iterable, Iterator

from jaxbio.data.recordings.recording import Recording, RecordingError, Refused, failures_named
from jaxbio.data.recordings.regular_files import NOT_REGULAR, is_regular
from jaxbio.data.recordings.source import Source, printable


def inside(folder: str, path: str) -> bool:
    """Whether `path`, every link resolved, lies in `folder` (absolute, resolved)."""
    return os.path.commonpath((folder, os.path.realpath(path))) == folder


def require_inside(folder: str, path: str) -> None:
    """Raise RecordingError `outside_source` where `path` lies outside `folder`."""
    if "\0" in path or not inside(folder, path):
        raise RecordingError("outside_source", path, f"lies outside the source folder {folder!r}")


def find_files(source: Source, is_recording: Callable[[str], bool]) -> Iterator[str | Refused]:
    """Yield the paths below the source's folder that are recordings, in the order of their names.

    `is_recording(name)` decides by a file's name unless the source has a glob, which is matched against the path
    relative to the folder and against the name. Links that leave the folder, and pipes and devices, come as Refused.
    """
    if not os.path.isdir(source.path):
        yield _checked(source, os.path.realpath(source.path))
        return
    root = source.folder
    for folder, subfolders, names in _walk(source):
        for name in [name for name in subfolders if os.path.islink(os.path.join(folder, name))]:
            link = os.path.join(folder, name)
            if not inside(root, link):
                yield refuse(source, link, "outside_source", "is a link that leaves the source folder")
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not _wanted(os.path.relpath(path, root), name, source.options.glob, is_recording):
                continue
            # A file that is no link lies in a folder that was walked to, so inside.
            if not os.path.islink(path) or inside(root, path):
                yield _checked(source, path)
            else:
                yield refuse(source, path, "outside_source", "is a link that leaves the source folder")


def list_each(
    source: Source, suffixes: tuple[str, ...], open_file: Callable[[str], Iterable[Recording | Refused]]
) -> Iterator[Recording | Refused]:
    """Yield the recordings that `open_file` finds in each file below the source's path whose name ends in `suffixes`.

    A file that it fails on, however it fails, is Refused.
    """
    for found in find_files(source, lambda name: name.lower().endswith(suffixes)):
        if isinstance(found, Refused):
            yield found
            continue
        try:
            with failures_named(found):
                yield from open_file(found)
        except RecordingError as error:
            yield refuse(source, found, error.reason, error.detail, recording_name(source, found, suffixes))


def group_folders(source: Source, files: int) -> list[tuple[str, ...]]:
    """Return the source's folders, relative to it, in groups of at least so many `files` and folders; none is in two.

    A recording's files lie in one folder, so that each group can be listed alone (`Source.folders`). A source that is
    no folder has no groups.
    """
    if not os.path.isdir(source.path):
        return []
    groups: list[tuple[str, ...]] = []
    group: list[str] = []
    held = 0
    for folder, _, names in _walk(source):
        group.append(os.path.relpath(folder, source.folder))
        held += 1 + len(names)
        if held >= files:
            groups.append(tuple(group))
            group, held = [], 0
    return [*groups, tuple(group)] if group else groups


def _walk(source: Source) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield what os.walk yields of the source's folders, in the order of their names."""
    root = source.folder
    if source.folders is None:
        for folder, subfolders, names in os.walk(root):
            subfolders.sort()
            yield folder, subfolders, names
        return
    for relative in source.folders:
        folder, subfolders, names = next(os.walk(os.path.join(root, relative)), (relative, [], []))
        yield folder, sorted(subfolders), names


def _checked(source: Source, path: str) -> str | Refused:
    return path if is_regular(path) else refuse(source, path, "not_a_recording", NOT_REGULAR)


def _wanted(relative: str, name: str, glob: str | None, is_recording: Callable[[str], bool]) -> bool:
    if glob is None:
        return is_recording(name)
    return fnmatch.fnmatchcase(relative, glob) or fnmatch.fnmatchcase(name, glob)


def recording_name(source: Source, path: str, suffixes: tuple[str, ...]) -> str:
    """Return the name of the recording in file `path`: relative to the source, without the longest of `suffixes`."""
    relative = os.path.relpath(path, source.folder)
    suffix = max((suffix for suffix in suffixes if relative.lower().endswith(suffix)), key=len, default="")
    return printable(relative[: len(relative) - len(suffix)] if suffix else relative)


def refuse(
    source: Source, path: str, reason: str, detail: str, name: str | None = None, duration_s: float = 0.0
) -> Refused:
    """Return a Refused that names the file `path`."""
    name = name or printable(os.path.relpath(path, source.folder))
    return Refused(source.name, name, reason, f"{printable(path)!r}: {detail}", duration_s)
