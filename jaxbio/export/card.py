"""The card of an export: what the encoder is, what input it wants, where it comes from, and which files belong to it.

The card is written last, with the size and SHA-256 of every other file, so that a folder without a card is no export
and a file that was cut, changed or swapped is named when the folder is read.

    card = read_card(folder); check_files(folder, card)
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from etils import epath

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.local_paths import check_local
from jaxbio.data.given_files import open_given
from jaxbio.data.recordings.regular_files import size_of
from jaxbio.export.card_fields import find_faults, shorten
from jaxbio.transforms.prepare_input import Input

SCHEMA = 3
CARD = "card.json"
WEIGHTS = "params.safetensors"
PROGRAM = "encoder.stablehlo"
EXAMPLE = "example.npz"
DETECTOR = "detector.json"  # only where the network answers a question
CALIBRATION = "calibration.npz"  # beside it: whose segments chose checkpoint, temperature and threshold, as seen.npz
_MOST_BYTES = 2**20  # of a card; real ones have some 3 kB
_LONGEST_NAME = 255  # bytes of a file's name, as file systems have it
_INPUT = {field.name: field.default for field in dataclasses.fields(Input) if field.default is not dataclasses.MISSING}
_FEATURES = {name: _INPUT[name] for name in ("features", "feature_scales")}
# What a card of each older schema lacks, and what it meant.
_SINCE: dict[int, dict[str, Any]] = {1: {"seen": "not known", **_INPUT}, 2: _FEATURES}


@dataclass(frozen=True)
class Card:
    """Everything a stranger must know to use the weights; all of it plain JSON.

    `encoder` and `encoder_fields` are the registry name and constructor fields of the module; the fields from `rate_hz`
    to `feature_scales` are its `Input`; `token_s` is the seconds one token stands for, `width` the numbers in a token.
    `pooling` says how tokens become one vector a segment ("mean", over those of all crops), `missing_channel` what a
    channel that is not given gets ("zeros", in the prepared input). `seen` says in words how many subjects and segments
    it has learnt from, which seen.npz knows one by one. Schema 1 knew no input but the scaled one, and its program and
    example take segments that are scaled already; schema 2 knew no features.
    """

    encoder: str
    encoder_fields: dict[str, Any]
    which: str
    parameters: int
    rate_hz: float
    length: int
    channels: tuple[str, ...]
    scaling: str
    crop_s: float | None
    crops: int
    band_hz: tuple[float, float] | None
    band_order: int
    band_design: str
    standardise: str
    features: tuple[str, ...]
    feature_scales: tuple[tuple[float, float], ...]
    token_s: float
    width: int
    pooling: str
    missing_channel: str
    objective: str | None
    steps: int | None
    store_hash: str | None
    metrics: dict[str, float]
    source: str
    licence: str
    versions: dict[str, str]
    seen: str
    files: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def inputs(self) -> Input:
        """What the encoder sees."""
        return Input(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Input)})


def write_card(folder: epath.PathLike, card: Card, files: Iterable[str]) -> Card:
    """Write `card` into `folder` with the size and hash of `files` that lie there; return it so completed.

    Raises UserError for a card that `read_card` would refuse.
    """
    folder = epath.Path(folder)
    card = dataclasses.replace(card, files={name: _fingerprint(folder / name) for name in files})
    plain = dataclasses.asdict(card)
    card_from_plain(plain, str(folder / CARD))
    (folder / CARD).write_text(json.dumps(plain, indent=2) + "\n")
    return card


def read_card(folder: epath.PathLike) -> Card:
    """Return the card of an export folder, every field typed and bounded.

    Raises UserError for a folder without one, for one that is no card, for one of a newer schema, and with every fault
    of its fields; those of `encoder` and `encoder_fields` are found by `folder.make_encoder`.
    """
    check_local("export", folder)
    path = os.path.join(folder, CARD)
    with open_given(path, missing="no export folder; make one with tools/export_params.py") as file:
        raw = file.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise UserError(Fault(path, "too large", f"a card has at most {_MOST_BYTES} bytes"))
    try:
        stored = json.loads(raw.decode())
    except (
        ValueError,
        RecursionError,
    ) as error:  # no JSON, no UTF-8, a number of too many digits, brackets in brackets
        raise UserError(Fault(path, "unreadable", f"no JSON ({error}); export again")) from error
    schema = stored.get("schema") if isinstance(stored, dict) else None
    if type(schema) is not int or schema < 1:
        raise UserError(Fault(path, "no schema", "not a card of jaxbio; name an export folder"))
    if schema > SCHEMA:
        remedy = f"this jaxbio reads up to {SCHEMA}; install a newer jaxbio"
        raise UserError(Fault(f"{path}: schema", shorten(schema), remedy))
    return card_from_plain(stored, path)


def card_from_plain(stored: Mapping[str, Any], where: str) -> Card:
    """Return the card of plain JSON values, those of older schemas completed by what they meant.

    Raises UserError that says `where` for missing and unknown fields, and for values that are none of their field.
    """
    stored = {**_SINCE.get(stored["schema"], {}), **stored}
    names = {field.name for field in dataclasses.fields(Card)}
    wrong = sorted(names ^ stored.keys())
    if wrong:
        raise UserError(
            Fault(where, shorten(f"fields {', '.join(wrong)}"), "missing or unknown in a card; export again")
        )
    faults = find_faults(stored, where, (WEIGHTS, PROGRAM, EXAMPLE))
    if faults:
        raise UserError(*faults)
    tuples = {name: tuple(stored[name]) for name in ("channels", "band_hz", "features") if stored[name] is not None}
    scales = tuple((centre, spread) for centre, spread in stored["feature_scales"])
    return Card(**{**stored, **tuples, "feature_scales": scales})


def check_files(folder: epath.PathLike, card: Card) -> None:
    """Check every file of the export against its card.

    Raises UserError with a fault for each name that is no file of this folder, and for each file that is missing, no
    regular file, of another size, or of other content. A name of elsewhere is not looked at.
    """
    faults: list[Fault] = []
    for name, stored in card.files.items():
        try:
            _check_file(os.fspath(folder), name, stored)
        except UserError as error:
            faults += error.faults
    if faults:
        raise UserError(*faults)


def _check_file(folder: str, name: str, stored: Mapping[str, Any]) -> None:
    elsewhere = name in ("", ".", "..", CARD) or any(sign in name for sign in "/\\\0")
    if elsewhere or len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME:
        remedy = "a card names the other files of its own folder, and none elsewhere; export again"
        raise UserError(Fault(f"{os.path.join(folder, CARD)}: files", shorten(name), remedy))
    path = os.path.join(folder, name)
    with open_given(path, missing="the card lists it; copy the whole export folder") as file:
        if size_of(file) != stored["bytes"]:
            remedy = f"the card says {stored['bytes']} bytes; copy the file again"
            raise UserError(Fault(path, f"{size_of(file)} bytes", remedy))
        if hashlib.file_digest(file, "sha256").hexdigest() != stored["sha256"]:
            raise UserError(Fault(path, "other content", "not the file this card was written with; copy it again"))


def _fingerprint(path: epath.Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().length, "sha256": digest}
