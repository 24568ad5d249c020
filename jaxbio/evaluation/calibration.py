"""From a run that learnt labels to a detector: temperature and threshold from its validation subjects, figures of both
held-out splits.

Nothing of the test split touches a choice. The run's store is read again, so that every held-out segment counts once.

    detector, calibrated = calibrate_run("runs/alarm", from_run.load_encoder("runs/alarm"), sensitivity=0.95)
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from scipy.optimize import minimize_scalar

from jaxbio.config import changes
from jaxbio.config.faults import Fault, UserError
from jaxbio.data.seen import SEEN, Seen, read_seen, seen_of
from jaxbio.data.several import open_indexes
from jaxbio.data.store import subject_codes
from jaxbio.evaluation.class_measures import AUROC, BRIER, MACRO_AUROC, SENSITIVITY, SPECIFICITY
from jaxbio.evaluation.intervals import Draws, draw
from jaxbio.evaluation.measure import Answer, Measure, Truth
from jaxbio.evaluation.metrics import Interval
from jaxbio.evaluation.number_measures import MAE
from jaxbio.export import from_run
from jaxbio.export.detector import Detector
from jaxbio.export.folder import portable
from jaxbio.export.stablehlo import make_encode
from jaxbio.objectives import answers
from jaxbio.training import run_data
from jaxbio.training.resume import check_same_data
from jaxbio.transforms.channel_subsets import keep_channels, kinds_alone, split_target
from jaxbio.transforms.prepare_input import join_crops, prepare_crops

DEFAULT_SENSITIVITY = 0.95
_TEMPERATURES = (0.05, 20.0)
_AT_ONCE = 32
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldOut:
    """What a network says of the labelled segments of a split: `answers` (N, crops, K) by the channels that it was
    given ("all", or a kind alone), with the labels (N,) and whose the segments are (N,). Of waveforms the answers are
    mean absolute errors, and the labels 0, which they should be.
    """

    answers: Mapping[str, np.ndarray]
    label_N: np.ndarray
    subject_N: np.ndarray


def calibrate_run(
    workdir: epath.PathLike, loaded: from_run.Loaded, *, sensitivity: float | None = None, store: str | None = None
) -> tuple[Detector, Seen] | None:
    """Return the detector that what was `loaded` of a run makes with the run's store, and whose segments chose it: all
    of the validation split; None where it answers no question.

    The store is where the run had it, or in the folder `store`. `sensitivity` is of two classes, 0.95 where it is not
    given. Raises UserError as `open_run_data`, for another store or other labels than the run's, for a sensitivity of
    other answers, and for answers that are no numbers. Whom the run's encoder has seen, in its pretraining too, is left
    out; where nobody, or one class alone, remains of the validation split, UserError is raised.
    """
    if not hasattr(loaded.encoder, "answer"):
        return None
    meta, config = loaded.meta, changes.from_plain(loaded.meta.config)
    if sensitivity is not None and len(config.objective.classes) != 2:
        what = f"{len(config.objective.classes)} classes" if config.objective.classes else loaded.encoder.answer
        remedy = f"this run answers with {what}, for which no threshold is chosen: leave it out"
        raise UserError(Fault("--sensitivity", sensitivity, remedy))
    data = run_data.open_run_data(config, store or _store_of(config, Path(workdir)))
    check_same_data(meta, data.store_hash, data.index_hash, data.label_hashes)
    seen = read_seen(Path(workdir) / SEEN)
    held_out = {split: _answer(loaded, data, split, seen) for split in ("validation", "test")}
    _check_validation(loaded.encoder, held_out["validation"])
    for split, told in held_out.items():
        check_answers(split, told)
    wanted = DEFAULT_SENSITIVITY if sensitivity is None else sensitivity
    detector = _choose(loaded.encoder, config, held_out["validation"], wanted)
    rows = [
        {"split": split, "channels": channels, **row}
        for split, told in held_out.items()
        if len(told.label_N)
        for channels, row in measure_detector(detector, told)
    ]
    for row in rows:
        log.info("%s", _in_words(row))
    calibrated = seen_of(data.store, data.validation.rows_NM)
    return Detector(**{**vars(detector), "figures": tuple(rows)}), calibrated


def fit_temperature(logit_NLK: np.ndarray, class_N: np.ndarray) -> float:
    """Return the divisor of logits (N, crops, K) that makes the true classes' probabilities the likeliest (Guo et al.
    2017), between 0.05 and 20.
    """
    rows_N = np.arange(len(class_N))

    def loss(log_temperature: float) -> float:
        probability_NK = answers.mean_probability(logit_NLK, float(np.exp(log_temperature)))
        return -float(np.mean(np.log(np.maximum(probability_NK[rows_N, class_N.astype(int)], 1e-12))))

    found = minimize_scalar(loss, bounds=tuple(np.log(_TEMPERATURES)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def choose_threshold(positive_N: np.ndarray, score_N: np.ndarray, sensitivity: float) -> float:
    """Return the largest threshold from which on at least the share `sensitivity` of the positives is found.

    It lies half-way to the next lower score, so that rounding moves nobody across.
    """
    found_N = np.sort(score_N[positive_N])[::-1]
    needed = max(int(np.ceil(sensitivity * len(found_N) - 1e-9)), 1)
    last = found_N[needed - 1]
    below_N = score_N[score_N < last]
    return float((last + (below_N.max() if below_N.size else 0.0)) / 2)


def _choose(module: Any, config: ConfigDict, told: HeldOut, sensitivity: float) -> Detector:
    """Return the detector that answers on the validation split make, without its figures."""
    learnt = config.data.target if module.answer == "waveforms" else config.data.labels[0]
    common = {"label": learnt, "may_lack_channels": config.augment.drop_channel > 0}
    if module.answer != "classes":
        return Detector(answer=module.answer, **common)
    classes = tuple(config.objective.classes)
    temperature = fit_temperature(told.answers[answers.ALL], told.label_N)
    detector = Detector(answer="classes", classes=classes, temperature=temperature, **common)
    if len(classes) != 2:
        return detector
    probability_NK = answers.mean_probability(told.answers[answers.ALL], temperature)
    threshold = choose_threshold(told.label_N == 1, probability_NK[:, 1], sensitivity)
    chosen = {"positive": classes[1], "threshold": threshold, "sensitivity": sensitivity}
    return Detector(**{**vars(detector), **chosen})


def measure_detector(detector: Detector, told: HeldOut) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what the detector is worth by the channels that it is given: each figure with its 95 % interval over
    subjects (BCa).
    """
    for channels, answer_NLK in told.answers.items():
        truth, answer, measures = _judged(detector, told, answer_NLK)
        row: dict[str, Any] = {"segments": len(told.label_N), "subjects": truth.subjects}
        if detector.threshold is not None:
            row["positives"] = int(np.sum(truth.label_N == 1))
        draws = Draws(truth.subject_N)
        for measure in measures:
            row |= _columns(measure, draw(measure.compute, truth, [answer], draws).interval())
        yield channels, row


