"""An evaluation from labelled segments to its files: who is tested, what is compared, what is said of it.

result = evaluate("vt_alarm", loaded, segments, Settings("cross_validate"), Path("out"), store=None)
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxbio.data.seen import SEEN
from jaxbio.data.store import StoreView
from jaxbio.evaluation import comparison, probe_report, probes, protocol, readouts, results, verdict
from jaxbio.evaluation.comparison import HAND_MADE, HAND_MADE_BOOSTED, PRETRAINED, Comparison, Entrant
from jaxbio.evaluation.encoders import Encoders, embed_all
from jaxbio.evaluation.metrics import Interval
from jaxbio.evaluation.probe_report import Part, Shown
from jaxbio.evaluation.probes import Split
from jaxbio.evaluation.tasks import Segments, Task, get_task
from jaxbio.signals.features import describe_segments
from jaxbio.signals.segments import MIN_S

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How to evaluate: protocol, folds, seed, the shares of subjects that are also fitted on, and where embeddings are
    kept (None: nowhere)."""

    protocol: str
    folds: int = 5
    seed: int = 0
    shares: tuple[float, ...] = ()
    cache: Path | None = None


def evaluate(
    name: str, loaded: Encoders, segments: Segments, settings: Settings, out: Path, store: StoreView | None
) -> dict[str, Any]:
    """Evaluate, write results.json, predictions.parquet and report.html into `out`, and return the results.

    Raises UserError where nobody is left to fit on or to test on, or labels tell nothing apart.
    """
    task, seen_known = get_task(name), loaded.seen.complete or store is not None
    seen_B = _find_seen(segments, loaded, store)
    entrants = _make_entrants(loaded, segments, settings)
    parts, compared, counts = [], {}, {}
    for place, target in enumerate(task.targets):
        row_B, splits = _choose_rows(task, segments, place, seen_B, settings)
        label_N, subject_N = segments.label_BK[row_B, place], segments.subject_B[row_B]
        own = {who: Entrant([f[row_B] for f in entrant.features], entrant.readout) for who, entrant in entrants.items()}
        how: dict[str, Any] = {"classes": len(segments.classes), "grouped": settings.protocol not in protocol.UNGROUPED}
        found = comparison.compare(task, own, label_N, subject_N, splits, seed=settings.seed, **how)
        others = _other_ways(task, own, label_N, subject_N, splits, settings, how)
        counts = _count(segments, label_N, subject_N, splits, seen_B, seen_known or bool(seen_B.any()))
        log.info("%s: %s", settings.protocol, counts)
        unnamed = float(np.mean(~segments.subject_known_B[row_B][found.row_N]))
        judged = verdict.judge(
            task,
            found,
            subjects=counts["subjects_tested"],
            unnamed=unnamed,
            seen_known=seen_known,
            target=target,
            leaky=settings.protocol == protocol.LEAKY,
        )
        found = Comparison(row_B[found.row_N], *(getattr(found, field) for field in _AFTER_ROWS))
        compared[target] = found
        parts.append(Part(target, found, judged, others))
    return _write(name, task, loaded, segments, settings, out, parts, compared, counts, entrants, seen_known)


_AFTER_ROWS = ("answers", "intervals", "gains", "truth", "seeds", "delong")


def _make_entrants(loaded: Encoders, segments: Segments, settings: Settings) -> dict[str, Entrant]:
    features = embed_all(loaded, segments.x_BCT, cache=settings.cache, seed=settings.seed)
    entrants = {name: Entrant(own) for name, own in features.items()}
    card = loaded.card
    if segments.x_BCT.shape[-1] / card.rate_hz >= MIN_S:
        by_hand_BF, _ = describe_segments(segments.x_BCT, card.rate_hz, card.channels)
        entrants[HAND_MADE] = Entrant([by_hand_BF])
        entrants[HAND_MADE_BOOSTED] = Entrant([by_hand_BF], readouts.BOOSTED)
    else:
        log.warning("segments below %g s have no hand-made features: they are left out", MIN_S)
    return entrants


