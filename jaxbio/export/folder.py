"""An export folder: written from an encoder and its weights, read back whole or refused.

    inputs = Input(300.0, 9000, ("ppg", "ecg"), "per_channel")
    write_export(folder, module, variables, inputs=inputs, origin=Origin(...))
    card, module, variables = read_export(folder)

Families are known only by the registry `models.ENCODERS`: a card holds a name of it and constructor fields.
"""

import dataclasses
import importlib.metadata
import io
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from etils import epath

import jaxbio
from jaxbio import models
from jaxbio.config.faults import Fault, UserError
from jaxbio.config.local_paths import check_local
from jaxbio.data.given_arrays import read_arrays
from jaxbio.data.seen import SEEN, UNKNOWN, Seen
from jaxbio.data.seen import read_seen as read_seen_file
from jaxbio.export import card as cards
from jaxbio.export import detector as detectors
from jaxbio.export import stablehlo, weights
from jaxbio.export.card import Card
from jaxbio.export.detector import Detector
from jaxbio.export.encoder_fields import find_encoder_faults
from jaxbio.signals.features import append_features
from jaxbio.transforms.prepare_input import Input

_EXAMPLE_SEGMENTS = 2
_MOST_EXAMPLES = 64
_MOST_CALLS = 4_000  # of layers, while an encoder is described; a ResNet of 152 layers has some 500
_VERSIONS_OF = ("jax", "flax", "numpy", "safetensors")
_LINEN_FIELDS = {"parent", "name"}


@dataclass(frozen=True)
class Origin:
    """Where the weights come from, in words and numbers for the card."""

    source: str
    which: str
    objective: str | None = None
    steps: int | None = None
    store_hash: str | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    licence: str = "not stated"


