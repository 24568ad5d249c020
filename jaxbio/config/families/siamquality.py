"""SiamQuality (docs/references.md) and its baselines: encoder `resnet1d`, objectives SimSiam, SimCLR and BYOL on pairs.

The objectives train any encoder of tokens: they compare the mean over tokens.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxbio.config.families.family import Family, Model, Training
from jaxbio.config.faults import Fault
from jaxbio.config.field import Field, science

_MODEL: dict[str, Field] = {
    "model.depth": science(50, "18, 34 (basic blocks), 50, 101 or 152 (bottleneck blocks)", low=18, high=152),
    "model.blocks": science((), "blocks in each of the four stages; (): the depth's own"),
}
_PROJECTOR: dict[str, Field] = {
    "objective.projector_width": science(256, "width of z, the output that is compared", low=1),
    "objective.projector_layers": science(3, "3: two hidden layers and a norm; 1: one linear layer", low=1, high=3),
}
_PREDICTOR: dict[str, Field] = {
    "objective.predictor_hidden": science(512, "hidden width of the predictor; the published one widens", low=1),
}
_NT_XENT: dict[str, Field] = {"objective.temperature": science(0.5, "temperature of NT-Xent", low=1e-4)}
_TARGET: dict[str, Field] = {
    "objective.ema_start": science(0.996, "target momentum at step 0, cosine to ema_end", low=0.0, high=1.0),
    "objective.ema_end": science(1.0, "target momentum at the last step", low=0.0, high=1.0),
}

# Good and bad neighbours of one PPG channel at 40 Hz, no augmentation, and a curriculum from little artefact to much
# (docs/references.md). The optimiser is ours: SimSiam's rule, 0.05 x batch / 256, with a cosine.
PAIRS: dict[str, Any] = {
    "data.rate_hz": 40.0,
    "data.channels": ("ppg",),
    "data.scaling": "unit",
    "data.curriculum": ((0.25, 0.25), (0.5, 0.5), (0.75, 0.75), (1.0, 1.0)),
    "pairs.rule": "good_bad",
    "pairs.max_per_segment": 5,
    "augment.noise_prob": 0.0,
    "augment.scale_prob": 0.0,
    "augment.offset_prob": 0.0,
    "augment.block_prob": 0.0,
    "train.batch": 256,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.05,
    "optimizer.learning_rate_end": 0.0,
    "optimizer.warmup_frac": 0.05,
    "optimizer.weight_decay": 1e-4,
    "optimizer.weight_decay_end": 1e-4,
    "optimizer.decay_mask": "all",
    "optimizer.clip_norm": None,
}

# The published recipe; ten epochs of 36 M pairs between halvings of the learning rate.
AUTHOR: dict[str, Any] = {
    "optimizer.schedule": "step",
    "optimizer.step_every": 1_406_250,
    "optimizer.learning_rate": 1e-4,
    "optimizer.warmup_frac": 0.0,
    "optimizer.clip_value": 10.0,
    "optimizer.groups": ((r"projector/fc2/bias$", {"frozen": True}),),
}


def _model_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    depth, blocks = values["model.depth"], values["model.blocks"]
    if depth not in (18, 34, 50, 101, 152):
        yield Fault("model.depth", depth, "one of 18, 34, 50, 101, 152")
    if blocks and (len(blocks) != 4 or min(blocks) < 1):
        yield Fault("model.blocks", blocks, "four numbers of blocks, or () for the depth's own")
    seen = "data.segment_s" if values["data.crop_s"] is None else "data.crop_s"
    samples = values["data.rate_hz"] * values[seen]
    if samples < 80:
        yield Fault(seen, values[seen], f"the stem has 80 taps, what it sees {samples:g} samples")


def _objective_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    if values["train.batch"] < 2:
        yield Fault("train.batch", values["train.batch"], "at least 2: batch statistics of one element are nothing")


_SPREAD = (
    "deviation of the normalised outputs over the batch, times the root of their width: 1 where they are spread in all "
    "directions, 0 where they have collapsed into one point."
)
_JUDGED: dict[str, str] = {
    "loss_constant": "what the best prediction that is the same for every segment would give.",
    "loss_floor": "the least the loss can be.",
}
_LOSSES: dict[str, str] = {
    "quality_siamese": "minus the cosine between what is predicted from one segment and the output of the other: -1 is "
    "agreement, 0 none. It reaches -1 by collapse as well.",
    "contrastive": "NT-Xent, nats: the cross-entropy of finding a segment's partner among all others of the batch; "
    "ln(2 batch - 1) is guessing, less is better.",
    "byol": "2 minus both cosines between what is predicted from one segment and the target network's output of the "
    "other: 0 is agreement, 2 none. It reaches 0 by collapse as well.",
}


def _training(file: str, fields: Mapping[str, Field]) -> Training:
    metrics = {"loss": _LOSSES[file], "output_spread": _SPREAD} | ({} if file == "contrastive" else _JUDGED)
    momenta = tuple(name for name in ("ema_start", "ema_end") if f"objective.{name}" in fields)
    return Training(f"jaxbio.objectives.{file}:{file}", fields, _objective_faults, momenta=momenta, metrics=metrics)


FAMILY = Family(
    models={"resnet1d": Model("jaxbio.models.resnet1d:ResNet1D", _MODEL, _model_faults)},
    objectives={
        "quality_siamese": _training("quality_siamese", {**_PROJECTOR, **_PREDICTOR}),
        "contrastive": _training("contrastive", {**_PROJECTOR, **_NT_XENT}),
        "byol": _training("byol", {**_PROJECTOR, **_PREDICTOR, **_TARGET}),
    },
    encoders={
        "projected": "jaxbio.models.projection:Projected",
        # the name that exports of the first schema give a ResNet with its projector
        "resnet1d_projected": "jaxbio.models.projection:projected_resnet1d",
    },
    references=("jaxbio.export.torch_names:SIAMQUALITY",),
)
