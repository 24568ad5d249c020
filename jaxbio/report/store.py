"""The report of a store: what is in it, what was rejected, and how its segments look. One self-contained page.

write_store_report(open_store("store"), config)      # store/store_report.html
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from jaxbio.config.features import FEATURES, LEAD
from jaxbio.config.roles import printed
from jaxbio.data.labels import count_unknown, count_values, list_labels, open_labels
from jaxbio.data.pairs import (
    CLASSES,
    Rows,
    class_edges,
    class_of,
    has_index,
    open_index,
    read_rows,
    select,
    split_codes,
)
from jaxbio.data.plausibility import judge_sources
from jaxbio.data.quantise import dequantise
from jaxbio.data.splits import SPLITS
from jaxbio.data.store import Store, subject_codes
from jaxbio.data.store_files import RECORDINGS
from jaxbio.report.chosen import choose_examples
from jaxbio.report.figures import COLOURS, add_legend, colour_of, label_of, new_figure, stack_height_in, to_svg
from jaxbio.report.page import facts, figure, page, paragraph, section, table, write_page
from jaxbio.report.terms import ARTEFACT, SCORE, VARIANTS, tell_outcome

_FRAMES_DRAWN = 1000
_SUMMARY_MEANS = {
    "hours kept": "of all hours that the sources hold.",
    "segments in use": "in one of the splits; pairs are made of them.",
    "duplicates, not used": "segments whose samples are those of another one.",
    "subjects": "patients, as far as the sources tell who they are.",
    "recordings": "with at least one segment kept, of all that were found.",
    "shards": "files of segments, and their size together.",
    "hash": "of all that is in the store: runs name it.",
}


def write_store_report(store: Store, config: ConfigDict, path: Path | None = None) -> Path:
    """Draw the report of `store` under the quality and pairs fields of `config`; return where it lies.

    The default place is `store_report.html` in the store. Reads a few segments, nothing else of the signals.
    """
    path = path or store.path / "store_report.html"
    used_R = split_codes(store) >= 0
    variant = config.quality.variant
    quality_R = store.column(f"quality_{variant}")
    edges = class_edges(quality_R[used_R], config)
    rows = read_rows(store, np.flatnonzero(used_R), quality_R, edges)
    sections = [
        section("In short", below=[facts(_summary(store, used_R), _SUMMARY_MEANS)]),
        _account_section(store, variant),
        _split_section(store, used_R),
        _class_section(store, used_R, config),
        *_label_sections(store),
        _quality_section(store, used_R),
        _pair_section(rows, store, config),
        _example_section(store, rows, variant),
    ]
    intro = f"{store.path.name}: {store.length / store.rate_hz:g}-s segments of {', '.join(store.channels)}"
    intro += f" and {len(store.features)} features of lead {printed(LEAD)}" if store.features else ""
    return write_page(path, page("Segment store", f"{intro} at {store.rate_hz:g} Hz.", *sections))


def _summary(store: Store, used_R: np.ndarray) -> dict[str, Any]:
    account, counts = store.manifest["account"], store.manifest["counts"]
    size = sum(shard["bytes"] for shard in store.shards)
    return {
        "hours kept": f"{account['kept_s'] / 3600:,.2f} of {account['total_s'] / 3600:,.2f}",
        "segments in use": f"{int(used_R.sum()):,}",
        "duplicates, not used": f"{counts['duplicates']:,}",
        "subjects": f"{counts['subjects']:,}",
        "recordings": f"{account['recordings_kept']:,} of {account['recordings']:,}",
        "shards": f"{len(store.shards):,} of {size / 2**20:,.0f} MiB",
        "hash": store.hash[:12],
    }


def _account_section(store: Store, variant: str) -> str:
    account = store.manifest["account"]
    rows = []
    for name, part in (("all", account), *account["sources"].items()):
        if name != "all" and len(account["sources"]) == 1:
            break
        for outcome, seconds in (("kept", part["kept_s"]), *part["rejected_s"].items()):
            share = seconds / part["total_s"] if part["total_s"] else 0.0
            said = outcome.replace("_", " "), f"{seconds / 3600:.3f}", f"{share:.2%}", tell_outcome(outcome)
            rows.append((name, *said))
    blocks = [table(rows, ("source", "outcome", "hours", "share", "what it means"))]
    doubts = [(line.partition(":")[0], doubt) for line, doubt in judge_sources(store, variant) if doubt]
    if doubts:
        blocks += [paragraph("Doubtful, and kept:"), table(doubts, ("source", "what is doubtful"))]
    failed = _failures(store)
    if failed:
        blocks += [paragraph("Recordings that could not be used, or not to their end:")]
        blocks += [table(failed, ("reason", "source", "number", "hours", "the first of them"))]
    note = "Every second of every recording is kept or rejected with a reason; recordings.parquet has it by recording."
    verdict = _judge_account(account)
    return section("Where the time went", note=note, verdict=verdict, below=blocks)


def _judge_account(account: Mapping[str, Any]) -> str:
    """Return in words how much was kept, and what took most of the rest."""
    share = account["kept_s"] / account["total_s"] if account["total_s"] else 0.0
    said = f"{share:.1%} of the time was kept"
    if not account["rejected_s"]:
        return f"{said}; nothing was rejected."
    worst = max(account["rejected_s"], key=lambda reason: account["rejected_s"][reason])
    lost = account["rejected_s"][worst] / account["total_s"]
    return f"{said}; most of the rest ({lost:.1%}) is {worst.replace('_', ' ')}: {tell_outcome(worst)}."


def _failures(store: Store) -> list[tuple[object, ...]]:
    """Return a line for each source and reason of recordings that failed: how many, how long, what the first said."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in pq.read_table(store.path / RECORDINGS, filters=[("detail", "!=", "")]).to_pylist():
        groups.setdefault((line["outcome"].replace("_", " "), line["source"]), []).append(line)
    return [
        (*group, len(lines), f"{sum(line['seconds'] for line in lines) / 3600:.3f}", lines[0]["detail"])
        for group, lines in sorted(groups.items())
    ]


