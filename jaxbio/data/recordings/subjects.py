"""Whose recording it is, as far as paths tell.

Archives that publish patients put them into folder or record names; elsewhere a recording is its own subject, marked as
not known. A file of subjects (`--subjects`) has the last word: `assign_subjects`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePath

from jaxbio.data.recordings.recording import Recording, Refused

# (pattern of the path from one of its parts on, whether it is a patient). The deepest part that matches decides.
_RULES = (
    (re.compile(r"(p\d{6}|p\d{8})(?:/|\Z)"), True),  # MIMIC-III and -IV waveforms: p00/p000020/..., p100/p10014354/...
    # MIMIC-II matched subset: s25047/s25047-2704-05-04-10-44 and s25047/3544749_0001. The folder alone does not tell:
    # elsewhere s00001 is the first session of a patient.
    (re.compile(r"(s\d{5})/(?:\1(?:-\d+){5}n?|\d{7}_\d{4})\Z"), True),
    (re.compile(r"data_(\d+)_\d+(?:/|\Z)"), True),  # CPSC 2021: data_<patient>_<part>
    (re.compile(r"(\d{5})_(?:hr|lr)(?:/|\Z)"), False),  # PTB-XL: one ECG at two rates, its patient not in the path
)


def subject_of(folder: str, recording: str) -> tuple[str, bool]:
    """Return (subject, known) of `recording`, a relative path without suffix, in the source folder `folder`.

    Of the source's own path only the last folder counts: higher ones are of the machine, not of the archive.
    """
    parts = (PurePath(folder).name, *PurePath(recording).parts)
    for place in reversed(range(len(parts))):
        for pattern, known in _RULES:
            match = pattern.match("/".join(parts[place:]))
            if match:
                return match.group(1), known
    return recording, False


def assign_subjects(
    entries: Iterable[Recording | Refused], subjects: Mapping[tuple[str, str], str]
) -> list[Recording | Refused]:
    """Return `entries` with the subjects that `subjects` knows for their (source, recording), marked as known."""

    def assign(entry: Recording | Refused) -> Recording | Refused:
        key = (entry.source, entry.recording)
        if isinstance(entry, Refused) or key not in subjects:
            return entry
        return replace(entry, subject=subjects[key], subject_known=True)

    return [assign(entry) for entry in entries]
