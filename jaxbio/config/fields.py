"""Every configuration field of jaxbio: default, kind, unit and reason, science or machine.

This table, with the fields that each family adds in `families/`, is the only place where a default stands. A recipe
starts from `defaults()` and states what differs; code reads fields and never supplies a value of its own. A *science*
field decides what is learnt and may not change when a run resumes; a *machine* field decides where and how fast, and
may.

    config = defaults(model="qualityfm", objective="quality_distillation")
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxbio.config import families
from jaxbio.config.field import Field, machine, science
from jaxbio.config.roles import ROLES

COMMON: dict[str, Field] = {
    # ---- data: what a segment is, where the store lies, how it reaches the device
    "data.store": machine(
        None,
        "folder of the segment store (one at s3:// or gs:// is copied to TMPDIR), synthetic:<segments> for one made "
        "in the workdir, or several stores as ((folder, weight), ...): a weight is a share of the streams, and part of "
        "what a resume compares",
        str | tuple,
        optional=True,
    ),
    "data.exclude_subjects": machine(
        None,
        "CSV with the column subject (and source) of those who are left out of training and validation; whom it names "
        "is compared on a resume, where it lies is not",
        str,
        optional=True,
    ),
    "data.rate_hz": science(300.0, "sampling rate of a segment, Hz (QualityFM: 300)", low=1.0, high=5000.0),
    "data.segment_s": science(
        30.0, "length of a segment, s (pairs: 30; twelve leads: 10; SIGMA-PPG: 240)", low=5.0, high=3600.0
    ),
    "data.channels": science(("ppg", "ecg"), "channel roles in the order of the model's input channels"),
    "data.features": science(
        (),
        "hand-made feature channels behind the recorded ones, made of lead II where the store is prepared "
        "(config/features.py; hybrid input: all eleven, or of ST-MEM the seven that vary within a segment)",
    ),
    "data.feature_scales": science(
        (), "(centre, spread) of each feature; (): fitted on the subjects that the run trains on, when it starts"
    ),
    "data.scaling": science(
        "per_channel",
        "per_channel: each to [-1, 1], because units differ; joint: the author's, over both; unit: [0, 1]; physical",
        choices=("per_channel", "joint", "unit", "physical"),
    ),
    "data.crop_s": science(
        None,
        "length of what the encoder sees of a segment, s, cut at random in training (ST-MEM: 9 of 10); None: all of it",
        float,
        optional=True,
        low=0.1,
    ),
    "data.crops": science(
        1, "fixed crops that probes and embed average over; 1: the middle one (ST-MEM, downstream: 3)", low=1, high=100
    ),
    "data.band_hz": science(
        None,
        "edges of a zero-phase Butterworth band-pass, Hz (SIGMA-PPG: 0.5, 8; ST-MEM: 0.67, 40); None: no filter",
        tuple,
        optional=True,
    ),
    "data.band_order": science(2, "order of that filter at each edge (SIGMA-PPG: 2; ST-MEM: 5)", low=1, high=10),
    "data.band_design": science(
        "band_pass",
        "band_pass: one filter (SIGMA-PPG); high_pass_low_pass: one after the other (ST-MEM)",
        choices=("band_pass", "high_pass_low_pass"),
    ),
    "data.standardise": science(
        "none",
        "last step; z_score: mean 0, deviation 1 over all channels together (ST-MEM); unit: each to [0, 1] (SIGMA-PPG)",
        choices=("none", "z_score", "unit"),
    ),
    "data.target": science(
        None,
        "role among data.channels, the last of them, that is learnt and not seen by the encoder; None: all are seen",
        str,
        optional=True,
    ),
    "data.streams": science(
        256,
        "streams that the pairs are cut into: a step draws from all of them, a device reads only those of its rows",
        low=1,
    ),
    "data.curriculum": science(
        (), "(end of the stage as a share of the steps, largest difficulty drawn) for each stage; (): all pairs always"
    ),
    "data.batching": science(
        "pairs",
        "pairs: a step reads and encodes both segments of every pair; neighbourhoods: each distinct segment of "
        "neighbouring pairs once, for all pairs that it is in",
        choices=("pairs", "neighbourhoods"),
    ),
    "data.neighbourhood": science(
        (24, 16),
        "most distinct better and worse segments of a neighbourhood, which has room for four pairs a worse one; more "
        "better ones, because only a teacher's forward pass meets these",
    ),
    "data.labels": science(
        (), "labels that a batch carries, in this order: those of tools/add_labels.py, or columns of the store's table"
    ),
    "data.label_share": science(
        1.0,
        "share of the train split's subjects, of each class alike and one at least, whose labelled segments are learnt "
        "from; train.seed draws them, and validation stays whole (few labels: 0.1, 0.01)",
    ),
    "data.cache": machine(
        "none",
        "none: read through array_record; host: one int16 memory map a host; device: the segments lie in the memory of "
        "the devices, which draw the rows of a step themselves",
        choices=("none", "host", "device"),
    ),
    "data.read_threads": machine(2, "reading threads; more do not help two-core hosts", low=1, high=64),
    "data.prefetch": machine(2, "batches read ahead; Grain's default of 500 would fill the memory", low=1, high=64),
    # ---- prepare: from recordings to the store
    "prepare.shard_bytes": science(256 * 2**20, "aimed size of a shard, bytes; a shard is a neighbourhood", low=2**16),
    "prepare.block_h": science(24.0, "longest block of one recording in a shard, h", low=0.1),
    "prepare.max_missing_frac": science(
        0.2, "segments with more missing samples in a channel are rejected (QualityFM: 0.2)", low=0.0, high=1.0
    ),
    "prepare.split": science((0.90, 0.05, 0.05), "shares of subjects in train, validation, test"),
    "prepare.missing_channel": science(
        "refuse",
        "a channel that a recording lacks: refuse the recording; derive limb leads from two others, refuse where that "
        "does not help; mask: zeros, marked as not present, also where a window has lost the channel",
        choices=("refuse", "derive", "mask"),
    ),
    **{
        f"prepare.channel_names.{role}": science(entry.names, f"source names read as {entry.meaning}, best first")
        for role, entry in ROLES.items()
    },
    # ---- quality and pairs: rules over the store's table
    "quality.variant": science(
        "waveform",
        "waveform: share of the time with usable beats x band power, blind to rhythm; author: the published score, "
        "which runs against what eyes see in a PPG",
        choices=("waveform", "author"),
    ),
    "quality.cross_channel": science(
        "off",
        "on: with an ECG, pulses that follow none of its R peaks lower the waveform score of a PPG or a pressure; "
        "off, because it adds little to the pulses' own shape, and a PPG's score would depend on what lies beside it",
        choices=("off", "on"),
    ),
    "quality.author_rate_bpm": science((40.0, 120.0), "heart rates the published ECG score accepts, 1/min"),
    "pairs.rule": science(
        "quality_classes",
        "quality_classes: two segments of different class; good_bad: a clean one and one with artefacts; same_segment: "
        "each with itself, to see what pairing is worth; all_segments: single segments, no pairs",
        choices=("quality_classes", "good_bad", "same_segment", "all_segments"),
    ),
    "pairs.good_artefact_frac": science(0.05, "artefact fraction up to which good_bad calls a segment good", low=0.0),
    "pairs.max_gap_s": science(300.0, "largest gap between the members' starts, s (QualityFM: five minutes)", low=0.0),
    "pairs.max_per_segment": science(
        4,
        "pairs a segment may be in, its nearest partners first, so that near-duplicates do not fill the index; None: "
        "no limit, as published",
        int,
        optional=True,
        low=1,
    ),
    "pairs.class_edges": science((0.3, 0.5, 0.7, 0.9), "lower edges of Poor, Acceptable, Good, Excellent"),
    "pairs.class_edges_as": science(
        "values",
        "values: the edges are scores; quantiles: they are quantiles of the store's scores, for a store in which "
        "nearly all segments are excellent",
        choices=("values", "quantiles"),
    ),
    # ---- train
    "train.steps": science(42_000, "optimiser steps; one epoch of the published corpus", low=1),
    "train.batch": science(
        512,
        "pairs a step over all devices (QualityFM: 512); of neighbourhoods their worse segments, at most so many",
        low=1,
    ),
    "train.reference_batch": science(
        None,
        "batch at which learning rate and momenta are stated, which are scaled to train.batch; None: train.batch",
        int,
        optional=True,
        low=1,
    ),
    "train.microbatches": machine(
        1, "parts of a batch that are computed one after another; the update is that of the whole batch", low=1
    ),
    "train.seed": science(0, "seed of initialisation, order, augmentation and dropout", low=0, high=2**31 - 1),
    "train.steps_per_dispatch": machine(
        1, "steps in one call of the device; it must divide train.steps and every field *.every_steps", low=1
    ),
    "train.max_nonfinite": machine(0, "refused non-finite updates before the run stops", low=0),
    "train.init_from": science(
        None,
        "export folder whose weights start every encoder of the run, or ((encoder, folder), ...) for some of them",
        str | tuple,
        optional=True,
    ),
    "train.stall_s": machine(600.0, "a step that takes longer gets the stacks of all threads dumped, s", low=1.0),
    "train.compile_cache": machine(
        "~/.cache/jaxbio/compiled",
        "folder of compiled programs, so that a second start compiles nothing; several hosts share it; None: none",
        str,
        optional=True,
    ),
    # ---- optimizer
    "optimizer.name": science(
        "adamw",
        "adamw: weight decay beside the gradient, stable in deep post-norm networks; adam_l2: decay inside the "
        "gradient, as QualityFM's author has it; sgd",
        choices=("adamw", "adam_l2", "sgd"),
    ),
    "optimizer.learning_rate": science(2e-4, "peak learning rate (QualityFM: 1e-4 x batch / 256)", low=0.0),
    "optimizer.learning_rate_end": science(1e-6, "learning rate at the last step, after a cosine", low=0.0),
    "optimizer.batch_rule": science(
        "square_root",
        "how the learning rate follows train.batch / train.reference_batch: square_root, for Adam; linear, for sgd",
        choices=("square_root", "linear"),
    ),
    "optimizer.schedule": science(
        "cosine",
        "after the warm-up: cosine to learning_rate_end; step: halved every step_every",
        choices=("cosine", "step"),
    ),
    "optimizer.step_every": science(10_000, "steps between halvings of the learning rate under schedule step", low=1),
    "optimizer.warmup_frac": science(0.02, "share of the steps of linear warm-up (QualityFM: 0)", low=0.0, high=0.9),
    "optimizer.b1": science(0.9, "decay of Adam's first moment", low=0.0, high=1.0),
    "optimizer.b2": science(0.999, "decay of Adam's second moment", low=0.0, high=1.0),
    "optimizer.eps": science(
        1e-8, "Adam's epsilon; above 0, or a parameter without gradient would divide 0 by 0", low=1e-15
    ),
    "optimizer.momentum": science(0.9, "momentum of sgd", low=0.0, high=1.0),
    "optimizer.nesterov": science(True, "Nesterov's form of sgd's momentum"),
    "optimizer.weight_decay": science(0.04, "weight decay at step 0, cosine to weight_decay_end", low=0.0),
    "optimizer.weight_decay_end": science(0.4, "weight decay at the last step", low=0.0),
    "optimizer.decay_mask": science(
        "matrices",
        "matrices: kernels only, biases, norms and tables of places never; all: every parameter",
        choices=("matrices", "all"),
    ),
    "optimizer.clip_norm": science(
        1.0, "largest gradient norm, a group's own; None: none, as published", float, optional=True, low=0.0
    ),
    "optimizer.clip_value": science(None, "largest gradient entry; None: no clipping", float, optional=True, low=0.0),
    "optimizer.groups": science(
        (),
        "(regex, changes of this section) pairs, each a whole optimiser, first match wins; {'frozen': True} freezes",
    ),
    # ---- mesh and precision
    "mesh.platform": machine(
        "any",
        "kind of device that the run wants, so that it does not start on another; any: what JAX finds",
        choices=("any", "cpu", "gpu", "tpu"),
    ),
    "mesh.data": machine(-1, "devices along the batch; -1: the rest", low=-1),
    "mesh.fsdp": machine(1, "devices that share each parameter and split the batch", low=-1),
    "mesh.tensor": machine(1, "devices that split heads and feed-forward width", low=-1),
    "mesh.rules": machine(
        ((".*", "replicate"),), '(regex over parameter path, "replicate" | "fsdp" | tuple of axes), first match wins'
    ),
    "mesh.moments": machine(
        "zero",
        "zero: optimiser moments are also split over the axis data; like_params: they lie as their parameter does",
        choices=("zero", "like_params"),
    ),
    "precision.compute": machine(
        "float32",
        "type of products and activations; softmax, spectra, losses stay float32",
        choices=("float32", "bfloat16"),
    ),
    "precision.deterministic": machine(True, "ask the compiler for run-to-run identical GPU kernels"),
    # ---- checkpoint, eval, log, profile
    "checkpoint.every_steps": machine(1000, "steps between checkpoints", low=1),
    "checkpoint.every_s": machine(
        600.0, "seconds between checkpoints; None: by step only", float, optional=True, low=1.0
    ),
    "checkpoint.keep": machine(3, "newest checkpoints kept", low=1),
    "checkpoint.keep_every_steps": machine(
        None, "checkpoints at multiples of this step stay for good", int, optional=True, low=1
    ),
    "checkpoint.best_metric": machine(
        None,
        "key of metrics.jsonl; the checkpoint where it is smallest is kept too. No loss of a self-distillation: that "
        "is smallest when the network has collapsed",
        str,
        optional=True,
    ),
    "eval.every_steps": machine(1000, "steps between evaluations on the validation split", low=1),
    "eval.batches": machine(8, "whole batches an evaluation reads, always the same", low=1),
    "eval.tasks": machine(
        (),
        "linear probes: heart_rate, pulse_rate, quality_score, quality_class, or labels added to the store",
    ),
    "log.every_steps": machine(10, "steps between lines of metrics.jsonl", low=1),
    "log.trackers": machine(
        (),
        "where numbers go beside metrics.jsonl, any of tensorboard (into the workdir), wandb, mlflow, trackio",
    ),
    "log.project": machine("jaxbio", "project or experiment under which a tracker files the run"),
    "log.report_every_s": machine(
        60.0, "seconds between new versions of report.html; more, where drawing it takes over a twentieth", low=1.0
    ),
    "profile.at": machine(None, "step at which a profile of a few steps is taken", int, optional=True, low=0),
    "profile.dispatches": machine(3, "calls of the device that a profile holds", low=1),
    # ---- augment: what the device does to both members of a pair (as QualityFM's published code does)
    "augment.noise_prob": science(0.5, "probability of Gaussian noise", low=0.0, high=1.0),
    "augment.noise_sigma": science(0.01, "its deviation, in units of the scaled signal", low=0.0),
    "augment.noise_bits": science(
        "counter_hash",
        "generator of the noise; counter_hash fuses, a twentieth of the CPU step; threefry: JAX's vetted generator",
        choices=("counter_hash", "threefry"),
    ),
    "augment.scale_prob": science(0.5, "probability of one factor for all channels", low=0.0, high=1.0),
    "augment.scale_range": science((0.9, 1.1), "its range"),
    "augment.offset_prob": science(0.3, "probability of an offset for each channel", low=0.0, high=1.0),
    "augment.offset_max": science(0.1, "its largest size, in units of the scaled signal", low=0.0),
    "augment.block_prob": science(0.3, "probability that one block is zeroed in all channels", low=0.0, high=1.0),
    "augment.block_frac": science((0.05, 0.1), "range of the block's length as a share of the segment"),
}


# Machine fields that earlier versions had: runs of theirs are resumed and exported without them.
RETIRED = ("log.tensorboard",)  # log.trackers
# Science fields that came since, with what the versions before did: runs of theirs go on as they began.
ADDED: dict[str, Any] = {"data.label_share": 1.0}


def table(model: str, objective: str) -> dict[str, Field]:
    """Return the fields of a run of `model` and `objective`, by dotted name.

    Raises KeyError for a model or objective that no family registers.
    """
    return {
        **COMMON,
        "model.name": Field(model, str, "the registered encoder family", choices=tuple(families.MODELS)),
        **families.MODELS[model].fields,
        "objective.name": Field(objective, str, "the registered objective", choices=tuple(families.OBJECTIVES)),
        **families.OBJECTIVES[objective].fields,
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
            if isinstance(node[leaf], list):
                node[leaf] = None  # else a tuple in its place would become a list
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
