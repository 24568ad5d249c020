"""What linear probes within a run read from its encoders: the panels of the report, and what they come to in words.

judge_probes(series)      # "Heart rate is read from the teacher (mae 5.2; the constant 16.8), better than at ..."
"""

from jaxbio.report.panels import Panels
from jaxbio.report.series import Series
from jaxbio.report.terms import read_probe
from jaxbio.report.text import capitalise

_CLEAR = 0.1  # share of an error by which two answers must differ to be called different, where no interval is known


def probe_panels(series: Series) -> Panels:
    """Return a panel for each task of the linear probes, with a line for each who answers."""
    panels: Panels = {}
    for key in series:
        if probe := read_probe(key):
            task, metric, answerer = probe
            panels.setdefault(f"{task} {metric}".replace("_", " "), {})[answerer] = key
    return panels


def judge_probes(series: Series) -> str:
    """Return in words what the encoders tell of each task beside the constant, and beside themselves at the start."""
    said = []
    for lines in probe_panels(series).values():
        last = {answerer: float(series[key][1][-1]) for answerer, key in lines.items()}
        constant = last.pop("constant", None)
        if constant is None or not last:
            continue
        task, metric, _ = read_probe(next(iter(lines.values()))) or ("", "", "")
        sign = -1.0 if metric == "mae" else 1.0
        best = max(last, key=lambda answerer: sign * last[answerer])
        first = float(series[lines[best]][1][0])
        reads = "is read from" if sign * (last[best] - constant) > _CLEAR * constant else "is hardly read from"
        moved = sign * (last[best] - first) / max(abs(first), 1e-12)
        trend = "better than" if moved > _CLEAR else "worse than" if moved < -_CLEAR else "much as"
        said.append(
            f"{capitalise(task.replace('_', ' '))} {reads} the {best} ({metric.replace('_', ' ')} {last[best]:.3g}; "
            f"the constant {constant:.3g}), {trend} at the run's first evaluation ({first:.3g})."
        )
    if not said:
        return ""
    trust = "Few segments and no interval: less than a tenth may be chance. tools/evaluate.py says it with intervals."
    return " ".join([*said, trust])
