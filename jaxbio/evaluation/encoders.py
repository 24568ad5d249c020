"""The encoders that an evaluation compares: of exports or of runs, with their own starts and fresh initialisations.

loaded = load_encoders(["runs/a/export", "runs/b/export"], [], None)
features = embed_all(loaded, x_BCT, cache=None, seed=0)
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.seen import NOTHING, Seen, unite_all
from jaxbio.evaluation import comparison, embedding_cache
from jaxbio.evaluation.comparison import FRESH, OWN_START, PRETRAINED, RANDOM
from jaxbio.evaluation.detectors import encoder_within
from jaxbio.export import folder as folders
from jaxbio.export import from_run, pretrained
from jaxbio.export.card import Card

BOTH = "both"
_ANSWERING = "answering_encoder"
_FRESH_SEED = 1000  # apart from those that runs are started with


@dataclass(frozen=True)
class Encoders:
    """Models by entrant, one for each seed of pretraining, the first in question; what all have seen together.

    Of detectors the models in question are the encoders within them, and `detectors` answer themselves: `calibrated`
    is on whom they were calibrated. Of detectors that cut windows, `window` is the length of one in samples.
    """

    card: Card
    models: dict[str, list[Any]]
    seen: Seen
    named: tuple[str, ...]
    detectors: tuple[pretrained.Pretrained, ...] = ()
    calibrated: Seen = NOTHING
    window: int | None = None


def load_encoders(exports: Sequence[str], workdirs: Sequence[str], which: str | None) -> Encoders:
    """Return the encoders of exports, or of runs with what these started from; of `which` "both" all of an objective.

    Raises UserError where several are not of one architecture and input: then they are no seeds of one recipe; and for
    a network that answers and is no detector, of which only the encoder can be evaluated.
    """
    models: dict[str, list[Any]] = {}
    detectors: list[pretrained.Pretrained] = []
    seen: list[Seen] = []
    calibrated: list[Seen] = []
    for folder in exports:
        model = pretrained.load_pretrained(folder)
        if model.detector is not None:
            detectors.append(model)
            calibrated.append(folders.read_calibrated(folder))
            model = encoder_within(model)
        models.setdefault(PRETRAINED, []).append(model)
        seen.append(folders.read_seen(folder))
    for workdir in workdirs:
        names = from_run.names_of_encoders(workdir)
        asked = names if which == BOTH else (which or names[0],)
        for place, name in enumerate(asked):
            model, own = _load_run(workdir, name)
            entrant = PRETRAINED if place == 0 else f"{PRETRAINED}_{name}"
            models.setdefault(entrant, []).append(model)
            seen.append(own)
            if place == 0:
                start = from_run.load_start(workdir, which=name)
                models.setdefault(OWN_START, []).append(pretrained.Pretrained(model.card, _module(model), start))
    cards = [model.card for own in models.values() for model in own]
    wanted = architecture(cards[0])
    for folder, card in zip((*exports, *workdirs), cards):
        if card.encoder == _ANSWERING:
            remedy = (
                "answers with numbers that no temperature and no threshold goes with: evaluate what is within it by "
            )
            remedy += "--which encoder, or the detector that tools/export_params.py makes of the run by --export"
            raise UserError(Fault("--export" if exports else "--workdir", folder, remedy))
        if architecture(card) != wanted:
            remedy = (
                "of another network, rate or channels than the first: several of one call are seeds of one recipe; "
            )
            remedy += "evaluate them apart, and put them side by side with tools/compare.py"
            raise UserError(Fault("--export", folder, remedy))
    if detectors and len(detectors) < len(exports):
        remedy = "a detector beside encoders: several of one call are seeds of one recipe; evaluate them apart"
        raise UserError(Fault("--export", ", ".join(exports), remedy))
    card, window = cards[0], None
    if detectors and card.length < (whole := detectors[0].card.length):
        card, window = dataclasses.replace(card, length=whole), card.length
    named = (*exports, *workdirs)
    return Encoders(card, models, unite_all(seen), named, tuple(detectors), unite_all(calibrated), window)


def embed_all(
    loaded: Encoders, x_BCT: np.ndarray, *, cache: Path | None, seed: int, tokens: bool = False
) -> dict[str, list[np.ndarray]]:
    """Return features (B, D) float32, or `tokens` (B, L, D), by entrant: of every model and five fresh initialisations.

    Where detectors cut windows, features are the mean over the windows of a segment, each scaled by itself. Raises
    UserError where an embedding is no number, for segments shorter than a window, and as `embed_tokens`.
    """
    embed = comparison.embed_tokens if tokens else comparison.embed_segments
    first, rows = loaded.models[PRETRAINED][0], len(x_BCT)
    fresh = draw_fresh(first, seed)
    if loaded.window is not None:
        x_BCT = _cut_windows(x_BCT, loaded.window, loaded.card.rate_hz)
    features: dict[str, list[np.ndarray]] = {}
    for name, models in {**loaded.models, RANDOM: fresh}.items():
        features[name] = [embedding_cache.embed_cached(model, x_BCT, cache, embed) for model in models]
        if loaded.window is not None:
            features[name] = [own_ND.reshape(rows, -1, own_ND.shape[1]).mean(axis=1) for own_ND in features[name]]
        for feature_BD in features[name]:
            comparison.check_features(name, feature_BD)
    return features


def draw_fresh(model: Any, seed: int) -> list[Any]:
    """Return the same network at five random initialisations."""
    return [comparison.initialise_again(model, _FRESH_SEED + seed + number) for number in range(FRESH)]


def architecture(card: Card) -> tuple[Any, ...]:
    """Return what seeds of one recipe have in common: network and input."""
    return card.encoder, str(getattr(card, "encoder_fields", "")), str(getattr(card, "inputs", ""))


def _cut_windows(x_BCT: np.ndarray, window: int, rate_hz: float) -> np.ndarray:
    """Return the windows of segments, segment by segment, as a detector cuts them: the last one ends where they do."""
    rows, channels, samples = x_BCT.shape
    if samples < window:
        remedy = f"at least {window / rate_hz:g}: the windows that this detector cuts"
        raise UserError(Fault("--window_s", samples / rate_hz, remedy))
    x_BCWT = x_BCT[:, :, samples % window :].reshape(rows, channels, -1, window)
    return np.ascontiguousarray(np.swapaxes(x_BCWT, 1, 2)).reshape(-1, channels, window)


def _load_run(workdir: str, which: str) -> tuple[Any, Seen]:
    """Return an encoder of a run, by way of an export, which states its card; and what it has seen."""
    with tempfile.TemporaryDirectory() as folder:
        from_run.export_run(workdir, Path(folder) / "export", which=which)
        return pretrained.load_pretrained(Path(folder) / "export"), folders.read_seen(Path(folder) / "export")


def _module(model: Any) -> Any:
    return folders.make_encoder(model.card)
