"""WFDB annotation files in MIT format (`.atr` and the like): where rhythms begin, and any other mark with its text.

Follows annot(5) of the WFDB Applications Guide: little-endian words of a type (6 bits) and the samples since the last
mark (10 bits); SKIP carries a longer step, AUX a text that belongs to the mark before it.

    sample_N, text_N = read_annotations("data/data_101_6.atr")
"""

import numpy as np

from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.regular_files import open_regular, size_of

_SKIP, _NUM, _SUB, _CHN, _AUX = 59, 60, 61, 62, 63
_MOST_BYTES = 2**26  # of a file: 30 million beats
RHYTHM = "("  # what the text of a change of rhythm begins with: (AFIB, (N


def read_annotations(path: str) -> tuple[np.ndarray, list[str]]:
    """Return the sample of every mark, int64 (N,), and its text, empty where it has none.

    Raises RecordingError for a file that is none, that ends within a mark, or that cannot be read.
    """
    try:
        with open_regular(path) as file:
            if size_of(file) > _MOST_BYTES:
                raise RecordingError("unreadable_file", path, f"has more than {_MOST_BYTES:,} bytes")
            raw = file.read()
    except OSError as error:
        raise RecordingError("unreadable_file", path, str(error)) from error
    samples: list[int] = []
    texts: list[str] = []
    at = place = 0
    while at + 2 <= len(raw):
        word = int.from_bytes(raw[at : at + 2], "little")
        kind, step = word >> 10, word & 0x3FF
        at += 2
        if word == 0:
            return np.array(samples, np.int64), texts
        if kind == _SKIP:
            high, low = (int.from_bytes(raw[at + k : at + k + 2], "little") for k in (0, 2))
            value = high << 16 | low
            place += value - (1 << 32 if value >> 31 else 0)
            at += 4
        elif kind == _AUX:
            if texts:
                texts[-1] = raw[at : at + step].rstrip(b"\0").decode("utf-8", "replace")
            at += step + step % 2
        elif kind not in (_NUM, _SUB, _CHN):
            place += step
            samples.append(place)
            texts.append("")
    raise RecordingError("truncated_file", path, "ends before its last mark")
