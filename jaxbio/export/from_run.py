"""From a run's checkpoint to an export folder: the best one where the run kept it by a metric, else the newest.

card = export_run("runs/quickstart", "runs/quickstart/export")
"""

import dataclasses
import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from jaxbio.config import changes
from jaxbio.config.faults import Fault, UserError
from jaxbio.data.seen import SEEN, UNKNOWN, Seen, read_seen
from jaxbio.export import folder as folders
from jaxbio.export.card import Card
from jaxbio.export.detector import Detector
from jaxbio.export.frozen import recall_networks
from jaxbio.export.moved import moved_from_start, starting_variables
from jaxbio.objectives import Objective, make_objective
from jaxbio.training import checkpoint
from jaxbio.training.writers import METRICS, read_metrics
from jaxbio.transforms.prepare_input import Input

MOVED = "moved_from_start"  # among a card's metrics: see moved.py
_METRIC_AREAS = ("eval/", "train/loss")
log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """An encoder of a checkpoint with its variables, its input, where it comes from, and what the checkpoint says."""

    encoder: Any
    variables: dict[str, Any]
    inputs: Input
    origin: folders.Origin
    meta: checkpoint.Meta


def export_run(
    workdir: epath.PathLike,
    out: epath.PathLike,
    *,
    which: str | None = None,
    step: int | None = None,
    licence: str = "not stated",
) -> Card:
    """Write encoder `which` (None: the objective's default) of a run's checkpoint (None: `choose_step`) into `out`.

    What the run has trained on goes along as the workdir's seen.npz tells it; without that file the card says that it
    is not known.

    Raises UserError where the folder holds no run or no checkpoint, or where the objective has no such encoder.
    """
    return export_loaded(workdir, out, load_encoder(workdir, which=which, step=step, licence=licence))


def export_loaded(
    workdir: epath.PathLike,
    out: epath.PathLike,
    loaded: Loaded,
    detector: Detector | None = None,
    calibrated: Seen = UNKNOWN,
) -> Card:
    """Write what `load_encoder` returned of a run into `out`; a detector's temperature becomes part of the network, and
    whom it was `calibrated` on goes along.
    """
    encoder = loaded.encoder if detector is None else loaded.encoder.clone(temperature=detector.temperature)
    seen = read_seen(Path(workdir) / SEEN)
    return folders.write_export(
        out,
        encoder,
        loaded.variables,
        inputs=loaded.inputs,
        origin=loaded.origin,
        seen=seen,
        detector=detector,
        calibrated=calibrated,
    )


def load_encoder(
    workdir: epath.PathLike, *, which: str | None = None, step: int | None = None, licence: str = "not stated"
) -> Loaded:
    """Return encoder, variables, input and origin of a run's checkpoint; arguments and errors as `export_run`."""
    step = choose_step(Path(workdir)) if step is None else step
    step, items, meta = checkpoint.restore_items(Path(workdir), ("params", "objective"), step)
    config = changes.from_plain(meta.config)
    objective = make_objective(config, recall_networks(meta.frozen))
    name = which or next(iter(objective.encoders))
    if name not in objective.encoders:
        known = ", ".join(objective.encoders)
        raise UserError(Fault("--which", name, f"{config.objective.name} has the encoders {known}"))
    encoder, take = objective.encoders[name]
    variables = take(items["params"], items["objective"])
    origin = folders.Origin(
        source=f"step {step} of run {Path(workdir).name}",
        which=name,
        objective=config.objective.name,
        steps=step,
        store_hash=meta.store_hash,
        metrics={**_last_metrics(Path(workdir), step), **_moved(config, objective, name, variables)},
        licence=licence,
    )
    inputs = Input.of(config)
    inputs = dataclasses.replace(inputs, length=objective.windows.get(name, inputs.length))
    return Loaded(encoder, variables, inputs, origin, meta)


def choose_step(workdir: Path) -> int | None:
    """Return the checkpoint with the least `checkpoint.best_metric` where a run kept it by one, else the newest; say
    which of several it is. None where there is no checkpoint.
    """
    folder = (workdir / "checkpoints").absolute()
    metas = [checkpoint.read_meta(folder, step) for step in checkpoint.list_steps(folder)]
    if not metas:
        return None
    newest = metas[-1]
    metric = changes.from_plain(newest.config).checkpoint.best_metric
    comparable = [meta for meta in metas if meta.config.get("checkpoint.best_metric") == metric]
    rated = [(meta.best, meta.step) for meta in comparable if meta.best is not None and math.isfinite(meta.best)]
    if metric is None or not rated:
        return newest.step
    best, step = min(rated)
    log.info("taken is step %d, whose %s of %.4g is the least; the newest is %d", step, metric, best, newest.step)
    return step


def load_start(workdir: epath.PathLike, *, which: str | None = None, step: int | None = None) -> dict[str, Any]:
    """Return the variables that the encoder of `load_encoder` had when its run started; errors as `export_run`."""
    _, _, meta = checkpoint.restore_items(Path(workdir), ("params",), step)
    config = changes.from_plain(meta.config)
    objective = make_objective(config, recall_networks(meta.frozen))
    return starting_variables(config, objective, which or next(iter(objective.encoders)))


def names_of_encoders(workdir: epath.PathLike) -> tuple[str, ...]:
    """Return the names of the objective's encoders of a run, the default first; errors as `export_run`."""
    _, _, meta = checkpoint.restore_items(Path(workdir), ("params",), None)
    return tuple(make_objective(changes.from_plain(meta.config), recall_networks(meta.frozen)).encoders)


def _moved(config: ConfigDict, objective: Objective, which: str, variables: Any) -> dict[str, float]:
    """Return, and say, how far the encoder is from its start; nothing where that was an export that is gone."""
    try:
        moved = moved_from_start(config, objective, which, variables)
    except UserError as error:
        log.warning("how far the %s has moved from its start is not known: %s", which, error)
        return {}
    log.info("the %s has moved by %.1f %% of its length from where the run started", which, 100 * moved)
    return {MOVED: moved}


def _last_metrics(workdir: Path, step: int) -> dict[str, float]:
    """Return the last value up to `step` of the held-out metrics and the loss; empty where nothing was recorded."""
    path = workdir / METRICS
    found: dict[str, float] = {}
    for record in read_metrics(path) if path.is_file() else ():
        if record["step"] <= step:
            found |= {key: value for key, value in record.items() if key.startswith(_METRIC_AREAS)}
    return found
