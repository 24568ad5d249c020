"""Every configuration field of jaxbio: default, kind, unit and reason, science or machine.

This table is the only place where a default stands. A recipe starts from `defaults()` and states what differs; code
reads fields and never supplies a value of its own. A *science* field decides what is learnt and may not change when
a run resumes; a *machine* field decides where and how fast, and may.

    config = defaults(model="qualityfm", objective="quality_distillation")
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

SCIENCE, MACHINE = "science", "machine"


@dataclass(frozen=True)
class Field:
    """One field: its default, the kind of its value, the reason it exists (with unit), and its tag.

    `kind` is one of int, float, str, bool, tuple (of anything); `optional` admits None; `choices` and the closed
    interval `low`..`high` bound the value.
    """

    default: Any
    kind: type
    reason: str
    tag: str = SCIENCE
    optional: bool = False
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


def _science(default, reason, kind=None, **bounds) -> Field:
    return Field(default, kind or type(default), reason, SCIENCE, **bounds)


def _machine(default, reason, kind=None, **bounds) -> Field:
    return Field(default, kind or type(default), reason, MACHINE, **bounds)


COMMON: dict[str, Field] = {
    # ---- data: what a segment is, where the store lies, how it reaches the device
    "data.store": _machine(
        None,
        "folder of the segment store, or synthetic:<segments> for a synthetic one made in the workdir",
        str,
        optional=True,
    ),
    "data.rate_hz": _science(300.0, "sampling rate of a segment, Hz (QualityFM: 300)", low=1.0, high=5000.0),
    "data.segment_s": _science(30.0, "length of a segment, s (all families use 30)", low=5.0, high=300.0),
    "data.channels": _science(("ppg", "ecg"), "channel roles in the order of the model's input channels"),
    "data.scaling": _science(
        "per_channel",
        "per_channel: each to [-1, 1], because units differ; joint: the author's, over both; unit: [0, 1]; physical",
        choices=("per_channel", "joint", "unit", "physical"),
    ),
    "data.streams": _science(256, "streams the pairs are cut into; bounds mixing and locality", low=1),
    "data.curriculum": _science(
        (), "(end of the stage as a share of the steps, largest difficulty drawn) for each stage; (): all pairs always"
    ),
    "data.cache": _machine(
        "none", "none: read through array_record; host: one int16 memory map a host", choices=("none", "host")
    ),
    "data.read_threads": _machine(2, "reading threads; more do not help two-core hosts", low=1, high=64),
    "data.prefetch": _machine(2, "batches read ahead; Grain's default of 500 would fill the memory", low=1, high=64),
    # ---- prepare: from recordings to the store
    "prepare.shard_bytes": _science(256 * 2**20, "aimed size of a shard, bytes; a shard is a neighbourhood", low=2**16),
    "prepare.block_h": _science(24.0, "longest block of one recording in a shard, h", low=0.1),
    "prepare.max_missing_frac": _science(
        0.2, "segments with more missing samples in a channel are rejected (QualityFM: 0.2)", low=0.0, high=1.0
    ),
    "prepare.split": _science((0.90, 0.05, 0.05), "shares of subjects in train, validation, test"),
    "prepare.channel_names.ppg": _science(
        ("PLETH", "PPG", "Pleth", "PLETHL", "PLETHR", "SNUADC/PLETH"), "source names read as PPG, best first"
    ),
    "prepare.channel_names.ecg": _science(
        (
            "II",
            "ECG II",
            "ECG_II",
            "MLII",
            "SNUADC/ECG_II",
            "ECG",
            "I",
            "III",
            "V",
            "MCL1",
            "MCL",
            "AVR",
            "AVL",
            "AVF",
            "V1",
            "V2",
            "V3",
            "V4",
            "V5",
            "V6",
        ),
        "source names read as ECG, best first: lead II, then other leads",
    ),
    "prepare.channel_names.abp": _science(("ABP", "ART"), "source names read as arterial blood pressure, best first"),
    # ---- quality and pairs: rules over the store's table
    "quality.variant": _science(
        "waveform",
        "waveform: template fit x band power x artefact-free share, blind to rhythm; author: the published score",
        choices=("waveform", "author"),
    ),
    "quality.author_rate_bpm": _science((40.0, 120.0), "heart rates the published ECG score accepts, 1/min"),
    "pairs.rule": _science(
        "quality_classes",
        "quality_classes: two segments of different class; good_bad: a clean one and one with artefacts; all_segments: "
        "single segments, no pairs",
        choices=("quality_classes", "good_bad", "all_segments"),
    ),
    "pairs.good_artefact_frac": _science(0.05, "artefact fraction up to which good_bad calls a segment good", low=0.0),
    "pairs.max_gap_s": _science(300.0, "largest gap between the members' starts, s (QualityFM: five minutes)", low=0.0),
    "pairs.max_per_segment": _science(
        4,
        "pairs a segment may be in, nearest first, against near-duplicates; None: all, as published",
        int,
        optional=True,
        low=1,
    ),
    "pairs.class_edges": _science((0.3, 0.5, 0.7, 0.9), "lower edges of Poor, Acceptable, Good, Excellent"),
    "pairs.class_edges_as": _science(
        "values",
        "values: scores; quantiles: of the store's scores, where a score calls most segments excellent",
        choices=("values", "quantiles"),
    ),
    # ---- train
    "train.steps": _science(42_000, "optimiser steps; one epoch of the published corpus", low=1),
    "train.batch": _science(512, "pairs a step over all devices (QualityFM: 512)", low=1),
    "train.microbatches": _machine(1, "parts a batch is accumulated in; equals the large batch", low=1),
    "train.seed": _science(0, "seed of initialisation, order, augmentation and dropout", low=0, high=2**31 - 1),
    "train.steps_per_dispatch": _machine(1, "steps in one call of the device; divides every every_steps", low=1),
    "train.max_nonfinite": _machine(0, "refused non-finite updates before the run stops", low=0),
    "train.init_from": _science(None, "export folder whose weights start the run", str, optional=True),
    "train.stall_s": _machine(600.0, "a step that takes longer gets the stacks of all threads dumped, s", low=1.0),
    "train.compile_cache": _machine(
        "~/.cache/jaxbio/compiled",
        "folder of compiled programs, so that a second start compiles nothing; several hosts share it; None: none",
        str,
        optional=True,
    ),
    # ---- optimizer
    "optimizer.name": _science(
        "adamw",
        "adamw: decoupled decay, stable in deep post-norm; adam_l2: the author's, decay in the gradient; sgd",
        choices=("adamw", "adam_l2", "sgd"),
    ),
    "optimizer.learning_rate": _science(2e-4, "peak learning rate (QualityFM: 1e-4 x batch / 256)", low=0.0),
    "optimizer.learning_rate_end": _science(1e-6, "learning rate at the last step, after a cosine", low=0.0),
    "optimizer.schedule": _science(
        "cosine",
        "after the warm-up: cosine to learning_rate_end; step: halved every step_every",
        choices=("cosine", "step"),
    ),
    "optimizer.step_every": _science(10_000, "steps between halvings of the learning rate under schedule step", low=1),
    "optimizer.warmup_frac": _science(0.02, "share of the steps of linear warm-up (QualityFM: 0)", low=0.0, high=0.9),
    "optimizer.b1": _science(0.9, "decay of Adam's first moment", low=0.0, high=1.0),
    "optimizer.b2": _science(0.999, "decay of Adam's second moment", low=0.0, high=1.0),
    "optimizer.eps": _science(
        1e-8, "Adam's epsilon; above 0, or a parameter without gradient would divide 0 by 0", low=1e-15
    ),
    "optimizer.momentum": _science(0.9, "momentum of sgd", low=0.0, high=1.0),
    "optimizer.nesterov": _science(True, "Nesterov's form of sgd's momentum"),
    "optimizer.weight_decay": _science(0.04, "weight decay at step 0, cosine to weight_decay_end", low=0.0),
    "optimizer.weight_decay_end": _science(0.4, "weight decay at the last step", low=0.0),
    "optimizer.decay_mask": _science(
        "matrices", "matrices: kernels only, biases and norms never; all: every parameter", choices=("matrices", "all")
    ),
    "optimizer.clip_norm": _science(
        1.0, "largest gradient norm, a group's own; None: none, as published", float, optional=True, low=0.0
    ),
    "optimizer.clip_value": _science(None, "largest gradient entry; None: no clipping", float, optional=True, low=0.0),
    "optimizer.groups": _science(
        (),
        "(regex, changes of this section) pairs, each a whole optimiser, first match wins; {'frozen': True} freezes",
    ),
    # ---- mesh and precision
    "mesh.data": _machine(-1, "devices along the batch; -1: the rest", low=-1),
    "mesh.fsdp": _machine(1, "devices that share each parameter and split the batch", low=-1),
    "mesh.tensor": _machine(1, "devices that split heads and feed-forward width", low=-1),
    "mesh.rules": _machine(
        ((".*", "replicate"),), '(regex over parameter path, "replicate" | "fsdp" | tuple of axes), first match wins'
    ),
    "mesh.moments": _machine(
        "zero",
        "zero: optimiser moments split over data; like_params: as their parameter",
        choices=("zero", "like_params"),
    ),
    "precision.compute": _machine(
        "float32",
        "type of products and activations; softmax, spectra, losses stay float32",
        choices=("float32", "bfloat16"),
    ),
    "precision.deterministic": _machine(True, "ask the compiler for run-to-run identical GPU kernels"),
    # ---- checkpoint, eval, log, profile
    "checkpoint.every_steps": _machine(1000, "steps between checkpoints", low=1),
    "checkpoint.every_s": _machine(
        600.0, "seconds between checkpoints; None: by step only", float, optional=True, low=1.0
    ),
    "checkpoint.keep": _machine(3, "newest checkpoints kept", low=1),
    "checkpoint.keep_every_steps": _machine(
        None, "checkpoints at multiples of this step stay for good", int, optional=True, low=1
    ),
    "checkpoint.best_metric": _machine(
        None,
        "key of metrics.jsonl whose smallest value is kept too; a self-distillation loss says nothing",
        str,
        optional=True,
    ),
    "eval.every_steps": _machine(1000, "steps between evaluations on the validation split", low=1),
    "eval.batches": _machine(8, "whole batches an evaluation reads, always the same", low=1),
    "eval.tasks": _machine(
        (), "linear probes on the store's own labels: heart_rate, pulse_rate, quality_score, quality_class"
    ),
    "log.every_steps": _machine(10, "steps between lines of metrics.jsonl", low=1),
    "log.tensorboard": _machine(False, "also write tensorboard/ into the workdir"),
    "log.report_every_s": _machine(60.0, "seconds between new versions of report.html", low=1.0),
    "profile.at": _machine(None, "step at which a profile of a few steps is taken", int, optional=True, low=0),
    # ---- augment: what the device does to both members of a pair (QualityFM fact sheet, section 2.5)
    "augment.noise_prob": _science(0.5, "probability of Gaussian noise", low=0.0, high=1.0),
    "augment.noise_sigma": _science(0.01, "its deviation, in units of the scaled signal", low=0.0),
    "augment.noise_bits": _science(
        "counter_hash",
        "generator of the noise; counter_hash fuses, a twentieth of the CPU step; threefry: JAX's vetted generator",
        choices=("counter_hash", "threefry"),
    ),
    "augment.scale_prob": _science(0.5, "probability of one factor for all channels", low=0.0, high=1.0),
    "augment.scale_range": _science((0.9, 1.1), "its range"),
    "augment.offset_prob": _science(0.3, "probability of an offset for each channel", low=0.0, high=1.0),
    "augment.offset_max": _science(0.1, "its largest size, in units of the scaled signal", low=0.0),
    "augment.block_prob": _science(0.3, "probability that one block is zeroed in all channels", low=0.0, high=1.0),
    "augment.block_frac": _science((0.05, 0.1), "range of the block's length as a share of the segment"),
}

MODELS: dict[str, dict[str, Field]] = {
    "qualityfm": {
        "model.width": _science(512, "width of a token", low=100),
        "model.layers": _science(2, "blocks of the encoder, and of the decoder", low=1),
        "model.heads": _science(4, "attention heads", low=1),
        "model.feedforward": _science(256, "hidden width of the feed-forward layer", low=1),
        "model.window": _science(8, "local attention window, tokens, even; token 0 is global", low=0),
        "model.dropout": _science(0.1, "dropout everywhere, attention weights included", low=0.0, high=0.99),
        "model.dropout_bits": _science(
            "counter_hash",
            "counter_hash: hashed counter that fuses, a sixth faster on CPU; threefry: JAX's vetted generator",
            choices=("counter_hash", "threefry"),
        ),
        "model.tokenizer": _machine(
            "auto",
            "convolution; frames: the same as framed matrix products; auto: the faster for the platform",
            choices=("auto", "convolution", "frames"),
        ),
        "model.remat": _machine(
            "none",
            "what a block keeps for its gradient: none recomputes nothing, full all, dots keeps products",
            choices=("none", "full", "dots"),
        ),
        "model.unroll": _machine(
            1,
            "blocks unrolled in the scan over layers; some of many make XLA copy the stacked parameters, so all or one",
            low=1,
        ),
    },
    "resnet1d": {
        "model.depth": _science(50, "18, 34 (basic blocks), 50, 101 or 152 (bottleneck blocks)", low=18, high=152),
        "model.blocks": _science((), "blocks in each of the four stages; (): the depth's own"),
    },
}

_PROJECTOR = {
    "objective.projector_width": _science(256, "width of z, the output that is compared", low=1),
    "objective.projector_layers": _science(3, "3: two hidden layers and a norm; 1: one linear layer", low=1, high=3),
}
_PREDICTOR = {
    "objective.predictor_hidden": _science(512, "hidden width of the predictor; the published one widens", low=1),
}

OBJECTIVES: dict[str, dict[str, Field]] = {
    "quality_distillation": {
        "objective.teacher_temperature": _science(0.04, "softmax temperature of the teacher", low=1e-4),
        "objective.student_temperature": _science(0.1, "softmax temperature of the student", low=1e-4),
        "objective.centre_momentum": _science(0.9, "momentum of the teacher's centre", low=0.0, high=1.0),
        "objective.amplitude_weight": _science(0.1, "weight of the amplitude spectrum's loss", low=0.0),
        "objective.phase_weight": _science(0.1, "weight of the phase spectrum's loss", low=0.0),
        "objective.spectrum": _science(
            "magnitude", "magnitude: the author's code; power: the paper's word", choices=("magnitude", "power")
        ),
        "objective.ema_start": _science(
            0.996,
            "teacher momentum at step 0, cosine to ema_end; the author's 0.7 collapses short runs",
            low=0.0,
            high=1.0,
        ),
        "objective.ema_end": _science(1.0, "teacher momentum at the last step", low=0.0, high=1.0),
        "objective.teacher_dropout": _science(False, "dropout in the teacher too, as published"),
    },
    "quality_siamese": {**_PROJECTOR, **_PREDICTOR},
    "contrastive": {**_PROJECTOR, "objective.temperature": _science(0.5, "temperature of NT-Xent", low=1e-4)},
    "byol": {
        **_PROJECTOR,
        **_PREDICTOR,
        "objective.ema_start": _science(0.996, "target momentum at step 0, cosine to ema_end", low=0.0, high=1.0),
        "objective.ema_end": _science(1.0, "target momentum at the last step", low=0.0, high=1.0),
    },
}

# The encoder family that each objective trains.
FAMILY = {
    "quality_distillation": "qualityfm",
    "quality_siamese": "resnet1d",
    "contrastive": "resnet1d",
    "byol": "resnet1d",
}


def table(model: str, objective: str) -> dict[str, Field]:
    """Return the fields of a run of `model` and `objective`, by dotted name.

    Raises KeyError for a model or objective without fields here.
    """
    return {
        **COMMON,
        "model.name": Field(model, str, "the registered encoder family", choices=tuple(MODELS)),
        **MODELS[model],
        "objective.name": Field(objective, str, "the registered objective", choices=tuple(OBJECTIVES)),
        **OBJECTIVES[objective],
    }


def defaults(model: str = "qualityfm", objective: str = "quality_distillation") -> ConfigDict:
    """Return the locked configuration of `model` and `objective` with every default."""
    nested: dict[str, Any] = {}
    for name, field in table(model, objective).items():
        *sections, leaf = name.split(".")
        node = nested
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = field.default
    return ConfigDict(nested, convert_dict=True).lock()


def change(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """Set dotted fields of `config` in place and return it; an unknown field is an AttributeError with its name."""
    for name, value in changes.items():
        *sections, leaf = name.split(".")
        node = config
        for section in sections:
            node = node[section]
        if leaf not in node:
            raise AttributeError(f"no field {name}")
        with node.ignore_type():
            node[leaf] = value
    return config


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Return `config` as dotted name -> value, in the table's order."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, ConfigDict):
            flat |= flatten(value, name + ".")
        else:
            flat[name] = value
    return flat
