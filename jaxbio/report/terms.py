"""What the words and numbers on pages mean, in words, for the place where a page shows them.

Of the keys of `metrics.jsonl`, what an objective measures its family describes (`Training.metrics`); here stands what
every run has, and what every store and recording has: outcomes, scores, classes.

    describe("perf/mfu", "quality_distillation")
    spell("macro_auroc")
    tell_outcome("remainder")
"""

import re
from collections.abc import Mapping

from jaxbio.config.families import OBJECTIVES
from jaxbio.data.recordings.recording import REASONS as REFUSALS

# What became of a stretch of a recording, for every key that an account may have.
OUTCOMES: Mapping[str, str] = {
    "kept": "in the store as segments",
    "missing": "a channel lacks more samples of the window than prepare.max_missing_frac allows, or all are padded",
    "constant": "a channel holds one value throughout the window",
    "infinite": "a channel holds an infinite value in the window",
    "remainder": "less than a segment at the end of a recording",
    "unread": "the window could not be read",
    **REFUSALS,
}
VARIANTS: Mapping[str, str] = {"waveform": "waveform (blind to rhythm)", "author": "author's"}
SCORES: Mapping[str, str] = {
    "waveform": "about the share of a segment in which single beats can be read, whatever the rhythm.",
    "author": "the published score, which asks for regular beats of 40 to 120 a minute and so calls arrhythmia bad.",
}
SCORE = f"Scores lie between 0 and 1. Waveform: {SCORES['waveform']} Author's: {SCORES['author']}"
ARTEFACT = (
    "An artefact is a stretch in which no beat has the shape of its neighbours, or the signal is clipped or missing."
)