def _choose_rows(
    task: Task, segments: Segments, place: int, seen_B: np.ndarray, settings: Settings
) -> tuple[np.ndarray, list[Split]]:
    """Return the rows that have a label and whose class two subjects have, and the splits of them."""
    label_B, classes = segments.label_BK[:, place], segments.classes
    row_N = np.flatnonzero(np.isfinite(label_B) & (label_B >= 0))
    usable_N = row_N if settings.protocol == "transfer" else row_N[~seen_B[row_N]]
    if len(usable_N):
        lone = comparison.check_labels(task, label_B[usable_N], segments.subject_B[usable_N], classes)
        if lone:
            log.warning("left out, since a single subject has them: %s", ", ".join(lone))
            row_N = row_N[~np.isin(label_B[row_N], [classes.index(name) for name in lone])]
    stratified = label_B[row_N] if classes and task.grouping == "subject" else None
    splits = protocol.make_splits(
        settings.protocol,
        segments.subject_B[row_N],
        seen_B[row_N],
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
    ways |= {"10 nearest neighbours": {"readout": readouts.KNN}}
    found = {}
    for name, way in ways.items():
        # who brings a readout of its own would only answer again with another one
        asked = {who: own for who, own in entrants.items() if own.readout is None or "readout" not in way}
        run = comparison.compare(
            task, asked, label_N, subject_N, splits, seed=settings.seed, only_first=True, **how, **way
        )
        found[name] = next(iter(run.intervals.values()))
    return found


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


def _count(
    segments: Segments,
    label_N: np.ndarray,
    subject_N: np.ndarray,
    splits: Sequence[Split],
    seen_B: np.ndarray,
    known: bool,
) -> dict[str, Any]:
    tested = probes.tested_rows(splits)
    counts: dict[str, Any] = {
        "segments_tested": sum(len(test) for _, test in splits),
        "subjects_tested": len(np.unique(subject_N[tested])),
        "subjects_fitted_on": len(np.unique(subject_N[np.concatenate([fit for fit, _ in splits])])),
        "segments_seen_in_pretraining": int(seen_B.sum()) if known else None,
        "subjects_seen_in_pretraining": len(np.unique(segments.subject_B[seen_B])) if known else None,
    }
    if segments.classes and len(segments.classes) <= 12:
        counts["tested_by_class"] = {
            name: int(np.sum(label_N[tested] == code)) for code, name in enumerate(segments.classes)
        }
    return counts


def _write(
    name: str,
    task: Task,
    loaded: Encoders,
    segments: Segments,
    settings: Settings,
    out: Path,
    parts: Sequence[Part],
    compared: dict[str, Comparison],
    counts: dict[str, Any],
    entrants: dict[str, Entrant],
    seen_known: bool,
) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    said = _describe(settings, seen_known)
    card = loaded.card
    facts = {"encoder": card.encoder, "steps": card.steps, **_readable(counts)}
    shown = Shown(segments, entrants[PRETRAINED].features[0], card.rate_hz, card.channels)
    report = probe_report.write_probe_report(
        out / "report.html", task, parts, facts, said, shown, classes=segments.classes
    )
    results.write_predictions(out, segments, compared)
    result: dict[str, Any] = {
        "task": name,
        "export": ", ".join(loaded.named),
        "encoder": card.encoder,
        "protocol": settings.protocol,
        "published": task.published,
        "left_out": said,
        "verdict": " ".join(part.verdict.text for part in parts),
        "classes": list(segments.classes)[:12],
        **counts,
    }
    for part in parts:
        prefix = f"{part.target}_" if part.target else ""
        for kind, by_metric in part.compared.summary().items():
            result.setdefault(kind, {}).update({f"{prefix}{metric}": value for metric, value in by_metric.items()})
        ways = {f"{prefix}{way}": by_name for way, by_name in comparison.plain(part.others).items()}
        result.setdefault("other_ways", {}).update(ways)
    result["report"] = str(report)
    results.write_results(out, result)
    log.info("\n%s", "\n\n".join(f"{part.verdict.result}\n{part.verdict.trust}" for part in parts))
    return result


def _readable(counts: dict[str, Any]) -> dict[str, object]:
    """Return counts as a person reads them: names without underscores, classes on one line, unknown said so."""
    texts = {
        name: ", ".join(f"{label} {n}" for label, n in count.items()) if isinstance(count, dict) else count
        for name, count in counts.items()
    }
    return {name.replace("_", " "): "not known" if text is None else text for name, text in texts.items()}


def _describe(settings: Settings, known: bool) -> str:
    if settings.protocol == "transfer":
        return (
            "The probe is fitted on subjects of the run's train split and tested on subjects that neither the encoder "
            "nor the probe has learnt from."
        )
    whom = "subjects that pretraining has not seen" if known else "subjects that pretraining is not known to have seen"
    warning = "" if known else f" What it has seen is not known ({SEEN}): the encoder may have seen these subjects."
    if settings.protocol == protocol.TIME:
        return f"Learnt from the first half of the segments of {whom}, asked of the second half of the same.{warning}"
    if settings.protocol == protocol.LEAKY:
        return (
            f"Leaky on purpose: segments of {whom} are dealt to {settings.folds} folds whatever their subject, so that "
            "a model may answer by recognising persons. To be compared with publications that do so, never to be "
            f"believed.{warning}"
        )
    return f"Cross-validated over {whom}: at most {settings.folds} folds, every subject whole in one of them.{warning}"