def _split_section(store: Store, used_R: np.ndarray) -> str:
    code_R = split_codes(store)
    subject_R, subjects = subject_codes(store)
    lines = []
    for code, split in enumerate(SPLITS):
        mine_R = code_R == code
        hours = mine_R.sum() * store.segment_s / 3600
        there = np.bincount(subject_R[mine_R], minlength=len(subjects))
        lines.append((split, f"{np.count_nonzero(there):,}", f"{int(mine_R.sum()):,}", f"{hours:,.2f}"))
    blocks = []
    unknown = ~store.column("subject_known")[used_R]
    if unknown.any():
        share = f"{unknown.mean():.0%} of the segments come from recordings that name no subject"
        blocks.append(paragraph(f"{share}; each of these recordings counts as its own subject."))
    for move in store.manifest["split_moves"]:
        moved = f"{move['subject']} of {move['source']}, by its hash in {move['from']}"
        blocks.append(paragraph(f"The {move['to']} split would have been empty: {moved}, was moved there."))
    note = (
        "A network learns from train; validation follows it while it does, and test is for the end. A subject is whole "
        "in one of them, by a hash of its source and its name, so that splits hold when data are added."
    )
    return section("Splits", table(lines, ("split", "subjects", "segments", "hours")), note=note, below=blocks)


def _class_section(store: Store, used_R: np.ndarray, config: ConfigDict) -> str:
    fig, (axes,) = new_figure(height_in=2.4)
    columns: list[list[str]] = [list(CLASSES)]
    for place, (variant, label) in enumerate(VARIANTS.items()):
        quality_R = store.column(f"quality_{variant}")[used_R]
        edges = class_edges(quality_R, config)
        share = np.bincount(class_of(quality_R, edges), minlength=len(CLASSES)) / max(1, quality_R.size)
        axes.bar(np.arange(len(CLASSES)) + 0.4 * place - 0.2, 100 * share, 0.38, color=COLOURS[place], label=label)
        columns += [["0", *(f"{edge:.3g}" for edge in edges)], [f"{part:.1%}" for part in share]]
    axes.set_xticks(range(len(CLASSES)), CLASSES)
    axes.set(ylabel="segments, %")
    axes.margins(y=0.25)
    add_legend(axes)
    heads = ("class", *(f"{variant} {what}" for variant in VARIANTS for what in ("from", "share")))
    note = f"Classes are ranges of the score; the table has their lower edges (pairs.class_edges). {SCORE}"
    return section(
        "Classes",
        figure(to_svg(fig), "Share of the segments in use, by class, under both variants of the score."),
        table(list(zip(*columns, strict=True)), heads),
        note=note,
    )


