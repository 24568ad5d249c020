"""Does a run learn by its main loss, and has an encoder collapsed? In words, from the evaluations of a run.

A loss that falls answers neither: that of a teacher and a student falls as well when both say the same of every
segment. These two questions are put to what each evaluation measures on held-out segments (jaxbio/training/held_out.py): the
share of the way that a term has come from the best constant prediction to its floor, `eval/<term>_explained`, and
spread and effective rank of each encoder's features beside those of the run's first evaluation.

    for finding in judge(read_series(workdir)):
        print(finding.words)
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Series = Mapping[str, tuple[np.ndarray, np.ndarray]]

# A student dips at first, to 0.5 of its start's spread in runs that learn; collapsed ones keep under 0.1
# (docs/recipe.md).
LEAST_SPREAD = 0.2  # of the start's
LEAST_RANK = 0.15  # of the start's
LEARNS, LEARNS_LITTLE = 0.1, 0.02  # share explained
LEAST_WAY = 0.05  # nats, or the term's unit, between constant and floor: with less there is nothing to learn
_SPREAD, _RANK = "_batch_spread", "_effective_rank"
_EXPLAINED, _EXPLAINABLE = "_explained", "_explainable"


@dataclass(frozen=True)
class Finding:
    """What was found: `subject`, an encoder or a term; whether it is `bad`; and why, in whole sentences."""

    subject: str
    bad: bool
    words: str


def judge(series: Series) -> list[Finding]:
    """Return what the evaluations so far say of each term that can be judged and of each encoder.

    `series` has (step_N, value_N) by key, as `report.run.read_series` gives it. Nothing is said before the second
    evaluation: at step 0 a network has learnt nothing, and has nothing to be compared with.
    """
    terms = [key.removeprefix("eval/").removesuffix(_EXPLAINED) for key in series if key.endswith(_EXPLAINED)]
    encoders = [key.removeprefix("eval/").removesuffix(_SPREAD) for key in series if key.endswith(_SPREAD)]
    found = [_judge_term(series, term) for term in terms]
    found += [_judge_encoder(series, encoder) for encoder in encoders if f"eval/{encoder}{_RANK}" in series]
    return [finding for finding in found if finding is not None]


def _judge_term(series: Series, term: str) -> Finding | None:
    step_N, share_N = series[f"eval/{term}{_EXPLAINED}"]
    if step_N[-1] == 0:
        return None
    share, way = float(share_N[-1]), float(series[f"eval/{term}{_EXPLAINABLE}"][1][-1])
    if way < LEAST_WAY:
        return Finding(
            term,
            True,
            f"There is nothing to learn. At step {step_N[-1]:,} the targets of {term} are the same for every held-out "
            f"segment but for {way:.2g}: a constant foretells them.",
        )
    said = (
        f"At step {step_N[-1]:,} {term} on held-out segments has come {share:.0%} of the way from the best prediction "
        "that is the same for every segment to the least there can be"
    )
    if share >= LEARNS:
        return Finding(term, False, f"The main loss learns. {said}.")
    if share >= LEARNS_LITTLE:
        return Finding(term, False, f"The main loss learns a little. {said}.")
    return Finding(term, True, f"The main loss does not learn. {said}: a constant would do as well.")


def _judge_encoder(series: Series, encoder: str) -> Finding | None:
    step_N, spread_N = series[f"eval/{encoder}{_SPREAD}"]
    _, rank_N = series[f"eval/{encoder}{_RANK}"]
    if len(spread_N) < 2 or len(rank_N) < 2:
        return None
    spread, rank = (float(value_N[-1] / max(value_N[0], 1e-12)) for value_N in (spread_N, rank_N))
    numbers = (
        f"at step {step_N[-1]:,} the features of the {encoder} keep {spread:.0%} of the spread and {rank:.0%} of the "
        "effective rank that they had at the start"
    )
    if spread < LEAST_SPREAD:
        return Finding(
            encoder, True, f"The {encoder} has collapsed: {numbers}; it says nearly the same of every segment."
        )
    if rank < LEAST_RANK:
        return Finding(encoder, True, f"The {encoder} has collapsed: {numbers}; all it says lies in a few directions.")
    return Finding(encoder, False, f"The {encoder} has not collapsed: {numbers}.")
