"""Supervised learning on labels of a store: the objective `supervised` for any encoder, and the encoder with its head.

It is no publication's: fine-tuning an export, adapters (LoRA, Hu et al. 2021), a head alone, or a network from scratch.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxbio.config.families.family import Family, KnownLabel, Training
from jaxbio.config.faults import Fault
from jaxbio.config.field import Field, science

_FIELDS: dict[str, Field] = {
    "model.adapters": science(
        "none",
        "none, or lora:RANK: matrices of that rank beside every dense kernel of the encoder, which itself stays; an "
        "export holds their sum",
    ),
    "augment.drop_channel": science(
        0.0,
        "probability that a segment loses some of its channels, never all, in training, so that whoever lacks one is "
        "served too",
        low=0.0,
        high=1.0,
    ),
    "objective.answer": science(
        "classes",
        "classes: a probability for each; numbers: one, in its unit; waveforms: the course of data.target, in its unit",
        choices=("classes", "numbers", "waveforms"),
    ),
    "objective.classes": science(
        (), "the classes of the label, in the order of their codes, as tools/add_labels.py has them"
    ),
    "objective.class_weights": science((), "a factor of the loss for each class, such as 0.7, 1.9; (): all alike"),
    "objective.focal": science(0.0, "power by which easy segments count less (Lin et al.: 2); 0: none", low=0.0),
    "objective.label_smoothing": science(
        0.0, "share of the target that is spread over all classes", low=0.0, high=0.99
    ),
    "objective.offset": science(0.0, "a usual value of the number, in its unit: what an answer of 0 stands for"),
    "objective.scale": science(1.0, "a usual spread of the number, in its unit: what an answer of 1 adds", low=1e-9),
    "objective.huber": science(1.0, "error, in units of objective.scale, from which the loss is a line", low=1e-6),
    "objective.trained": science(
        "auto",
        "of the encoder's own weights: all; last:N, of its last N blocks and what follows; head, none; auto: none "
        "beside adapters, else all",
    ),
    "objective.layer_decay": science(
        1.0, "factor of the learning rate from a block to the one before it (Clark et al.: 0.8)", low=0.01, high=1.0
    ),
    "objective.head_hidden": science(0, "hidden width of the head; 0: one dense layer behind a norm", low=0),
    "objective.window_s": science(
        None,
        "length of the windows that a longer segment is cut into, s: each is encoded alone, attention weighs them; "
        "None: the encoder sees the segment",
        float,
        optional=True,
        low=1.0,
    ),
}
_OF_CHANNELS = {"ppg": "the PPG alone", "ecg": "the ECG alone", "abp": "the arterial pressure alone"}
_AUROC = (
    "the chance that of two held-out segments the one of the class is given the higher probability; 0.5 is guessing, 1 "
    "all right; of more than two classes the mean over each against the others"
)
_MAE = "mean absolute error on held-out segments, in the unit of the label; less is better"
_METRICS: dict[str, str] = {
    "loss": "how far answers are from labels: cross-entropy of classes, nats, where ln(classes) is guessing; Huber's "
    "loss of numbers in units of objective.scale. Less is better.",
    "loss_constant": "what the best answer that is the same for every held-out segment would give: the classes' "
    "shares, or the median.",
    "loss_floor": "the least the loss can be.",
    "auroc": f"{_AUROC}.",
    "balanced_accuracy": "share of right answers on held-out segments, averaged over the classes; guessing has 1 / "
    "classes.",
    "mae": f"{_MAE}.",
    "mae_flat": "mean absolute error of a flat line at each held-out segment's own median, which knows no course.",
    "mae_constant": "the same of the held-out labels' median, which sees no segment.",
    **{f"auroc_{kind}_only": f"from {words}: {_AUROC}." for kind, words in _OF_CHANNELS.items()},
    **{f"mae_{kind}_only": f"from {words}: {_MAE}." for kind, words in _OF_CHANNELS.items()},
}

# Labels are few: short runs of small batches, a head that learns faster than what is pretrained, evaluations over the
# whole validation split, and the checkpoint that did best there is kept.
RECIPE: dict[str, Any] = {
    "pairs.rule": "all_segments",
    "prepare.split": (0.5, 0.25, 0.25),
    "data.streams": 4,
    "train.batch": 16,
    "train.steps": 100,
    "optimizer.learning_rate": 1e-4,
    "optimizer.learning_rate_end": 0.0,
    "optimizer.warmup_frac": 0.1,
    "optimizer.weight_decay": 0.05,
    "optimizer.weight_decay_end": 0.05,
    "optimizer.groups": ((r"^(head|pool|adapters)/", {"learning_rate": 1e-3}),),
    "augment.drop_channel": 0.3,
    "eval.every_steps": 20,
    "eval.batches": 64,
    "checkpoint.every_steps": 20,
    "checkpoint.best_metric": "eval/loss",
    "log.every_steps": 5,
}
_ACTIVITIES = ("sitting", "stairs", "table soccer", "cycling", "driving", "lunch", "walking", "working")


def _number(label: str, usual: float, spread: float) -> dict[str, Any]:
    return {
        "data.labels": (label,),
        "objective.answer": "numbers",
        "objective.offset": usual,
        "objective.scale": spread,
    }


PRESETS: dict[str, dict[str, Any]] = {
    # what is trained
    "head": {"objective.trained": "head"},
    "lora": {"model.adapters": "lora:8"},
    "layerwise": {"objective.layer_decay": 0.8},
    # by the column of the label
    "vt_alarm": {"data.labels": ("vt_alarm",), "objective.classes": ("false", "true")},
    "superclass": {"data.labels": ("superclass",), "objective.classes": ("CD", "HYP", "MI", "NORM", "STTC")},
    "heart_rate": _number("heart_rate_bpm", 80.0, 20.0),
    # by the task whose labels tools/make_labels.py --task made
    "af": {"data.labels": ("af",), "objective.classes": ("no AF", "AF")},
    "rhythm": {"data.labels": ("rhythm",), "objective.classes": ("sinus", "PVC", "PAC", "VT", "SVT", "AF")},
    "signal_quality": {"data.labels": ("signal_quality",), "objective.classes": ("readable", "too noisy")},
    "affect": {"data.labels": ("affect",), "objective.classes": ("baseline", "stress", "amusement", "meditation")},
    "activity": {"data.labels": ("activity",), "objective.classes": _ACTIVITIES},
    "monitor_rate": _number("heart_rate", 80.0, 20.0),
    "respiratory_rate": _number("respiratory_rate", 17.0, 4.0),
    "spo2": _number("spo2", 97.0, 3.0),
    "systolic": _number("blood_pressure_systolic", 120.0, 20.0),
    "diastolic": _number("blood_pressure_diastolic", 65.0, 12.0),
    # the arterial pressure from the channels of the encoder
    "abp_waveform": {
        "data.channels": ("ppg", "ecg", "abp"),
        "data.target": "abp",
        "objective.answer": "waveforms",
        "objective.offset": 90.0,
        "objective.scale": 30.0,
    },
    # five minutes before an alarm, in windows of what the encoder was pretrained on
    "five_minutes": {"data.segment_s": 300.0, "objective.window_s": 30.0},
}
# Synthetic recordings know what was planted in them.
SMOKE: dict[str, Any] = {
    "data.labels": ("true_heart_rate",),
    "objective.answer": "numbers",
    "objective.offset": 80.0,
    "objective.scale": 20.0,
    "data.streams": 4,
}


def _faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    if values["pairs.rule"] != "all_segments":
        yield Fault("pairs.rule", values["pairs.rule"], "all_segments: labels are of single segments")
    if values["objective.answer"] == "waveforms":
        yield from _waveform_faults(values)
    elif len(values["data.labels"]) != 1:
        remedy = "one label: a column that tools/add_labels.py added to the store, such as ('vt_alarm',)"
        yield Fault("data.labels", values["data.labels"], remedy)
    if not re.fullmatch(r"none|lora:[1-9]\d{0,3}", values["model.adapters"]):
        yield Fault("model.adapters", values["model.adapters"], "none, or lora:RANK, such as lora:8")
    if not re.fullmatch(r"auto|all|head|last:[1-9]\d{0,3}", values["objective.trained"]):
        yield Fault("objective.trained", values["objective.trained"], "auto, all, head, or last:N, such as last:2")
    elif values["objective.trained"] == "all" and values["model.adapters"] != "none":
        yield Fault("objective.trained", "all", "auto, last:N or head: adapters are beside weights that stay")
    yield from _start_faults(values)
    yield from _class_faults(values)
    yield from _window_faults(values)


def _waveform_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    if values["data.target"] is None:
        yield Fault("data.target", None, "the channel whose course is learnt, the last of data.channels, such as abp")
    if values["data.labels"]:
        yield Fault("data.labels", values["data.labels"], "(): what is learnt is a channel")
    for name in ("data.crop_s", "objective.window_s"):
        if values[name] is not None:
            yield Fault(name, values[name], "None: a waveform is as long as its segment")


def _start_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    stays = values["model.adapters"] != "none" or values["objective.trained"] not in ("auto", "all")
    if stays and values["train.init_from"] is None:
        remedy = "part of the encoder stays as it is: name the export that it is of, or train all of it from scratch "
        yield Fault("train.init_from", None, remedy + "with model.adapters=none and objective.trained=all")


def _class_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    classes, weights = values["objective.classes"], values["objective.class_weights"]
    if values["objective.answer"] != "classes":
        for name in ("classes", "class_weights"):
            if values[f"objective.{name}"]:
                yield Fault(f"objective.{name}", values[f"objective.{name}"], "(): the answer is no class")
        return
    named = all(isinstance(name, str) and name for name in classes)
    if len(classes) < 2 or not named or len(set(classes)) < len(classes):
        yield Fault("objective.classes", classes, "two classes or more, each named once, as ('false', 'true')")
    if weights and (len(weights) != len(classes) or not all(type(w) in (int, float) and w > 0 for w in weights)):
        yield Fault("objective.class_weights", weights, f"a number above 0 for each of {len(classes)} classes, or ()")


def _window_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    window_s, segment_s, rate_hz = values["objective.window_s"], values["data.segment_s"], values["data.rate_hz"]
    if window_s is None:
        return
    if values["data.crop_s"] is not None:
        yield Fault("objective.window_s", window_s, "None, or data.crop_s=None: windows are cut from the whole segment")
    if window_s > segment_s:
        yield Fault("objective.window_s", window_s, f"at most data.segment_s = {segment_s:g}")
    if abs(window_s * rate_hz - round(window_s * rate_hz)) > 1e-6:
        yield Fault("objective.window_s", window_s, f"whole samples at data.rate_hz = {rate_hz:g}")


def _label_faults(values: Mapping[str, Any], labels: Sequence[KnownLabel]) -> Iterator[Fault]:
    for label in labels:
        splits = {"train": label.train_N, "validation": label.validation_N}
        empty = [split for split, value_N in splits.items() if not len(value_N)]
        if empty:
            remedy = "label more recordings with tools/add_labels.py, or prepare with other shares (prepare.split)"
            yield Fault("data.labels", f"{label.name}: no segment of {' and '.join(empty)} has it", remedy)
        elif values["objective.answer"] == "classes":
            yield from _classes_that_differ(values["objective.classes"], label, splits)
        elif label.classes:
            remedy = "a label of numbers; of classes set objective.answer=classes and objective.classes"
            yield Fault("data.labels", f"{label.name}: {', '.join(label.classes)}", remedy)


def _classes_that_differ(classes: Sequence[str], label: KnownLabel, splits: Mapping[str, Any]) -> Iterator[Fault]:
    if label.classes and tuple(label.classes) != tuple(classes):
        yield Fault("objective.classes", classes, f"those of the label {label.name}: {tuple(label.classes)!r}")
        return
    wrong = [value for value in np.unique(label.train_N) if value not in range(len(classes))]
    if wrong and not label.classes:
        remedy = f"{label.name} has numbers that are no codes of {len(classes)} classes, such as {wrong[0]:g}: names "
        yield Fault("data.labels", label.name, remedy + "of classes in the table, or objective.answer=numbers")
        return
    for split, value_N in splits.items():
        present = np.unique(value_N).astype(int)
        if len(present) == 1:
            remedy = "at least two classes to tell apart: label more recordings, or other shares of prepare.split"
            yield Fault("data.labels", f"{label.name}: all of {split} is {classes[present[0]]}", remedy)


FAMILY = Family(
    objectives={
        "supervised": Training(
            "jaxbio.objectives.supervised:supervised",
            _FIELDS,
            _faults,
            metrics=_METRICS,
            labelled=True,
            label_faults=_label_faults,
            adopts=True,
        )
    },
    encoders={"answering_encoder": "jaxbio.models.answering:Answering"},
)
