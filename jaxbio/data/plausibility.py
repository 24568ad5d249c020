"""What each source of a store came to, and whether that is likely: a wrong sampling rate shows here, not in an error.

for line, doubt in judge_sources(store, "waveform"):
    log.warning("%s: %s", line, doubt) if doubt else log.info(line)
"""

from collections.abc import Iterator

import numpy as np

from jaxbio.config.roles import LEADS
from jaxbio.data.quantise import FULL_RANGE
from jaxbio.data.recordings.channels import ARBITRARY
from jaxbio.data.store import Store
from jaxbio.signals.limb_leads import COLUMNS, find_doubtful, tell_doubts
from jaxbio.signals.segments import RATE_COLUMNS

_LEAST_SCORE = 0.5  # of a source's median: below it most segments are Poor or Bad
_BPM = (40.0, 180.0)  # of a source's median: no ward of patients lies outside, a rate wrong by two often does
_AGREE = 0.8  # of the channels' medians, the smallest to the largest: they see one heart
_RANGE_MV = (0.2, 30.0)  # of the leads' median: smallest to largest value of a segment, with wander
_REMEDY = "are the sampling rate and the channels right? Draw a recording with tools/look.py"


def judge_sources(store: Store, variant: str) -> Iterator[tuple[str, str | None]]:
    """Yield for each source its medians as a line of text, and what makes them doubtful, or None.

    The medians are of the score `variant` and of each channel's beats a minute, over the segments that have them.
    Swapped leads are a doubt of single segments, of which the first is named.
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
        odd += _sizes(store, mine_R) + _swapped(store, mine_R)
        yield line, f"{' and '.join(odd)}; {_REMEDY}" if odd else None


def _sizes(store: Store, mine_R: np.ndarray) -> list[str]:
    """Return in words whether the leads of a source are in no stated unit, or of a size that none in mV has."""
    leads = [place for place, role in enumerate(store.channels) if role in LEADS]
    if not leads:
        return []
    range_NC = 2 * FULL_RANGE * store.scale_NC2[mine_R][:, leads, 1]
    said = doubt_size(np.where(store.present_NC[mine_R][:, leads], range_NC, np.nan))
    unstated = any((store.column(f"{store.channels[place]}_unit")[mine_R] == ARBITRARY).any() for place in leads)
    return said + ["leads whose unit is not stated: what it is, --assume_unit=ecg:UNIT says"] * unstated


def doubt_size(range_NC: np.ndarray) -> list[str]:
    """Return in words a median that no leads in mV have; `range_NC` is from smallest to largest value of each segment
    and lead, NaN where it is not there.
    """
    median = _median(range_NC)
    return [f"a median range of the leads of {median:.3g} mV"] * (median < _RANGE_MV[0] or median > _RANGE_MV[1])


def _swapped(store: Store, mine_R: np.ndarray) -> list[str]:
    """Return in words which of a source's segments seem to have swapped leads, with the first of them."""
    columns = {name: store.column(name)[mine_R] for name in COLUMNS if store.has_column(name)}
    doubtful = [doubtful_N for doubtful_N in find_doubtful(columns).values() if doubtful_N.any()]
    if not doubtful:
        return []
    first = int(np.flatnonzero(mine_R)[np.any(doubtful, axis=0).argmax()])
    about = store.take(first)
    return [*tell_doubts(columns), f"the first is {about['recording']} at {about['start_s']:g} s"]


def _say(bpm: float) -> str:
    return "in doubt" if np.isnan(bpm) else f"{bpm:.0f}/min"


def _median(value_N: np.ndarray) -> float:
    """Return the median of what is known, NaN where nothing is."""
    known_N = value_N[np.isfinite(value_N)]
    return float(np.median(known_N)) if known_N.size else float("nan")
