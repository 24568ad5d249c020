r"""Texts from outside (names of signals, recordings, subjects, folders) as something that a page or a figure can show.

printable("II\x1b[2J")            # 'II␛[2J'
shorten("a name of many letters", 12)  # 'a name…tters'
"""

import re

# Control characters, halves of surrogate pairs (bytes of a file's name that are no UTF-8), signs that turn the
# direction of what follows, and what XML does not allow.
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def printable(text: str) -> str:
    """Return `text` with a visible sign for every character that shows as nothing, misleads, or cannot be written."""
    return _UNSHOWN.sub(lambda found: _sign(ord(found[0])), text)


def capitalise(text: str) -> str:
    """Return `text` with a capital first letter; the others stay as they are (GiB)."""
    return text[:1].upper() + text[1:]


def shorten(text: str, most: int) -> str:
    """Return `text`, or its beginning and its end around an ellipsis where it has more than `most` characters."""
    head = most // 2
    return text if len(text) <= most else f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"


def _sign(code: int) -> str:
    if code in (0x09, 0x0A, 0x0D):
        return " "
    if code < 0x20:
        return chr(0x2400 + code)  # its picture: ␛ for escape
    return "␡" if code == 0x7F else "�"