def _label_sections(store: Store) -> list[str]:
    """Return the section of the labels that were added; none where there are none."""
    lines: list[tuple[object, ...]] = []
    split_R = split_codes(store)
    for label in open_labels(store, list_labels(store)):
        counts = [*count_values(label, split_R).items(), ("(unknown)", count_unknown(label, split_R))]
        lines += [(label.name, value, *(f"{count:,}" for count in by_split)) for value, by_split in counts]
    note = "Segments in use by value, from the files in labels/ that tools/add_labels.py writes."
    return [section("Labels", note=note, below=[table(lines, ("label", "value", *SPLITS))])] if lines else []


def _quality_section(store: Store, used_R: np.ndarray) -> str:
    figures = []
    for variant, label in VARIANTS.items():
        columns = {printed(role): store.column(f"{role}_{variant}")[used_R] for role in store.channels}
        columns["mean"] = store.column(f"quality_{variant}")[used_R]
        said = f"Scores of each channel and their mean, {label} variant: share of the segments at each score."
        figures.append(figure(_histogram(columns, "quality score"), said))
    fractions = {name: store.column(f"{name}_frac")[used_R] for name in ("missing", "artefact")}
    figures.append(
        figure(_histogram(fractions, "fraction of the segment"), f"Missing samples, and artefacts. {ARTEFACT}")
    )
    return section("Quality", *figures, note=SCORE, below=_presence(store, used_R))


def _presence(store: Store, used_R: np.ndarray) -> list[str]:
    """Return a table of how often each channel is masked, where any is."""
    present_NC = store.present_NC[used_R]
    if present_NC.all():
        return []
    lines = [
        (printed(role), f"{int(present_N.sum()):,}", f"{int((~present_N).sum()):,}")
        for role, present_N in zip(store.channels, present_NC.T, strict=True)
    ]
    said = "Some segments lack a channel: zeros, left out of every mean (prepare.missing_channel = mask)."
    return [paragraph(said), table(lines, ("channel", "segments with it", "masked"))]


def _histogram(columns: Mapping[str, np.ndarray], label: str) -> str:
    fig, axes = new_figure(len(columns), height_in=stack_height_in(len(columns)), sharex=True)
    edges = np.linspace(0, 1, 41)
    for place, (name, value_R) in enumerate(columns.items()):
        known_R = value_R[~np.isnan(value_R)]  # NaN: the channel is masked
        count, _ = np.histogram(np.clip(known_R, 0, 1), edges)
        colour = COLOURS[place % len(COLOURS)]
        axes[place].stairs(100 * count / max(1, known_R.size), edges, fill=True, color=colour, alpha=0.85)
        axes[place].set(ylabel=f"{name}, %", xlim=(0, 1))
    axes[-1].set(xlabel=label)
    return to_svg(fig)


def _pair_section(rows: Rows, store: Store, config: ConfigDict) -> str:
    pair_NM = _find_pairs(rows, store, config)
    if pair_NM.shape[1] == 1:
        return section("Pairs", note=f"{len(pair_NM):,} single segments: the rule makes no pairs.")
    if config.pairs.rule == "same_segment":
        return section("Pairs", note=f"{len(pair_NM):,} segments, each paired with itself.")
    place_R = np.zeros(store.rows, np.int32)  # of each of the store's rows among those in use
    place_R[rows.row_R] = np.arange(rows.row_R.size)
    place_NM = place_R[pair_NM]
    gap_N = np.abs(np.diff(rows.slot_R[place_NM], axis=1)[:, 0])
    better_N, worse_N = rows.class_R[place_NM].T.astype(np.intp)
    count = np.bincount(better_N * len(CLASSES) + worse_N, minlength=len(CLASSES) ** 2).reshape(2 * [len(CLASSES)])
    lines = [
        (CLASSES[better], *(f"{count[better, worse]:,}" for worse in range(len(CLASSES))))
        for better in reversed(range(len(CLASSES)))
        if count[better].any()
    ]
    rule = f"{config.pairs.rule}, at most {config.pairs.max_gap_s:g} s apart"
    cap = config.pairs.max_per_segment
    rule += "" if cap is None else f", at most {cap} a segment, nearest first"
    return section(
        "Pairs",
        figure(_gap_figure(gap_N, store.segment_s), "Pairs by the time between the starts of their members."),
        table(lines, ("better \\ worse", *CLASSES)),
        note=f"{len(pair_NM):,} pairs by the rule {rule}. A pair is two segments of one recording: the network that "
        "sees the worse one must find what a network sees in the better one. The table counts pairs by both "
        "classes.",
    )


