"""The page of embeddings judged side by side: a verdict, tables with intervals, and maps by class and by subject.

write_judging_page(out / "report.html", facts, {"all": Shown(judged, features, said)}, trust, labelled, tested_N)
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxbio.evaluation.judging import Judged, Labelled
from jaxbio.evaluation.judging_verdict import Said
from jaxbio.evaluation.metrics import Interval
from jaxbio.report import figures, page

_MEASURES_MEAN = (
    "knn5, knn20: a class by the vote of the nearest 5 or 20 of the segments fitted on; F1, or the area under the ROC "
    "curve of one class against the rest (ovr) or against one other (ovo), weighted by the classes' size or plain "
    "(macro). linear: balanced accuracy of a linear probe. _at_5: fitted on the labels of 5 % of the subjects. "
    "silhouette (-1 to 1), davies_bouldin (less is better) and calinski_harabasz: how far apart the true classes lie. "
    "nmi and ari: how k-means clusters agree with them, 1 at best and 0 by chance."
)
_INTERVALS = (
    "Value and 95 % interval: of a bootstrap over subjects, of clusters a jackknife over groups of subjects. Of "
    "several seeds it is their mean's, and the range of single seeds stands behind it. Differences are on the same "
    "draws of subjects: where their interval holds 0, they may be chance."
)
_MAPS = (
    "Segments tested, of several seeds by the first, in the two directions in which their embeddings vary most "
    "(principal components). Where the left map of an encoder shows classes apart and the right one shows no subject "
    "by itself, it tells classes; islands of one subject say that it knows people instead."
)


class Shown(NamedTuple):
    """What was found for one choice of leads: measures, features (N, D) of each seed by encoder, and what is said of
    the encoders in question.
    """

    judged: Judged
    features: Mapping[str, Sequence[np.ndarray]]
    said: Mapping[str, Said]


def write_judging_page(
    path: Path,
    facts: Mapping[str, object],
    shown: Mapping[str, Shown],
    trust: str,
    labelled: Labelled,
    tested_N: np.ndarray,
) -> Path:
    """Write the page of what was found by choice of leads; `trust` says how far to trust it, `tested_N` are the places
    of the segments tested.
    """
    sections = [
        page.section(f"What it means, leads: {leads}, {encoder}", verdict=said.text)
        for leads, found in shown.items()
        for encoder, said in found.said.items()
    ]
    sections.append(page.section("How far to trust it", note=trust))
    sections.append(page.section("Data", below=[page.facts(facts)]))
    for leads, found in shown.items():
        table = _draw_table(found.judged)
        sections.append(page.section(f"Measures, leads: {leads}", note=f"{_INTERVALS} {_MEASURES_MEAN}", below=[table]))
        maps = [
            picture
            for encoder, own in found.features.items()
            for picture in _draw_maps(own[0][tested_N], labelled, tested_N, encoder)
        ]
        sections.append(page.section(f"Maps, leads: {leads}", *maps, note=_MAPS))
    intro = "Frozen embeddings of several encoders beside each other: neighbours, a linear probe, clusters."
    return page.write_page(path, page.page("Embeddings judged", intro, *sections))


def _draw_table(judged: Judged) -> str:
    """Return every measure of every encoder, and what those in question have more than fresh networks."""
    by_encoder, by_gain = next(iter(judged.intervals.values())), next(iter(judged.gains.values()))
    rows = [
        [
            measure,
            *(_text(found[encoder]) + _text_of_seeds(judged.seeds[measure].get(encoder, ())) for encoder in by_encoder),
            *(_text(judged.gains[measure][encoder]) for encoder in by_gain),
        ]
        for measure, found in judged.intervals.items()
    ]
    return page.table(rows, ("", *by_encoder, *(f"{encoder}, more than fresh" for encoder in by_gain)))


def _draw_maps(feature_ND: np.ndarray, labelled: Labelled, tested_N: np.ndarray, encoder: str) -> list[str]:
    """Return the map of an encoder twice, coloured by class and by subject."""
    place_N2, shares = project(feature_ND)
    class_N, subject_N = labelled.class_N[tested_N], labelled.subject_N[tested_N]
    by_class, (axes,) = figures.new_figure(height_in=3.0)
    for code, name in enumerate(labelled.classes):
        colour = figures.COLOURS[code % len(figures.COLOURS)]
        axes.plot(*place_N2[class_N == code].T, ".", markersize=4, alpha=0.7, color=colour, label=name)
    figures.add_legend(axes)
    by_subject, (other,) = figures.new_figure(height_in=3.0)
    for number, subject in enumerate(np.unique(subject_N)):
        colour = figures.COLOURS[number % len(figures.COLOURS)]
        other.plot(*place_N2[subject_N == subject].T, ".", markersize=4, alpha=0.7, color=colour)
    for each in (axes, other):
        each.set(xlabel=f"first component, {shares[0]:.0%}", ylabel=f"second, {shares[1]:.0%}")
    caption = f"{encoder}, {len(tested_N)} segments"
    return [
        page.figure(figures.to_svg(by_class), f"{caption}, by class."),
        page.figure(figures.to_svg(by_subject), f"{caption}, by subject: {len(np.unique(subject_N))}, colours recur."),
    ]


def project(feature_ND: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the first two principal components of features, (N, 2), and the shares of the variance that they hold."""
    centred_ND = feature_ND.astype(np.float64) - feature_ND.mean(axis=0)
    left_NK, size_K, _ = np.linalg.svd(centred_ND, full_matrices=False)
    padded_K = np.append(size_K, (0.0, 0.0))
    total = max(float((size_K**2).sum()), np.finfo(float).tiny)
    place_N2 = np.zeros((len(feature_ND), 2))
    kept = min(2, len(size_K))
    place_N2[:, :kept] = left_NK[:, :kept] * size_K[:kept]
    return place_N2, (float(padded_K[0] ** 2 / total), float(padded_K[1] ** 2 / total))


def _text(interval: Interval) -> str:
    if not math.isfinite(interval.value):
        return "not defined"
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return f"{interval.value:.3g} (no interval)"
    return f"{interval.value:.3g} ({interval.low:.3g} to {interval.high:.3g})"


def _text_of_seeds(values: Sequence[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    return f"; {len(known)} seeds {min(known):.3g} to {max(known):.3g}" if known else ""
