"""Several runs' curves on one page, from their records alone.

write_runs_report(Path("runs.html"), ["runs/a", "runs/b"], re.compile("eval/.*"))
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from jaxbio.config.families import OBJECTIVES
from jaxbio.config.faults import Fault, UserError
from jaxbio.report import figures, page
from jaxbio.report.series import Series, read_series
from jaxbio.report.terms import describe
from jaxbio.report.text import capitalise

_MOST_RUNS = len(figures.COLOURS)
_LEAST_SPAN = 1e-5  # of the largest value


def write_runs_report(path: Path, runs: Sequence[str], pattern: re.Pattern[str]) -> dict[str, dict[str, float]]:
    """Write the page; return the last value of each key that is drawn, by run.

    Raises UserError for a folder without a record, more runs than colours, and where no two runs share a key.
    """
    if len(runs) > _MOST_RUNS:
        raise UserError(Fault("DIR", f"{len(runs)} runs", f"at most {_MOST_RUNS}, so that colours tell them apart"))
    series = {name: read_series(folder) for name, folder in zip(_short_names(runs), runs)}
    empty = [folder for folder, own in zip(runs, series.values()) if not own]
    if empty:
        raise UserError(Fault("DIR", ", ".join(empty), "no metrics.jsonl with a value: name workdirs of runs"))
    keys = [key for own in series.values() for key in own if pattern.fullmatch(key)]
    shared = [key for key in dict.fromkeys(keys) if sum(key in own for own in series.values()) > 1]
    if not shared:
        raise UserError(Fault("--keys", pattern.pattern, f"no key of two runs; the first has {', '.join(keys[:8])}"))
    objective = _objective(runs[0])
    drawn = [page.figure(_draw(key, series), f"{key}: {_meaning(key, objective)}") for key in shared]
    last = {key: {name: float(own[key][1][-1]) for name, own in series.items() if key in own} for key in shared}
    rows = [[key, *(f"{last[key][name]:.4g}" if name in last[key] else "" for name in series)] for key in shared]
    html = page.page(
        "Runs side by side",
        f"{len(runs)} runs: {', '.join(series)}.",
        page.section("Curves", *drawn, note="Each curve is a run, by step; runs without a key are not in its picture."),
        page.section("Last values", note="What each run had last.", below=[page.table(rows, ("", *series))]),
    )
    page.write_page(path, html)
    return last


def _draw(key: str, series: dict[str, Series]) -> str:
    fig, (axes,) = figures.new_figure()
    for place, (name, own) in enumerate(series.items()):
        if key in own:
            step_N, value_N = own[key]
            style = "-" if len(step_N) > 1 else "o"
            axes.plot(step_N, value_N, style, color=figures.COLOURS[place], label=figures.label_of(name), markersize=4)
    low, high = axes.get_ylim()
    if high - low < _LEAST_SPAN * max(abs(low), abs(high)):  # a setting: what float32 rounds is no course
        axes.set_ylim(min(0.0, 1.1 * low), max(0.0, 1.1 * high))
    axes.set(xlabel="step", ylabel=figures.label_of(key.partition("/")[2].replace("_", " ")))
    figures.add_legend(axes)
    return figures.to_svg(fig)


def _short_names(runs: Sequence[str]) -> list[str]:
    """Return what tells the runs apart: their folders' names, or their whole paths where these are alike."""
    names = [Path(run).resolve().name for run in runs]
    return names if len(set(names)) == len(names) else list(runs)


def _objective(run: str) -> str | None:
    """Return the objective of a run; None where its configuration is not there."""
    try:
        name = json.loads((Path(run) / "config.json").read_text())["objective.name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if name in OBJECTIVES else None


def _meaning(key: str, objective: str | None) -> str:
    return describe(key, objective) if objective else capitalise("a metric of these runs.")
