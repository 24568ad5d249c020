"""ECG-JEPA (docs/references.md): the encoder `ecg_jepa` and the objective `feature_prediction`, published and ours."""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxbio.config.families.family import Family, Model, Training
from jaxbio.config.families.st_mem import OUTPUT, PLAIN, lead_faults, single_faults
from jaxbio.config.faults import Fault
from jaxbio.config.features import FEATURES
from jaxbio.config.field import Field, science
from jaxbio.config.roles import LEADS

_MODEL: dict[str, Field] = {
    "model.width": science(384, "width of a token", low=4),
    "model.layers": science(12, "blocks of the encoder", low=1),
    "model.heads": science(6, "attention heads of the encoder", low=1),
    "model.feedforward": science(1536, "hidden width of the encoder's feed-forward layer", low=1),
    "model.patch": science(50, "samples of a patch (0.2 s)", low=1),
    "model.drop_path": science(
        0.1, "share of rows that skip a branch of the last block, 0 in the first; predictor too", low=0.0, high=0.99
    ),
    **OUTPUT,
}
_OBJECTIVE: dict[str, Field] = {
    "objective.predictor_width": science(192, "width of the predictor", low=4),
    "objective.predictor_layers": science(4, "blocks of the predictor", low=1),
    "objective.predictor_heads": science(6, "attention heads of the predictor", low=1),
    "objective.distance": science(
        "smooth_l1", "smooth_l1: the published code and weights; l1: the paper's word", choices=("smooth_l1", "l1")
    ),
    "objective.mask": science(
        "random",
        "times that are hidden, of all leads; random: single ones; blocks: a union",
        choices=("random", "blocks"),
    ),
    "objective.mask_share": science((0.6, 0.7), "share of the times that is hidden, or that one block hides"),
    "objective.mask_blocks": science(4, "blocks of a mask of blocks; they may overlap", low=1),
    "objective.mask_last": science(True, "a block may reach the last time; the published code never hides it"),
    "objective.mask_by": science(
        "row", "row: each has a mask of its own, at no cost; batch: one for all, as published", choices=("row", "batch")
    ),
    "objective.most_visible": science(
        20,
        "times that a student has room for, filled up where it sees fewer: at least as many as a mask may leave. 20 of "
        "50 for random masks of (0.6, 0.7), 42 for blocks of (0.175, 0.225), which may all lie on each other",
        low=1,
    ),
    "objective.ema_start": science(0.996, "teacher momentum at step 0, a line to ema_end", low=0.0, high=1.0),
    "objective.ema_end": science(1.0, "teacher momentum at the last step", low=0.0, high=1.0),
    "objective.teacher_drop_path": science(False, "skipped branches in the teacher too, as published"),
}

_METRICS: dict[str, str] = {
    "loss": "smooth L1 (or L1) between predicted and the teacher's features of hidden times, which have deviation 1: "
    "zeros have about 0.42, 0 is perfect. It falls by collapse as well.",
    "loss_constant": "what the mean of other segments' targets at the same lead and time would give: what the place in "
    "time alone tells.",
    "loss_floor": "the least the loss can be.",
    "hidden_times": "times that are hidden from the student, of all that a segment has; the mean over segments.",
    "teacher_spread": "the deviation of the targets over segments; 1 tells segments apart as well as can be, 0 not at "
    "all: then the place in time is all that is predicted.",
    "ema_momentum": "the share of the teacher that a step keeps.",
}

# Ten seconds of eight leads at 250 Hz, in mV: the other four follow from I and II (docs/references.md).
# 180,000 records for 100 epochs.
RECIPE: dict[str, Any] = {
    **PLAIN,
    "data.rate_hz": 250.0,
    "data.segment_s": 10.0,
    "data.channels": ("i", "ii", *LEADS[6:]),
    "data.scaling": "physical",
    "pairs.rule": "all_segments",
    "train.batch": 128,
    "train.steps": 140_000,
    "optimizer.learning_rate": 2.5e-5,
    "optimizer.learning_rate_end": 1e-6,
    "optimizer.warmup_frac": 0.05,
    "optimizer.weight_decay": 0.05,
    "optimizer.weight_decay_end": 0.05,
}
PRESETS: dict[str, dict[str, Any]] = {
    "twelve": {"data.channels": LEADS},
    # Hand-made features as further channels (hybrid input: docs/references.md).
    "hybrid": {"data.features": tuple(FEATURES)},
    # Masks of blocks, with the published learning rate and batch.
    "blocks": {
        "objective.mask": "blocks",
        "objective.mask_share": (0.175, 0.225),
        "objective.most_visible": 42,
        "train.batch": 64,
        "train.steps": 280_000,
        "optimizer.learning_rate": 5e-5,
    },
    # Of its masks of blocks the published code hides the last time never.
    "author": {
        "objective.mask_by": "batch",
        "objective.mask_last": False,
        "objective.teacher_drop_path": True,
        "optimizer.clip_norm": None,
    },
}


def _model_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    yield from lead_faults(values)
    width, heads = values["model.width"], values["model.heads"]
    if width % heads:
        yield Fault("model.heads", heads, f"make it a divisor of model.width = {width}")
    if width % 4:
        yield Fault("model.width", width, "a multiple of 4: sines and cosines of time and of lead")


def _objective_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    yield from single_faults(values)
    if values["model.name"] != "ecg_jepa":
        yield Fault("objective.name", values["objective.name"], "it hides times of all leads: model.name = ecg_jepa")
        return
    width, heads = values["objective.predictor_width"], values["objective.predictor_heads"]
    if width % heads:
        yield Fault("objective.predictor_heads", heads, f"make it a divisor of objective.predictor_width = {width}")
    if width % 4:
        yield Fault("objective.predictor_width", width, "a multiple of 4, as model.width")
    share = values["objective.mask_share"]
    if len(share) != 2 or not 0 < share[0] <= share[1] < 1:
        yield Fault("objective.mask_share", share, "two shares between 0 and 1, the smaller first")
    else:
        yield from _mask_faults(values)


def _mask_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    seen = values["data.segment_s"] if values["data.crop_s"] is None else values["data.crop_s"]
    times = round(values["data.rate_hz"] * seen) // values["model.patch"]
    share, blocks = values["objective.mask_share"], values["objective.mask_blocks"]
    least, most = (int(times * bound + 1e-9) for bound in share)
    if least < 1:
        yield Fault("objective.mask_share", share, f"at least 1/{times}: of {times} times one is hidden")
    if values["objective.mask"] == "blocks" and blocks * most >= times:
        remedy = f"{blocks} blocks of up to {most} of {times} times may hide all: a larger share "
        yield Fault("objective.mask_share", share, f"{remedy}below 1/{blocks}, or fewer objective.mask_blocks")
    if values["objective.most_visible"] < times - least:
        remedy = f"at least {times - least}: of {times} times a mask of objective.mask_share = {share} leaves as many"
        yield Fault("objective.most_visible", values["objective.most_visible"], remedy)


FAMILY = Family(
    models={
        "ecg_jepa": Model("jaxbio.models.ecg_jepa:ECGJEPA", _MODEL, _model_faults, counted_as={"model.remat": "none"}),
    },
    objectives={
        "feature_prediction": Training(
            "jaxbio.objectives.feature_prediction:feature_prediction",
            _OBJECTIVE,
            _objective_faults,
            momenta=("ema_start", "ema_end"),
            metrics=_METRICS,
        )
    },
    references=("jaxbio.export.torch_names_ecg:ECG_JEPA",),
)