# By key, or by a name that may stand behind any area.
_MEANINGS: Mapping[str, str] = {
    "loss": "what training makes smaller: the sum of the objective's terms by their weights.",
    "nonfinite": "updates so far that were refused because a number in them was not finite; 0 is right.",
    "learning_rate": "the factor of every update.",
    "weight_decay": "how strongly an update pulls weights towards 0.",
    "ema_momentum": "the share of the old teacher that each step keeps; the rest comes from the student.",
    "grad_norm": "length of the gradient over all parameters, before it is clipped.",
    "param_norm": "length of all parameters together.",
    "update_norm": "length of what the optimiser added to the parameters.",
    "batch_spread": "standard deviation of a feature over held-out segments, averaged over the features; 0 where all "
    "segments get the same vector.",
    "effective_rank": "in how many directions the features of held-out segments vary (exp of the entropy of their "
    "singular values): 1 is a line, 0 a point, more is better.",
    "explained": "share of the way from what the best prediction that is the same for every segment gives, 0, to the "
    "least that the term can be, 1.",
    "explainable": "length of that way, in the term's unit: how much there is to tell segments apart by.",
    "perf/pairs_per_s": "pairs of segments trained on in a second, over all devices.",
    "perf/goodput": "share of the time since the run first began that went into steps which lasted: not into "
    "compiling, waiting, evaluating, saving, being down, or steps done again; more is better.",
    "perf/mfu": "share of what the devices can compute at most that the model's own arithmetic uses (MFU): model FLOPs "
    "of a step / (perf/step_s x devices x peak FLOP/s of one).",
    "perf/step_s": "seconds from one step to the next, without evaluations and saving.",
    "data/wait_s": "seconds of a step in which it waited for its batch.",
    "data/rows_crc32": "check sum of the row numbers of this step: equal in runs that read the same.",
    "memory/host_resident_bytes": "memory that process 0 holds.",
    "memory/host_peak_bytes": "the most memory that process 0 has held.",
    "memory/params_bytes": "the parameters, at one device.",
    "memory/opt_state_bytes": "what the optimiser keeps (moments), at one device.",
    "memory/objective_state_bytes": "what the objective keeps (a teacher, a centre, codes), at one device.",
    "memory/resident_bytes": "segments and indices that lie at one device (data.cache=device).",
    "memory/temporaries_bytes": "what the compiled step holds of one device beside state and batch: activations, "
    "gradients.",
    "memory/device_peak_bytes": "the most memory that has been in use on a device of process 0.",
    "time/compile_s": "seconds so far in compiling the step, over all starts of the run.",
    "time/step_s": "seconds so far in training steps.",
    "time/wait_s": "seconds so far in waiting for batches.",
    "time/eval_s": "seconds so far in evaluations on held-out segments.",
    "time/checkpoint_s": "seconds so far in which training stood still to save.",
    "time/log_s": "seconds so far in writing numbers down.",
    "time/starts": "how often the run was started: once, and once for each resume.",
}
METRICS: Mapping[str, str] = {
    "mae": "mean absolute error, in the unit of the label; less is better",
    "balanced_accuracy": "share of right answers, averaged over the classes; more is better, guessing has 1 / classes",
    "macro_f1": "harmonic mean of precision and recall, averaged over the classes; more is better, at most 1",
    "shape_mae": "mean absolute error once true and predicted course have lost their own means; less is better",
    "shape_r": "correlation of true and predicted course within a segment, averaged over segments; at most 1",
    "r2": "share of the labels' variance that is explained; more is better, 0 is what their mean has, 1 all",
    "me": "mean error, predicted minus true: the bias; 0 is best",
    "sd": "standard deviation of the errors; less is better",
    "r": "Pearson's correlation of predicted and true; more is better, at most 1",
    "mase": "mean absolute error over that of the training labels about their mean; 1 is no better than the mean",
    "auroc": "chance that a positive is ranked above a negative; 0.5 is guessing, 1 all",
    "macro_auroc": "chance that a class's segment is ranked above another's, averaged over classes; 0.5 is guessing",
    "auprc": "average precision over all thresholds; guessing has the share of positives",
    "accuracy": "share of right answers; more is better",
    "sensitivity": "share of the positives that are found: by a detector's own threshold, else with the classes "
    "weighed alike",
    "specificity": "share of the negatives that are left alone, decided in the same way",
    "sensitivity_at_specificity_90": "sensitivity of the threshold that leaves 90 % of the negatives alone",
    "specificity_at_sensitivity_95": "specificity of the threshold that finds 95 % of the positives",
    "f1": "harmonic mean of precision and sensitivity; at most 1",
    "challenge_score": "(TP + TN) / (TP + TN + FP + 5 FN), that of CinC 2015: a missed alarm weighs five times",
    "brier": "mean squared distance of probabilities from what is true; less is better",
    "calibration_error": "mean distance of stated probabilities from shares that come true, in ten bins; 0 is best",
}
_ABBREVIATIONS = frozenset(("auroc", "auprc", "f1", "mae", "mase", "me", "sd"))
_PROBE = re.compile(rf"eval/probe_(.+)_({'|'.join(METRICS)})_(.+)")
NOT_DESCRIBED = "a metric of this objective that its family does not describe."


def spell(metric: str) -> str:
    """Return a key of METRICS, or one with a target before it, as people write it: shape MAE."""
    return " ".join(word.upper() if word in _ABBREVIATIONS else word for word in metric.split("_"))


def tell_outcome(reason: str) -> str:
    """Return what an outcome of an account means; also of one that only another version knows."""
    return OUTCOMES.get(reason, "a reason of another version of jaxbio")


def describe(key: str, objective: str) -> str:
    """Return what the values under `key` are, a sentence that begins in small letters; `objective` is its name."""
    area, _, name = key.partition("/")
    name = re.sub(r"_group_\d+$", "", name)
    if probe := read_probe(key):
        task, metric, answerer = probe
        whose = "by the constant that sees no segment" if answerer == "constant" else f"from the {answerer}'s features"
        return f"{task.replace('_', ' ')} told {whose}: {METRICS[metric]}."
    known = {**_MEANINGS, **OBJECTIVES[objective].metrics}
    for candidate in (key, name, *_ends(name)):
        if candidate in known:
            return known[candidate]
    if area == "time":
        return "seconds so far in this part of the run."
    return NOT_DESCRIBED


def read_probe(key: str) -> tuple[str, str, str] | None:
    """Return (task, metric, who answers) of a key of a linear probe; None for another key."""
    found = _PROBE.fullmatch(key)
    return (found[1], found[2], found[3]) if found else None


def _ends(name: str) -> list[str]:
    """Return what is left of a name without its first word, its first two, and so on: an encoder stands there."""
    words = name.split("_")
    return ["_".join(words[first:]) for first in range(1, len(words))]
