"""Does a run learn by its main loss, and has an encoder or a codebook collapsed? In words, from a run's evaluations.

A loss that falls answers neither: that of a teacher and a student falls as well when both say the same of every
segment. So these questions are put to what each evaluation measures on held-out segments, `training/held_out.py`: the
share of the way that a term has come from the best constant prediction to its floor, `eval/<term>_explained`, and
spread and effective rank of each encoder's features, and the perplexity of codes, beside those of the run's first
evaluation. Codes that nothing chooses may start anew: until they had the time to, few codes are no collapse.

    for finding in judge_run(series):      # series = read_series(workdir)
        print(finding.words)
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from jaxbio.report.series import Series

# A student dips at first, to a fifth of its spread, and comes back; one that has collapsed keeps 8 % at the most.
# docs/recipe.md has the runs from which these limits come.
LEAST_SPREAD = 0.12  # of the start's
LEAST_RANK = 0.15  # of the start's
LEAST_CODES, FEWEST_CODES = 0.2, 2.0  # perplexity: of the start's, and of any codebook; docs/benchmarks.md has the runs
LEARNS, LEARNS_LITTLE = 0.1, 0.02  # share explained
LEAST_WAY = 0.05  # nats, or of a cosine, between constant and floor: with less there is nothing to learn
LEAST_TARGETS = 0.05  # deviation over segments of targets that are standardised; smooth L1 is half its square
SPREAD, RANK = "_batch_spread", "_effective_rank"
PERPLEXITY, REVIVAL = "code_perplexity", "eval/steps_to_revival"
EXPLAINED, EXPLAINABLE, TARGETS = "_explained", "_explainable", "eval/teacher_spread"


@dataclass(frozen=True)
class Finding:
    """What was found: `subject`, an encoder, a term or the codebook; whether it is `bad`; and why, in sentences."""

    subject: str
    bad: bool
    words: str


def judge_run(series: Series) -> list[Finding]:
    """Return all that the evaluations so far say."""
    return [*judge_terms(series), *judge_encoders(series), *judge_codes(series)]


def judge_terms(series: Series) -> list[Finding]:
    """Return what the evaluations so far say of each term that can be judged; nothing before the first step."""
    terms = [key.removeprefix("eval/").removesuffix(EXPLAINED) for key in series if key.endswith(EXPLAINED)]
    return [_judge_term(series, term) for term in terms if series[f"eval/{term}{EXPLAINED}"][0][-1] > 0]


def judge_encoders(series: Series) -> list[Finding]:
    """Return what the evaluations so far say of each encoder; nothing before the second, which the first is beside."""
    encoders = [key.removeprefix("eval/").removesuffix(SPREAD) for key in series if key.endswith(SPREAD)]
    judged = [encoder for encoder in encoders if len(series.get(f"eval/{encoder}{RANK}", ((),))[0]) > 1]
    return [_judge_encoder(series, encoder) for encoder in judged]


def judge_codes(series: Series) -> list[Finding]:
    """Return what the evaluations so far say of a codebook; nothing before the second, which the first is beside."""
    keys = [key for key in series if key.startswith("eval/") and key.endswith(PERPLEXITY)]
    revival_steps = float(series[REVIVAL][1][-1]) if REVIVAL in series else 0.0
    return [_judge_codes(*series[key], revival_steps) for key in keys if len(series[key][0]) > 1]


def words_of(findings: Iterable[Finding]) -> str:
    """Return the words of the findings one after the other, "" where there are none."""
    return " ".join(finding.words for finding in findings)


def _judge_term(series: Series, term: str) -> Finding:
    step_N, share_N = series[f"eval/{term}{EXPLAINED}"]
    share = float(share_N[-1])
    if rest := _rest_of_targets(series, term):
        return Finding(
            term,
            True,
            f"There is nothing to learn. At step {step_N[-1]:,} the targets of {term} are the same for every held-out "
            f"segment but for {rest}: a constant foretells them.",
        )
    constant = "the best prediction that is the same for every segment"
    if share < 0:
        words = f"At step {step_N[-1]:,} {term} on held-out segments is worse than {constant} would make it."
        return Finding(term, True, f"The main loss does not learn. {words}")
    said = (
        f"At step {step_N[-1]:,} {term} on held-out segments has come {share:.0%} of the way from {constant} to the "
        "least there can be"
    )
    if share >= LEARNS:
        return Finding(term, False, f"The main loss learns. {said}.")
    if share >= LEARNS_LITTLE:
        return Finding(term, False, f"The main loss learns a little. {said}.")
    return Finding(term, True, f"The main loss does not learn. {said}: a constant would do as well.")


def _rest_of_targets(series: Series, term: str) -> str:
    """Return by how much the targets of a term differ between segments where that is next to nothing, else ""."""
    explainable = series.get(f"eval/{term}{EXPLAINABLE}")  # none where the targets come with the segments
    if explainable is None:
        return ""
    if TARGETS in series:
        spread = float(series[TARGETS][1][-1])
        return f"{spread:.2g} of their deviation" if spread < LEAST_TARGETS else ""
    way = float(explainable[1][-1])
    return f"{max(way, 0.0):.2g}" if way < LEAST_WAY else ""


def _judge_encoder(series: Series, encoder: str) -> Finding:
    step_N, spread_N = series[f"eval/{encoder}{SPREAD}"]
    _, rank_N = series[f"eval/{encoder}{RANK}"]
    spread, rank = (float(value_N[-1] / max(value_N[0], 1e-12)) for value_N in (spread_N, rank_N))
    numbers = (
        f"at step {step_N[-1]:,} the features of the {encoder} keep {spread:.0%} of the spread and {rank:.0%} of the "
        "effective rank that they had at the start"
    )
    if spread < LEAST_SPREAD:
        why = (
            "it says nearly the same of every segment" if spread else "it says the same of every segment, or no number"
        )
        return Finding(encoder, True, f"The {encoder} has collapsed: {numbers}; {why}.")
    if rank < LEAST_RANK:
        return Finding(encoder, True, f"The {encoder} has collapsed: {numbers}; all it says lies in a few directions.")
    return Finding(encoder, False, f"The {encoder} has not collapsed: {numbers}.")


def _judge_codes(step_N: np.ndarray, perplexity_N: np.ndarray, revival_steps: float) -> Finding:
    start, now = float(perplexity_N[0]), float(perplexity_N[-1])
    numbers = (
        f"at step {step_N[-1]:,} the codes of held-out segments are as various as {now:.3g} codes used alike, at the "
        f"start as {start:.3g}"
    )
    few_N = perplexity_N < max(LEAST_CODES * start, FEWEST_CODES)
    if not few_N[-1]:
        return Finding("codebook", False, f"The codebook has not collapsed: {numbers}.")
    since = step_N[~few_N].max(initial=step_N[0])
    if step_N[-1] - since < 2 * revival_steps:  # once until they start anew, once for what is made of that
        why = f"those that nothing chooses for {revival_steps:,.0f} steps start anew"
        return Finding("codebook", False, f"Few codes are in use so far: {numbers}; {why}.")
    return Finding("codebook", True, f"The codebook has collapsed: {numbers}; they tell little of a segment.")