def write_export(
    folder: epath.PathLike,
    module: nn.Module,
    variables: Mapping[str, Any],
    *,
    inputs: Input,
    origin: Origin,
    seen: Seen = UNKNOWN,
    detector: Detector | None = None,
    calibrated: Seen = UNKNOWN,
) -> Card:
    """Write weights, program, example and card of an encoder into `folder`, the card last; return the card.

    What it has `seen` goes along as seen.npz, where that is known, a `detector` as detector.json, and whom it was
    `calibrated` on as calibration.npz. An earlier export there is replaced. Raises UserError where the folder holds
    anything else, or where names or shapes of `variables` are not the module's.
    """
    folder = _clear_folder(folder)
    module = portable(module)
    name, fields = describe_encoder(module)
    flat = weights.flatten_tree(variables)
    weights.match_weights(flat, expected_weights(module, inputs), str(folder))
    x_BCT = _example_input(inputs)
    tok_BLD = np.asarray(jax.jit(stablehlo.make_program(module, inputs))(dict(variables), x_BCT))
    example = io.BytesIO()
    np.savez(example, x_BCT=x_BCT, tok_BLD=tok_BLD)
    weights.write_weights(folder / cards.WEIGHTS, variables)
    (folder / cards.PROGRAM).write_bytes(stablehlo.serialise_program(module, variables, inputs))
    (folder / cards.EXAMPLE).write_bytes(example.getvalue())
    files = [cards.WEIGHTS, cards.PROGRAM, cards.EXAMPLE]
    for file, known in ((SEEN, seen), (cards.CALIBRATION, calibrated)):
        if known.segment_N.size:
            (folder / file).write_bytes(known.to_bytes())
            files.append(file)
    if detector is not None:
        (folder / cards.DETECTOR).write_bytes(detectors.to_bytes(detector))
        files.append(cards.DETECTOR)
    card = Card(
        encoder=name,
        encoder_fields=fields,
        parameters=int(parameter_overview.count_parameters(variables["params"])),
        token_s=inputs.samples / (tok_BLD.shape[1] // inputs.crops) / inputs.rate_hz,
        width=tok_BLD.shape[2],
        pooling="mean",
        missing_channel="zeros",
        versions={"jaxbio": jaxbio.__version__, **{name: importlib.metadata.version(name) for name in _VERSIONS_OF}},
        seen=str(seen),
        **dataclasses.asdict(inputs),
        **dataclasses.asdict(origin),
    )
    return cards.write_card(folder, card, files)


def read_export(folder: epath.PathLike) -> tuple[Card, nn.Module, dict[str, Any]]:
    """Return card, encoder and its variables (nested dictionary of NumPy arrays) of an export folder.

    Raises UserError where the card is missing, newer, or holds what none of its fields may hold, a file is missing, cut
    or foreign, the family is not registered, the weights are not the encoder's, or the encoder is not what the card
    says of it.
    """
    folder = epath.Path(folder)
    card, where = cards.read_card(folder), str(folder / cards.CARD)
    module = make_encoder(card, where)
    tok_BLD, expected = _describe(card, module, where)
    cards.check_files(folder, card)
    flat = weights.read_flat_weights(folder / cards.WEIGHTS)
    weights.match_weights(flat, expected, str(folder / cards.WEIGHTS))
    _check_claims(card, tok_BLD, expected, where)
    wrong = [name for name, array in flat.items() if array.dtype.kind != np.dtype(expected[name].dtype).kind]
    if wrong:
        remedy = f"holds {flat[wrong[0]].dtype}, the encoder wants {expected[wrong[0]].dtype}; export again"
        raise UserError(Fault(f"{folder / cards.WEIGHTS}: {wrong[0]}", "another type", remedy))
    return card, module, weights.unflatten_tree(flat)


def read_example(folder: epath.PathLike, card: Card) -> tuple[np.ndarray, np.ndarray]:
    """Return x_BCT and tok_BLD (float32) of the export's example: what its program takes, and what it gives.

    Raises UserError for arrays that are none of this card's encoder.
    """
    path = epath.Path(folder) / cards.EXAMPLE
    arrays = read_arrays(path, missing="the card lists it; copy the whole export folder")
    x_BCT, tok_BLD = (arrays.get(name, np.zeros(0)) for name in ("x_BCT", "tok_BLD"))
    segments = x_BCT.shape[0] if x_BCT.ndim else 0
    shape = (segments, card.inputs.shape[0], card.length)
    if not 0 < segments <= _MOST_EXAMPLES or x_BCT.shape != shape or tok_BLD.shape[::2] != (segments, card.width):
        found = f"x_BCT {x_BCT.shape}, tok_BLD {tok_BLD.shape}"
        remedy = f"this encoder's are (B, {shape[1]}, {shape[2]}) and (B, L, {card.width}); copy the export again"
        raise UserError(Fault(str(path), found, remedy))
    if any(array.dtype != np.float32 or not np.isfinite(array).all() for array in (x_BCT, tok_BLD)):
        raise UserError(Fault(str(path), "other than finite float32", "no example of an export; copy the export again"))
    return x_BCT, tok_BLD


def read_seen(folder: epath.PathLike) -> Seen:
    """Return what the encoder of an export has seen; UNKNOWN where the export does not say.

    Raises UserError for a file that is damaged.
    """
    return read_seen_file(epath.Path(folder) / SEEN)


def read_calibrated(folder: epath.PathLike) -> Seen:
    """Return whom a detector was calibrated on; UNKNOWN where the export does not say, errors as `read_seen`."""
    return read_seen_file(epath.Path(folder) / cards.CALIBRATION)


def make_encoder(card: Card, where: str = cards.CARD) -> nn.Module:
    """Return the module that a card describes, which is named as `where` in faults.

    Raises UserError for an unregistered family, and with every field that is unknown, missing or out of bounds.
    """
    faults = list(find_encoder_faults(card.encoder, card.encoder_fields, where))
    if faults:
        raise UserError(*faults)
    return _build(card.encoder, card.encoder_fields)


def _describe(card: Card, module: nn.Module, where: str) -> tuple[Any, dict[str, Any]]:
    """Return the shapes of a card's encoder's tokens and variables (`expected_weights`), computing nothing.

    Raises UserError where its fields make no encoder of the card's input, or one of too many layers.
    """
    calls = itertools.count(1)

    def count(call: Any, args: Any, kwargs: Any, _: Any) -> Any:
        if next(calls) > _MOST_CALLS:
            raise ValueError(f"more than {_MOST_CALLS} layers")
        return call(*args, **kwargs)

    x_BCT = jax.ShapeDtypeStruct((1, *card.inputs.shape), jnp.float32)
    try:
        with nn.intercept_methods(count):
            tok_BLD, tree = jax.eval_shape(lambda x_BCT: module.init_with_output(jax.random.key(0), x_BCT), x_BCT)
    except Exception as error:  # fields that do not go together fail anywhere in a network; each is the card's fault
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = f"makes no encoder of {card.inputs.shape} samples ({said}); export again"
        raise UserError(Fault(f"{where}: encoder_fields", cards.shorten(card.encoder_fields), remedy)) from error
    return tok_BLD, weights.flatten_tree(tree)


def _check_claims(card: Card, tok_BLD: Any, expected: Mapping[str, Any], where: str) -> None:
    """Raise UserError where a card says other numbers than those of the encoder that it describes."""
    parameters = sum(math.prod(leaf.shape) for name, leaf in expected.items() if name.startswith("params/"))
    claims = {
        "parameters": (card.parameters, parameters),
        "width": (card.width, tok_BLD.shape[2]),
        "token_s": (card.token_s, card.inputs.samples / tok_BLD.shape[1] / card.rate_hz),
    }
    faults = [
        Fault(f"{where}: {name}", said, f"the encoder that the card describes has {found}; export again")
        for name, (said, found) in claims.items()
        if not math.isclose(said, found, rel_tol=1e-9)
    ]
    if faults:
        raise UserError(*faults)


def describe_encoder(module: nn.Module) -> tuple[str, dict[str, Any]]:
    """Return the registry name and the constructor fields of an encoder, as JSON has them.

    A module among the fields is {"encoder": its name, "fields": its fields}. Raises ValueError where one has no name.
    """
    names = [name for name, family in models.ENCODERS.items() if type(module) is family]
    if not names:
        raise ValueError(f"{type(module).__name__} is not in models.ENCODERS; register it")
    own = [field.name for field in dataclasses.fields(module) if field.init and field.name not in _LINEN_FIELDS]
    return names[0], {name: _describe_value(getattr(module, name)) for name in own}


def _describe_value(value: Any) -> Any:
    if isinstance(value, nn.Module):
        name, fields = describe_encoder(value)
        return {"encoder": name, "fields": fields}
    return value


def _build(encoder: str, fields: Mapping[str, Any]) -> nn.Module:
    return models.ENCODERS[encoder](**{name: _build_value(value) for name, value in fields.items()})


def _build_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _build(value["encoder"], value["fields"])
    return tuple(value) if isinstance(value, list) else value


def portable(module: nn.Module) -> nn.Module:
    """Return the module computing in float32, whatever type it was trained in (its weights are float32)."""
    changes: dict[str, Any] = {
        field.name: portable(getattr(module, field.name))
        for field in dataclasses.fields(module)
        if field.name not in _LINEN_FIELDS and isinstance(getattr(module, field.name), nn.Module)
    }
    if hasattr(module, "dtype"):
        changes["dtype"] = "float32"
    return module.clone(**changes)


def expected_weights(module: nn.Module, inputs: Input) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of an encoder's variables by "/"-joined path, without computing any."""
    x_BCT = jax.ShapeDtypeStruct((1, *inputs.shape), jnp.float32)
    return weights.flatten_tree(jax.eval_shape(lambda x_BCT: module.init(jax.random.key(0), x_BCT), x_BCT))


def _clear_folder(folder: epath.PathLike) -> epath.Path:
    """Make `folder`, or empty it of an earlier export; the card goes first, so that a killed export is none."""
    check_local("--out", folder)
    folder = epath.Path(folder)
    files = {cards.CARD, cards.WEIGHTS, cards.PROGRAM, cards.EXAMPLE, cards.DETECTOR, cards.CALIBRATION, SEEN}
    if folder.exists() and not folder.is_dir():
        raise UserError(Fault("--out", str(folder), "is a file; name a folder"))
    foreign = sorted({path.name for path in folder.iterdir()} - files) if folder.is_dir() else []
    if foreign and not (folder / cards.CARD).exists():
        remedy = f"holds {', '.join(foreign[:3])} and is no export; name an empty or new folder"
        raise UserError(Fault("--out", str(folder), remedy))
    folder.mkdir(parents=True, exist_ok=True)
    for name in (cards.CARD, *sorted(files - {cards.CARD})):
        (folder / name).unlink(missing_ok=True)
    return folder


def _example_input(inputs: Input) -> np.ndarray:
    """Return two seeded segments of slow waves, x_BCT float32, which stand for signals in physical units, and their
    features.
    """
    rng = np.random.default_rng(0)
    shape = (_EXAMPLE_SEGMENTS, len(inputs.channels), 1, 5)
    wave_hz = rng.uniform(0.8, 1.5, shape) * np.arange(1, 6)
    phase = rng.uniform(0, 2 * np.pi, shape)
    t_T1 = np.arange(inputs.length)[:, None] / inputs.rate_hz
    x_BCT = np.sin(2 * np.pi * wave_hz * t_T1 + phase).mean(axis=-1).astype(np.float32)
    return append_features(x_BCT, inputs.channels, inputs.rate_hz, inputs.features)
