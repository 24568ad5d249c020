"""ST-MEM (docs/references.md): the encoder `st_mem` and the objective `patch_reconstruction`, published and ours."""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxbio.config.families.family import Family, Model, Training
from jaxbio.config.faults import Fault
from jaxbio.config.features import VARYING
from jaxbio.config.field import Field, machine, science
from jaxbio.config.roles import LEADS, kind_of

OUTPUT: dict[str, Field] = {
    "model.output": science(
        "pooled",
        "pooled: one vector of the leads that are there; tokens: one for each lead and time",
        choices=("pooled", "tokens"),
    ),
    "model.remat": machine(
        "none",
        "what a block keeps for its gradient: none recomputes nothing, full all, dots keeps products",
        choices=("none", "full", "dots"),
    ),
    "model.unroll": machine(
        1,
        "blocks unrolled in the scan over layers: 1, or all, which is faster on a CPU and slower to compile",
        low=1,
    ),
}
_MODEL: dict[str, Field] = {
    "model.width": science(384, "width of a token", low=2),
    "model.layers": science(12, "blocks of the encoder", low=1),
    "model.heads": science(6, "attention heads of the encoder", low=1),
    "model.head_width": science(64, "width of a head, in encoder and decoder, whatever the width", low=1),
    "model.feedforward": science(1536, "hidden width of the encoder's feed-forward layer", low=1),
    "model.patch": science(75, "samples of a patch (0.3 s)", low=2),
    **OUTPUT,
}
_OBJECTIVE: dict[str, Field] = {
    "objective.mask_share": science(
        0.75, "share of each lead's patches that is removed; what stays is rounded down: 7 of 30", low=0.0, high=1.0
    ),
    "objective.normalise_target": science(True, "targets are patches less their mean, over their deviation"),
    "objective.decoder_width": science(256, "width of the decoder", low=2),
    "objective.decoder_layers": science(4, "blocks of the decoder", low=1),
    "objective.decoder_heads": science(4, "attention heads of the decoder", low=1),
}

_METRICS: dict[str, str] = {
    "loss": "mean squared error of the removed patches, each less its mean and over its deviation: zeros have 1, 0 is "
    "perfect.",
}

# No augmentation in pretraining (docs/references.md).
PLAIN: dict[str, Any] = {
    "augment.noise_prob": 0.0,
    "augment.scale_prob": 0.0,
    "augment.offset_prob": 0.0,
    "augment.block_prob": 0.0,
}
# Ten seconds of twelve leads at 250 Hz, one by one (docs/references.md). Batch, epochs and warm-up of the
# paper are not public: those of MAE, from which the code is derived.
RECIPE: dict[str, Any] = {
    **PLAIN,
    "data.rate_hz": 250.0,
    "data.segment_s": 10.0,
    "data.channels": LEADS,
    "data.scaling": "physical",
    "data.crop_s": 9.0,
    "data.crops": 3,
    "data.band_hz": (0.67, 40.0),
    "data.band_order": 5,
    "data.band_design": "high_pass_low_pass",
    "data.standardise": "z_score",
    "pairs.rule": "all_segments",
    "train.batch": 1024,
    "train.steps": 147_000,
    "optimizer.learning_rate": 6e-4,  # 1.5e-4 x batch / 256
    "optimizer.learning_rate_end": 0.0,
    "optimizer.warmup_frac": 0.05,
    "optimizer.b2": 0.95,
    "optimizer.weight_decay": 0.01,
    "optimizer.weight_decay_end": 0.01,
}
# Hand-made features as further channels (hybrid input: docs/references.md). The norm of a raw
# patch takes the constant ones away, and the normalised targets of their patches are zeros.
HYBRID: dict[str, Any] = {"data.features": VARYING}
# The published code clips nothing and decays norms, biases and the learned vectors too.
AUTHOR: dict[str, Any] = {"optimizer.clip_norm": None, "optimizer.decay_mask": "all"}


def lead_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with the input of an encoder of ECG leads in patches."""
    seen = [role for role in values["data.channels"] if role != values["data.target"]]
    others = [role for role in seen if kind_of(role) != "ecg"]
    if others:
        yield Fault("data.channels", others, f"ECG leads, of {', '.join(LEADS)}: patches of all are embedded alike")
    yield from patch_faults(values)


def patch_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with the length of what is cut into patches."""
    seen = "data.segment_s" if values["data.crop_s"] is None else "data.crop_s"
    samples, patch = round(values["data.rate_hz"] * values[seen]), values["model.patch"]
    if samples % patch:
        near = sorted({max(samples // patch, 1) * patch, (samples // patch + 1) * patch})
        seconds = " or ".join(f"{number / values['data.rate_hz']:g}" for number in near)
        yield Fault(seen, values[seen], f"whole patches of {patch} samples: {seconds} s")


def _model_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    yield from lead_faults(values)
    if values["model.width"] % 2:
        yield Fault("model.width", values["model.width"], "even: half the position is sine, half cosine")


def _objective_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    yield from single_faults(values)
    if values["model.name"] != "st_mem":
        yield Fault("objective.name", values["objective.name"], "it removes patches of one lead: model.name = st_mem")
        return
    if values["objective.decoder_width"] % 2:
        yield Fault("objective.decoder_width", values["objective.decoder_width"], "even, as model.width")
    seen = values["data.segment_s"] if values["data.crop_s"] is None else values["data.crop_s"]
    patches, share = round(values["data.rate_hz"] * seen) // values["model.patch"], values["objective.mask_share"]
    if not 1 <= int(patches * (1 - share) + 1e-9) < patches:
        yield Fault("objective.mask_share", share, f"of {patches} patches a lead at least one stays and one goes")


def single_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the fault of an objective on single segments that is given pairs."""
    if values["pairs.rule"] != "all_segments":
        yield Fault("pairs.rule", values["pairs.rule"], "all_segments: this objective takes segments one by one")


FAMILY = Family(
    models={
        "st_mem": Model("jaxbio.models.st_mem:STMEM", _MODEL, _model_faults, counted_as={"model.remat": "none"}),
    },
    objectives={
        "patch_reconstruction": Training(
            "jaxbio.objectives.patch_reconstruction:patch_reconstruction",
            _OBJECTIVE,
            _objective_faults,
            metrics=_METRICS,
        )
    },
    references=("jaxbio.export.torch_names_ecg:ST_MEM",),
)