def _judged(detector: Detector, told: HeldOut, answer_NLK: np.ndarray) -> tuple[Truth, Answer, Sequence[Measure]]:
    """Return what is true of the segments, what the detector says of them, and the measures of that."""
    unscaled_N = np.full(len(told.label_N), np.nan)
    if detector.answer != "classes":
        said_N1 = answer_NLK.mean(axis=(1, 2))[:, None]
        return Truth(told.label_N, told.subject_N, unscaled_N), Answer(said_N1, said_N1[:, 0]), (MAE,)
    assert detector.temperature is not None
    probability_NK = answers.mean_probability(answer_NLK, detector.temperature)
    truth = Truth(told.label_N.astype(int), told.subject_N, unscaled_N)
    two = len(detector.classes) == 2
    measures = (AUROC, BRIER, SENSITIVITY, SPECIFICITY) if two else (MACRO_AUROC, BRIER)
    return truth, Answer(probability_NK, detector.decide_codes(probability_NK)), measures


def _columns(measure: Measure, interval: Interval) -> dict[str, Any]:
    """Return a measure with its interval over subjects, as columns; None where it is not defined."""
    name = AUROC.name if measure is MACRO_AUROC else measure.name
    columns = {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return {column: float(value) if np.isfinite(value) else None for column, value in columns.items()}


def _in_words(row: Mapping[str, Any]) -> str:
    """Return a row of figures as a line for the log."""
    named = ("auroc", "mae", "brier", "sensitivity", "specificity")
    parts = [f"{name} {row[name]:.3f}" + _interval(row, name) for name in named if row.get(name) is not None]
    channels = "all channels" if row["channels"] == answers.ALL else f"{row['channels']} alone"
    return f"{row['split']}, {channels}: {', '.join(parts)} ({row['segments']} segments, {row['subjects']} subjects)"


def _interval(row: Mapping[str, Any], name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"


def _check_validation(module: Any, told: HeldOut) -> None:
    """Raise UserError where the validation split gives nothing to choose by."""
    needed = 2 if module.answer == "classes" else 1
    if len(np.unique(told.label_N)) < needed:
        what = f"{len(told.label_N)} labelled segments of subjects that the encoder has not seen"
        remedy = (
            "a detector is calibrated on others, of two classes at least: pretrain on the train split of this store, "
        )
        raise UserError(Fault("validation", what, remedy + "or label more recordings"))


def check_answers(split: str, told: HeldOut) -> None:
    """Raise UserError where answers are no numbers, of which no threshold and no figure can be made."""
    for channels, answer_NLK in told.answers.items():
        wrong = int((~np.isfinite(answer_NLK)).any(axis=(1, 2)).sum())
        if wrong:
            remedy = "the run's weights, or what comes of them, are not finite: export another checkpoint (--step)"
            what = f"{wrong} of {len(answer_NLK)} answers from {channels} channels are NaN or infinite"
            raise UserError(Fault(split, what, remedy))


def _unseen(data: run_data.RunData, row_N: np.ndarray, split: str, seen: Seen) -> np.ndarray:
    """Return those of the rows whose subjects no network before this one has learnt from either."""
    seen_N = seen.find_rows(data.store, row_N)
    if seen_N.any():
        log.warning("%d of %d %s segments are left out: pretraining has seen them", seen_N.sum(), len(row_N), split)
    return row_N[~seen_N]


def _answer(loaded: from_run.Loaded, data: run_data.RunData, split: str, seen: Seen) -> HeldOut:
    """Return what the network says of every labelled segment of a split, but those of subjects that were seen."""
    inputs = loaded.inputs
    index, _ = open_indexes(data.store, data.config, split, data.left_out_R)
    row_N = _unseen(data, np.asarray(index.rows_NM[:, 0], np.int64), split, seen)
    subsets = {answers.ALL: np.ones(len(inputs.channels), bool), **kinds_alone(inputs.channels)}
    encode = make_encode(portable(loaded.encoder))

    def say(variables: Any, segment_BMCT: jax.Array, scale_BMC2: jax.Array) -> dict[str, jax.Array]:
        batch: Any = {"segment_BMCT": segment_BMCT, "scale_BMC2": scale_BMC2}
        told, target_BT = {}, None
        if loaded.encoder.answer == "waveforms":
            batch, target_BT = split_target(batch, len(inputs.channels))
        for name, keep_C in subsets.items():
            kept = keep_channels(batch, keep_C, inputs)
            x_BCT = prepare_crops(kept["segment_BMCT"][:, 0], kept["scale_BMC2"][:, 0], inputs)
            told[name] = join_crops(encode(variables, x_BCT), inputs.crops)
            if target_BT is not None:
                told[name] = jnp.abs(told[name] - target_BT[:, None]).mean(axis=-1, keepdims=True)
        return told

    compiled, parts = jax.jit(say), []
    for row_B in _in_batches(row_N):
        segment_BMCT, scale_BMC2 = data.store.read(row_B)[:, None], data.store.scale_NC2[row_B][:, None]
        parts.append(jax.device_get(compiled(loaded.variables, segment_BMCT, scale_BMC2)))
    told = {name: np.concatenate([part[name] for part in parts])[: len(row_N)] for name in subsets} if parts else {}
    subject_R, _ = subject_codes(data.store)
    labels_R1 = data.by_row.get("label_BMK", np.zeros((data.store.rows, 1), np.float32))
    return HeldOut(told, labels_R1[row_N, 0], subject_R[row_N])


def _in_batches(row_N: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows in batches of one size; the last one repeats its own."""
    for first in range(0, len(row_N), _AT_ONCE):
        yield np.resize(row_N[first : first + _AT_ONCE], _AT_ONCE)


def _store_of(config: ConfigDict, workdir: Path) -> str | Sequence[tuple[str, float]]:
    """Return the value of data.store, of a synthetic one the folder that the run made of it."""
    named = config.data.store
    return str(workdir / "store") if isinstance(named, str) and named.startswith("synthetic:") else named
