"""An evaluation from labelled segments to its files: who is tested, what is compared, what is said of it.

result = evaluate("vt_alarm", loaded, segments, Settings("cross_validate"), Path("out"), store=None)
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxbio.data.seen import SEEN
from jaxbio.data.store import StoreView
from jaxbio.evaluation import comparison, probe_report, probes, protocol, readouts, results, verdict
from jaxbio.evaluation.comparison import DETECTOR, HAND_MADE, HAND_MADE_BOOSTED, PRETRAINED, Entrant
from jaxbio.evaluation.detectors import answer_all
from jaxbio.evaluation.encoders import Encoders, embed_all
from jaxbio.evaluation.metrics import Interval
from jaxbio.evaluation.pictures import MOST_SHOWN
from jaxbio.evaluation.probe_report import Part, Shown
from jaxbio.evaluation.probes import Split
from jaxbio.evaluation.tasks import Segments, Task, get_task
from jaxbio.export.card import CALIBRATION
from jaxbio.signals.hand_made import describe_seconds, describe_segments
from jaxbio.signals.segments import MIN_S

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How to evaluate: protocol, folds, seed, the shares of subjects that are also fitted on, and where embeddings are
    kept (None: nowhere); `data` and `train_subjects` are the lines that name the recordings and the store to fit on.
    """

    protocol: str
    folds: int = 5
    seed: int = 0
    shares: tuple[float, ...] = ()
    cache: Path | None = None
    data: tuple[str, ...] = ()
    train_subjects: str | None = None


def evaluate(
    name: str, loaded: Encoders, segments: Segments, settings: Settings, out: Path, store: StoreView | None
) -> dict[str, Any]:
    """Evaluate, write results.json, predictions.parquet and report.html into `out`, and return the results.

    Raises UserError where nobody is left to fit on or to test on, or labels tell nothing apart.
    """
    task, seen_known = get_task(name, segments.classes), loaded.seen.complete or store is not None
    seen_B, calibrated_B = _find_seen(segments, loaded, store), _find_calibrated(segments, loaded)
    chosen = [_choose_rows(task, segments, place, seen_B, calibrated_B, settings) for place in range(len(task.targets))]
    entrants = _make_entrants(name, task, loaded, segments, settings)  # after all that may be refused
    parts = [
        _compare_target(task, place, *rows, entrants, segments, settings, seen_known, loaded.calibrated.complete)
        for place, rows in enumerate(chosen)
    ]
    row_B, splits = chosen[0]
    counts = _count(segments, row_B, splits, seen_B, known=seen_known or bool(seen_B.any()))
    if loaded.detectors:
        counts |= _count_calibrated(segments, calibrated_B, known=loaded.calibrated.complete)
    log.info("%s: %s", settings.protocol, counts)
    out.mkdir(parents=True, exist_ok=True)
    card, said = loaded.card, _describe(settings, seen_known, stored=bool(segments.train_subjects))
    said += _describe_calibration(loaded)
    identity = _identify(loaded, segments, settings)
    stated = {name: value for name, value in identity.items() if value is not None}
    facts = {"encoder": card.encoder, "steps": card.steps, **_readable(stated), **_readable(counts)}
    shown = Shown(segments, entrants[PRETRAINED].features[0], card.rate_hz, card.channels)
    report = probe_report.write_probe_report(
        out / "report.html",
        task,
        parts,
        facts,
        said,
        shown,
        classes=segments.classes,
        grouped=settings.protocol not in protocol.UNGROUPED,
    )
    results.write_predictions(out, segments, {part.target: part.compared for part in parts})
    result: dict[str, Any] = {"task": name, "classes": list(segments.classes), "export": ", ".join(loaded.named)}
    result |= {"encoder": card.encoder, "protocol": settings.protocol, "published": task.published}
    result |= {"who_is_tested": said, **identity, **counts, **_summarise(task, parts), "report": str(report)}
    results.write_results(out, result)
    log.info("\n%s", "\n\n".join(f"{part.verdict.result}\n{part.verdict.trust}" for part in parts))
    return result


