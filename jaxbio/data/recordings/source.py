"""Where recordings come from, in one line: FORMAT:PATH?option=value&... or NAME=FORMAT:PATH?...

    parse_source("csv:/archive/bidmc?rate_hz=125&glob=*_Signals.csv.gz")

PATH is a folder, or one file. Options: `rate_hz` of files that state none; `rates=ppg:64,ecg:data/fs`, by role a rate
or where in the file it stands; `each=data/*`, which arrays of a file are a recording; `time=NAME:s|ms|datetime`, a
column of time stamps; `columns=ppg:G,ecg:II`, which signal plays a role (where there are no names the first is 1);
`missing=-999,x`, further words for a missing sample, and `decimal=comma|point`, in text; `assume_unit=ecg:uV` of
signals that state none; `glob` over paths below PATH; `name` of the source, by which patients and splits go, in place
of the last folder's (NAME= before the line says the same); `seed` of synthetic recordings. Values may be
percent-encoded.
"""

import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.roles import ROLES
from jaxbio.data.recordings.channels import check_assumed

TIME_UNITS = ("s", "ms", "datetime")


@dataclass(frozen=True)
class Options:
    """What a source line may add to its path; None is "not given"."""

    rate_hz: float | None = None
    time: tuple[str, str] | None = None  # (column, one of TIME_UNITS)
    columns: Mapping[str, str] = field(default_factory=dict)  # role -> name in the source
    missing: tuple[str, ...] = ()
    decimal: str | None = None  # "," or "."
    assume_unit: Mapping[str, str] = field(default_factory=dict)  # role -> unit
    glob: str | None = None
    name: str | None = None
    seed: int = 0
    rates: Mapping[str, str] = field(default_factory=dict)  # role -> Hz, or where in the file it stands
    each: str | None = None


@dataclass(frozen=True)
class Source:
    """One source of recordings, or some of its folders: `format` (a key of FORMATS), `path`, `options`."""

    format: str
    path: str
    options: Options = Options()
    folders: tuple[str, ...] | None = None  # only these, relative to `folder`, without what lies below them
    address: str = ""  # in object storage; `path` is then its mirror on this host

    @property
    def name(self) -> str:
        """Name of the source in the store: FORMAT:last folder, or FORMAT:the name that its line gives."""
        if self.format == "synthetic":
            return self.format
        return f"{self.format}:{self.options.name or printable(os.path.basename(self.folder))}"

    @property
    def reading(self) -> str:
        """What the source line says that changes samples and nothing else of a recording, as text; else empty."""
        said = self.options.missing, self.options.decimal, sorted(self.options.assume_unit.items())
        return repr(said) if any(said) else ""

    @property
    def folder(self) -> str:
        """The absolute folder that no file of the source may lie outside of."""
        path = os.path.realpath(self.path)
        return path if os.path.isdir(path) else os.path.dirname(path)


def printable(path: str) -> str:
    """Return `path` as text that encodes in UTF-8: bytes that are no text become backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def split_name(text: str) -> tuple[str, str]:
    """Return (name, rest) of a source line NAME=FORMAT:...; the name is empty where none is given."""
    name, mark, rest = text.partition("=")
    return (name, rest) if mark and ":" not in name else ("", text)


def split_source(text: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Return (format, path, [(option, value)]) of a source line; a path that exists with its `?` has no options."""
    name, _, rest = text.partition(":")
    path, mark, query = rest.rpartition("?")
    if not mark or os.path.exists(rest):
        return name, rest, []
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    return name, path, [(key, value) for key, _, value in pairs]


def parse_options(pairs: Collection[tuple[str, str]], allowed: Collection[str], text: str) -> Options:
    """Return the options of a source line; raises UserError with every one that is unknown or unreadable."""
    values: dict[str, Any] = {}
    faults = []
    for key, value in pairs:
        if key not in allowed:
            faults.append(Fault("--source", text, f"unknown option {key!r}; this format has {', '.join(allowed)}"))
            continue
        try:
            values[key] = _PARSERS[key](value)
        except ValueError as error:
            faults.append(Fault("--source", text, f"{key} = {value!r}: {error}"))
    if faults:
        raise UserError(*faults)
    return Options(**values)


def _rate(value: str) -> float:
    rate_hz = float(value)
    if not math.isfinite(rate_hz) or rate_hz <= 0.0:
        raise ValueError("a sampling rate is a positive number, Hz")
    return rate_hz


def _time(value: str) -> tuple[str, str]:
    name, _, unit = value.rpartition(":")
    if not name or unit not in TIME_UNITS:
        raise ValueError(f"write NAME:UNIT with the unit one of {', '.join(TIME_UNITS)}")
    return unquote(name), unit


def _columns(value: str) -> dict[str, str]:
    pairs = [column.partition(":") for column in value.split(",")]
    if not all(role and name for role, _, name in pairs):
        raise ValueError("write ROLE:NAME,ROLE:NAME, with %2C for a comma within a name")
    if unknown := [role for role, _, _ in pairs if role not in ROLES]:
        raise ValueError(f"{unknown[0]!r} is no role; roles: {', '.join(ROLES)}")
    return {role: unquote(name) for role, _, name in pairs}


def parse_assumed(text: str | None) -> dict[str, str]:
    """Return {role: unit} of a flag ROLE:UNIT,ROLE:UNIT; raises UserError for a role or a unit that is not known."""
    try:
        return _assumed(text) if text else {}
    except ValueError as error:
        raise UserError(Fault("--assume_unit", text, str(error))) from None


def _assumed(value: str) -> dict[str, str]:
    assumed = _columns(value)
    for role, unit in assumed.items():
        check_assumed(role, unit)
    return assumed


def _source_name(value: str) -> str:
    name = unquote(value)
    if not name or not name.isprintable():
        raise ValueError("a name is a text")
    return name


def _decimal(value: str) -> str:
    marks = {"comma": ",", "point": "."}
    if value not in marks:
        raise ValueError("write comma or point")
    return marks[value]


def _missing(value: str) -> tuple[str, ...]:
    return tuple(unquote(word).strip().casefold() for word in value.split(","))


_PARSERS: dict[str, Callable[[str], object]] = {
    "rate_hz": _rate,
    "time": _time,
    "rates": _columns,
    "each": unquote,
    "columns": _columns,
    "missing": _missing,
    "decimal": _decimal,
    "assume_unit": _assumed,
    "glob": unquote,
    "name": _source_name,
    "seed": int,
}
