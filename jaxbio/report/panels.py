"""Which keys of a run's record are drawn beside each other: a panel is its lines, {name: key}, and has a name itself.

monitor_panels(series)      # {"batch spread": {"teacher": "eval/teacher_batch_spread", "student": ...}, ...}
"""

import re
from collections.abc import Mapping

from jaxbio.report.series import Series
from jaxbio.report.verdict import EXPLAINABLE, EXPLAINED

Panels = dict[str, dict[str, str]]

_SCHEDULES = {
    "train/learning_rate": "learning rate",
    "train/weight_decay": "weight decay",
    "train/ema_momentum": "teacher momentum",
}
MONITORS = (
    "batch_spread",
    "effective_rank",
    "teacher_entropy",
    "student_entropy",
    "student_mean_entropy",
    "output_spread",
    "code_perplexity",
    "unused_codes",
    "revived_codes",
    "identical_codes",
)
NORMS = ("grad_norm", "param_norm", "update_norm")


def schedule_labels(series: Series) -> dict[str, str]:
    """Return the label of every schedule that the run logged; those of `optimizer.groups[1]` end in `_group_1`."""
    return {
        key: label + key.removeprefix(plain_key).replace("_", " ")
        for plain_key, label in _SCHEDULES.items()
        for key in series
        if key == plain_key or key.startswith(f"{plain_key}_group_")
    }


def norm_labels(series: Series) -> dict[str, str]:
    """Return the label of every norm that the run logged."""
    return {key: key.partition("/")[2].replace("_", " ") for key in series if key.endswith(NORMS)}


def one_line_panels(labels: Mapping[str, str]) -> Panels:
    """Return a panel of one line for each key with its label."""
    return {label: {"": key} for key, label in labels.items()}


def channel_panels(series: Series) -> Panels:
    """Return a panel for each metric that was measured from one kind of channel alone, a line for each."""
    panels: Panels = {}
    for key in series:
        if found := re.fullmatch(r"(eval/(\w+))_([a-z]+)_only", key):
            lines = panels.setdefault(found[2], {"all channels": found[1]})
            lines[f"{found[3].upper()} only"] = key
    return panels


def judged_panels(series: Series) -> Panels:
    """Return for each term that can be judged a panel of it beside what it is judged by, of how much of it is
    explained, and of how much there is to explain.
    """
    panels: Panels = {}
    for term in [key.removesuffix(EXPLAINED) for key in series if key.endswith(EXPLAINED)]:
        name = term.removeprefix("eval/").replace("_", " ")
        beside = {
            "held out": term,
            "a prediction that says nothing": f"{term}_uniform",
            "the best constant": f"{term}_constant",
            "the least there can be": f"{term}_floor" if f"{term}_floor" in series else "eval/teacher_entropy",
        }
        panels[name] = {label: key for label, key in beside.items() if key in series}
        panels[f"{name} explained"] = {"held out": f"{term}{EXPLAINED}"}
        if f"{term}{EXPLAINABLE}" in series:
            panels[f"{name} explainable"] = {"held out": f"{term}{EXPLAINABLE}"}
    return panels


def monitor_panels(series: Series) -> Panels:
    """Return a panel for each monitor, with a line for each encoder, or for training and held-out segments."""
    panels: Panels = {}
    for monitor in MONITORS:
        for key in series:
            if key.endswith(monitor):
                area, _, name = key.partition("/")
                whose = name.removesuffix(monitor).replace("_", " ").strip()
                line = whose or ("held out" if area == "eval" else "training")
                panels.setdefault(monitor.replace("_", " "), {})[line] = key
    return {name: dict(sorted(lines.items(), reverse=True)) for name, lines in panels.items()}