def _compare_target(
    task: Task,
    place: int,
    row_B: np.ndarray,
    splits: Sequence[Split],
    entrants: Mapping[str, Entrant],
    segments: Segments,
    settings: Settings,
    seen_known: bool,
    calibration_known: bool,
) -> Part:
    """Return what is compared and said of one target; `splits` are places in `row_B`."""
    label_N, subject_N = _labels(task, segments, place)[row_B], segments.subject_B[row_B]
    own = {who: Entrant([f[row_B] for f in entrant.features], entrant.readout) for who, entrant in entrants.items()}
    how: dict[str, Any] = {"classes": len(segments.classes), "grouped": settings.protocol not in protocol.UNGROUPED}
    if task.course_hz:
        how["readout"] = readouts.COURSE
    found = comparison.compare(task, own, label_N, subject_N, splits, seed=settings.seed, **how)
    others = _other_ways(task, own, label_N, subject_N, splits, settings, how)
    found = replace(found, row_N=row_B[found.row_N])
    assert found.truth is not None
    judged = verdict.judge(
        task,
        found,
        subjects=found.truth.subjects,
        unnamed=float(np.mean(~segments.subject_known_B[found.row_N])),
        seen_known=seen_known,
        calibration_known=calibration_known,
        target=task.targets[place],
        leaky=settings.protocol == protocol.LEAKY,
    )
    return Part(task.targets[place], found, judged, others)


def _labels(task: Task, segments: Segments, place: int) -> np.ndarray:
    """Return the labels (B,) of a target, or the courses (B, T)."""
    return segments.label_BK if task.course_hz else segments.label_BK[:, place]


def _make_entrants(
    name: str, task: Task, loaded: Encoders, segments: Segments, settings: Settings
) -> dict[str, Entrant]:
    tokens, card = bool(task.course_hz), loaded.card
    # refuses another question before all is embedded
    said = answer_all(loaded.detectors, segments, name, cache=settings.cache)
    features = embed_all(loaded, segments.x_BCT, cache=settings.cache, seed=settings.seed, tokens=tokens)
    entrants = {name: Entrant(own) for name, own in features.items()}
    if loaded.detectors:
        entrants[DETECTOR] = Entrant(said, readouts.AS_SAID)
    if tokens:
        entrants[HAND_MADE] = Entrant([describe_seconds(segments.x_BCT, card.rate_hz)])
    elif segments.x_BCT.shape[-1] / card.rate_hz >= MIN_S:
        by_hand_BF, _ = describe_segments(segments.x_BCT, card.rate_hz, card.channels)
        entrants[HAND_MADE] = Entrant([by_hand_BF])
        entrants[HAND_MADE_BOOSTED] = Entrant([by_hand_BF], readouts.BOOSTED)
    else:
        log.warning("segments below %g s have no hand-made features: they are left out", MIN_S)
    return entrants


def _choose_rows(
    task: Task, segments: Segments, place: int, seen_B: np.ndarray, calibrated_B: np.ndarray, settings: Settings
) -> tuple[np.ndarray, list[Split]]:
    """Return the rows that have a label, whose class two subjects have, and of nobody whom a detector was calibrated
    on; and the splits of them.
    """
    label_B, classes = _labels(task, segments, place), segments.classes
    known_B = np.isfinite(label_B).all(axis=1) if task.course_hz else np.isfinite(label_B)
    if classes:
        known_B &= label_B >= 0
    known_B &= ~calibrated_B
    row_N, transfers = np.flatnonzero(known_B), settings.protocol == "transfer"
    usable_N = row_N if transfers else row_N[~seen_B[row_N]]
    fitted_B = seen_B | np.isin(segments.subject_B, segments.train_subjects) if transfers else seen_B
    if len(usable_N):
        lone = comparison.check_labels(task, label_B[usable_N], segments.subject_B[usable_N], classes)
        if lone:
            log.warning("left out, since a single subject has them: %s", ", ".join(lone))
            row_N = row_N[~np.isin(label_B[row_N], [classes.index(name) for name in lone])]
    stratified = label_B[row_N] if classes and not task.classes_are_subjects else None
    splits = protocol.make_splits(
        settings.protocol,
        segments.subject_B[row_N],
        fitted_B[row_N],
        folds=settings.folds,
        seed=settings.seed,
        label_B=stratified,
    )
    protocol.check_splits(splits, label_B[row_N], classes)
    return row_N, splits