def _find_pairs(rows: Rows, store: Store, config: ConfigDict) -> np.ndarray:
    """Return the pairs of all splits: those of the index that preparation has made, where it is there."""
    if not has_index(store, config):
        return select(rows, config, store.segment_s)[0]
    return np.concatenate([open_index(store, config, split).rows_NM for split in SPLITS])


def _gap_figure(gap_N: np.ndarray, segment_s: float) -> str:
    """Draw how many pairs (N,) lie how many segments apart."""
    fig, (axes,) = new_figure()
    count = np.bincount(gap_N)
    gap = np.flatnonzero(count)
    axes.bar(gap * segment_s, count[gap], 0.8 * segment_s, color=COLOURS[0])
    axes.set(xlabel="time gap, s", ylabel="pairs")
    return to_svg(fig)


def _example_section(store: Store, rows: Rows, variant: str) -> str:
    """Draw the worst, the middle and the best segment of each class, worst class first."""
    figures = []
    for code, name in enumerate(CLASSES):
        place = np.flatnonzero(rows.class_R == code)
        if not place.size:
            continue
        for chosen, which in choose_examples(rows.quality_R[place]).items():
            what = f"{name}, {which if which.startswith('the') else f'its {which}'}"
            figures.append(_example(store, int(rows.row_R[place[chosen]]), what, variant))
    note = (
        "The worst, the middle and the best segment of each class, worst class first, in physical units (NU: none). "
        f"Under each its {VARIANTS[variant]} score and that of its channels."
    )
    return section("Examples", *figures, note=note)


def _example(store: Store, row: int, what: str, variant: str) -> str:
    about = store.take(row)
    scale_C2 = [[about[f"{name}_{part}"] for part in ("offset", "gain")] for name in (*store.channels, *store.features)]
    x_CT = dequantise(store.read([row]), np.array([scale_C2], np.float32))[0]
    present = dict(zip(store.channels, store.present_NC[row].tolist(), strict=True))
    labels = [(role, about[f"{role}_unit"] if present[role] else "masked") for role in store.channels]
    labels += [(name.replace("_", " "), FEATURES[name].unit) for name in store.features]
    fig = draw_segment(x_CT, store.rate_hz, labels)
    scores = [f"{printed(role)} {about[f'{role}_{variant}']:.2f}" for role in store.channels if present[role]]
    where = f"{about['source']} {about['recording']} at {about['start_s']:g} s"
    return figure(to_svg(fig), f"{what}: {about[f'quality_{variant}']:.3f} ({', '.join(scores)}), {where}")


def draw_segment(x_CT: np.ndarray, rate_hz: float, labels: Sequence[tuple[str, str]]) -> Figure:
    """Return a figure of one segment, a channel below the other, time in s; `labels` are (role, unit) by channel."""
    fig, axes = new_figure(len(labels), height_in=stack_height_in(len(labels)), sharex=True)
    # Lowest and highest sample of every frame: fewer points, and no peak is lost.
    frame = max(2, x_CT.shape[1] // _FRAMES_DRAWN)
    framed = x_CT[:, : x_CT.shape[1] // frame * frame].reshape(len(labels), -1, frame)
    drawn = np.stack([framed.min(-1), framed.max(-1)], axis=-1).reshape(len(labels), -1)
    time_s = np.arange(drawn.shape[1]) * frame / 2 / rate_hz
    for axis, x_T, (role, unit) in zip(axes, drawn, labels, strict=True):
        axis.plot(time_s, x_T, linewidth=0.6, color=colour_of(role))
        axis.set(ylabel=label_of(printed(role), unit), xlim=(0, x_CT.shape[1] / rate_hz))
    axes[-1].set(xlabel="time, s")
    return fig
