"""What each source of a store came to, and whether that is likely: a wrong sampling rate shows here, not in an error.

for line, doubt in judge_sources(store, "waveform"):
    log.warning("%s: %s", line, doubt) if doubt else log.info(line)
"""

from collections.abc import Iterator

import numpy as np

from jaxbio.data.store import Store
from jaxbio.signals.segments import RATE_COLUMNS

_LEAST_SCORE = 0.5  # of a source's median: below it most segments are Poor or Bad
_BPM = (40.0, 180.0)  # of a source's median: no ward of patients lies outside, a rate wrong by two often does
_AGREE = 0.8  # of the channels' medians, the smallest to the largest: they see one heart
_REMEDY = "are the sampling rate and the channels right? Draw a recording with tools/look.py"


def judge_sources(store: Store, variant: str) -> Iterator[tuple[str, str | None]]:
    """Yield for each source its medians as a line of text, and what makes them doubtful, or None.

    The medians are of the score `variant` and of each channel's beats a minute, over the segments that have them.
    """
    quality_R = store.column(f"quality_{variant}")
    code_R, sources = store.codes("source")
    rate_R = {name: store.column(name) for name in RATE_COLUMNS.values() if store.has_column(name)}
    for code, source in enumerate(sources):
        mine_R = code_R == code
        score = float(np.median(quality_R[mine_R]))
        bpm = {name: _median(values_R[mine_R]) for name, values_R in rate_R.items()}
        said = [f"{name.removesuffix('_bpm').replace('_', ' ')} {_say(value)}" for name, value in bpm.items()]
        line = ", ".join([f"{source}: {int(mine_R.sum()):,} segments, medians: score {score:.2f}", *said])
        odd = [said[place] for place, value in enumerate(bpm.values()) if not _BPM[0] <= value <= _BPM[1]]
        if not odd and bpm and min(bpm.values()) < _AGREE * max(bpm.values()):
            odd = said
        odd += [f"score {score:.2f}"] * (score < _LEAST_SCORE)
        yield line, f"{' and '.join(odd)}; {_REMEDY}" if odd else None


def _say(bpm: float) -> str:
    return "in doubt" if np.isnan(bpm) else f"{bpm:.0f}/min"


def _median(value_N: np.ndarray) -> float:
    """Return the median of what is known, NaN where nothing is."""
    known_N = value_N[np.isfinite(value_N)]
    return float(np.median(known_N)) if known_N.size else float("nan")