def _other_ways(
    task: Task,
    entrants: dict[str, Entrant],
    label_N: np.ndarray,
    subject_N: np.ndarray,
    splits: Sequence[Split],
    settings: Settings,
    how: dict[str, Any],
) -> dict[str, dict[str, Interval]]:
    """Return the first measure's intervals by entrant with fewer labels, and with neighbours, by what was done."""
    ways: dict[str, dict[str, Any]] = {
        f"{share:.0%} of the subjects": {"share": share} for share in settings.shares if share < 1
    }
    if not task.course_hz:  # neighbours are of whole segments
        ways |= {"10 nearest neighbours": {"readout": readouts.KNN}}
    found = {}
    for name, way in ways.items():
        # who brings a readout of its own would only answer again with another one, and a detector learns nothing here
        kept = (None,) if "readout" in way else (None, readouts.BOOSTED)
        asked = {who: own for who, own in entrants.items() if own.readout in kept}
        run = comparison.compare(
            task, asked, label_N, subject_N, splits, seed=settings.seed, only_first=True, **{**how, **way}
        )
        counted = f" ({_from_to(run.subjects_fitted)})" if "share" in way else ""
        found[f"{name}{counted}"] = next(iter(run.intervals.values()))
    return found


def _from_to(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _find_seen(segments: Segments, loaded: Encoders, store: StoreView | None) -> np.ndarray:
    """Return which segments, bool (B,), are of subjects that pretraining has seen; say how many."""
    seen_B = loaded.seen.find(segments.subject_B, segments.fingerprint_B)
    if store is not None:
        seen_B |= protocol.find_seen(store, segments.source_B, segments.recording_B, segments.subject_B)
        if not seen_B.any():
            log.warning("no recording of --data is in the train split of the store: right for other data")
    if seen_B.any():
        log.info("pretraining has seen %d of %d segments: they are not tested", seen_B.sum(), len(seen_B))
    return seen_B


def _find_calibrated(segments: Segments, loaded: Encoders) -> np.ndarray:
    """Return which segments, bool (B,), are of subjects that a detector was calibrated on; say how many."""
    calibrated_B = loaded.calibrated.find(segments.subject_B, segments.fingerprint_B)
    if calibrated_B.any():
        what = "of subjects that the detector was calibrated on: they are left out"
        log.info("%d of %d segments are %s", calibrated_B.sum(), len(calibrated_B), what)
    return calibrated_B


def _count(
    segments: Segments, row_B: np.ndarray, splits: Sequence[Split], seen_B: np.ndarray, *, known: bool
) -> dict[str, Any]:
    """Return who is tested, of the first target; unknown is None."""
    subject_N, tested = segments.subject_B[row_B], probes.tested_rows(splits)
    counts: dict[str, Any] = {
        "segments_tested": sum(len(test) for _, test in splits),
        "subjects_tested": len(np.unique(subject_N[tested])),
        "subjects_fitted_on": len(np.unique(subject_N[np.concatenate([fit for fit, _ in splits])])),
        "segments_seen_in_pretraining": int(seen_B.sum()) if known else None,
        "subjects_seen_in_pretraining": len(np.unique(segments.subject_B[seen_B])) if known else None,
    }
    if 0 < len(segments.classes) <= MOST_SHOWN:
        label_N = segments.label_BK[row_B[tested], 0]
        counts["tested_by_class"] = {name: int(np.sum(label_N == code)) for code, name in enumerate(segments.classes)}
    return counts


def _count_calibrated(segments: Segments, calibrated_B: np.ndarray, *, known: bool) -> dict[str, Any]:
    """Return how many segments are of subjects that a detector was calibrated on, and how many these are; unknown is
    None.
    """
    known = known or bool(calibrated_B.any())
    return {
        "segments_of_calibration": int(calibrated_B.sum()) if known else None,
        "subjects_of_calibration": len(np.unique(segments.subject_B[calibrated_B])) if known else None,
    }


def _identify(loaded: Encoders, segments: Segments, settings: Settings) -> dict[str, Any]:
    """Return what was evaluated on what, so that another evaluation can be told to be the same."""
    card = loaded.card
    return {
        "which": "detector" if loaded.detectors else card.which,
        "data": list(settings.data),
        "segment_s": segments.x_BCT.shape[-1] / card.rate_hz,
        "folds": settings.folds,
        "shares": list(settings.shares),
        "seed": settings.seed,
        "train_subjects": settings.train_subjects,
        "pretraining_store": card.store_hash,
    }


def _summarise(task: Task, parts: Sequence[Part]) -> dict[str, Any]:
    """Return the numbers of every target, by names that begin with it where there are several."""
    result: dict[str, Any] = {"verdict": " ".join(part.verdict.text for part in parts)}
    for part in parts:
        prefix = f"{part.target}_" if part.target else ""
        kinds = part.compared.summary() | {"other_ways": comparison.plain(part.others)}
        for kind, by_name in kinds.items():
            result.setdefault(kind, {}).update({f"{prefix}{name}": value for name, value in by_name.items()})
        if graded := comparison.grade_answers(task, part.compared):
            grades = {f"{prefix}{who}": grade._asdict() for who, grade in graded.items()}
            result.setdefault("grades", {}).update(grades)
    return result


def _readable(counts: dict[str, Any]) -> dict[str, object]:
    """Return counts as a person reads them: names without underscores, classes on one line, unknown said so."""
    return {name.replace("_", " "): _as_text(count) for name, count in counts.items()}


def _as_text(count: Any) -> object:
    if isinstance(count, dict):
        return ", ".join(f"{label} {n}" for label, n in count.items())
    if isinstance(count, list):
        return ", ".join(map(str, count))
    return "not known" if count is None else count


def _describe(settings: Settings, known: bool, *, stored: bool) -> str:
    warning = "" if known else f" What it has seen is not known ({SEEN}): the encoder may have seen these subjects."
    if settings.protocol == "transfer":
        where = "the train split of the store" if stored else "the run's train split"
        others = "subjects that neither the encoder nor the probe has learnt from" if known else "other subjects"
        return f"The probe is fitted on subjects of {where} and tested on {others}.{warning}"
    whom = "subjects that pretraining has not seen" if known else "subjects that pretraining is not known to have seen"
    if settings.protocol == protocol.TIME:
        return f"Learnt from the first half of the segments of {whom}, asked of the second half of the same.{warning}"
    if settings.protocol == protocol.LEAKY:
        return (
            f"Leaky on purpose: segments of {whom} are dealt to {settings.folds} folds whatever their subject, so that "
            "a model may answer by recognising persons. To be compared with publications that do so, never to be "
            f"believed.{warning}"
        )
    return f"Cross-validated over {whom}: at most {settings.folds} folds, every subject whole in one of them.{warning}"


def _describe_calibration(loaded: Encoders) -> str:
    if not loaded.detectors:
        return ""
    if loaded.calibrated.complete:
        return " Whom the detector was calibrated on is left out: they chose its checkpoint and its threshold."
    unknown = f" Whom the detector was calibrated on is not known ({CALIBRATION})"
    return f"{unknown}: these subjects may have chosen its checkpoint and its threshold."
