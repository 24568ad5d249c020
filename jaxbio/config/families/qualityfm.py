"""QualityFM (docs/references.md): encoder `qualityfm` and objective `quality_distillation`, published and ours."""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxbio.config.families.family import Family, Model, Training
from jaxbio.config.faults import Fault
from jaxbio.config.field import Field, machine, science

SAMPLES_PER_TOKEN = 500  # the strides of the tokenizer's layers, 5 x 10 x 10

_MODEL: dict[str, Field] = {
    "model.width": science(512, "width of a token", low=100),
    "model.layers": science(2, "blocks of the encoder, and of the decoder", low=1),
    "model.heads": science(4, "attention heads", low=1),
    "model.feedforward": science(256, "hidden width of the feed-forward layer", low=1),
    "model.window": science(
        8,
        "local attention window, tokens, even; token 0 is global; None: attention to all",
        optional=True,
        low=0,
    ),
    "model.dropout": science(0.1, "dropout everywhere, attention weights included", low=0.0, high=0.99),
    "model.dropout_bits": science(
        "counter_hash",
        "counter_hash: a hashed counter, which the compiler fuses: a step is a sixth faster on a CPU; threefry: JAX's "
        "vetted generator",
        choices=("counter_hash", "threefry"),
    ),
    "model.tokenizer": machine(
        "auto",
        "convolution; frames: the same as framed matrix products; auto: frames, but for an export of any length",
        choices=("auto", "convolution", "frames"),
    ),
    "model.remat": machine(
        "none",
        "what a block keeps for its gradient: none recomputes nothing, full all, dots keeps products",
        choices=("none", "full", "dots"),
    ),
    "model.unroll": machine(
        1,
        "blocks unrolled in the scan over layers: 1, or all; any number between makes XLA copy the stacked parameters",
        low=1,
    ),
}

_OBJECTIVE: dict[str, Field] = {
    "objective.distill_over": science(
        "token",
        "token: each with the one at its place, as published, though two segments are not aligned in time; segment: "
        "the mean over tokens, which is what neighbours share",
        choices=("segment", "token"),
    ),
    "objective.normalise": science(
        "none",
        "of features without a head: none, as they are; layer: of mean 0 and deviation 1; unit: of length 1",
        choices=("none", "layer", "unit"),
    ),
    "objective.head": science(
        "none",
        "between features and softmax, not exported: none, as published; mlp: one hidden layer; prototypes: as in DINO",
        choices=("none", "mlp", "prototypes"),
    ),
    "objective.head_width": science(512, "what a head gives, the number of things the softmax chooses from", low=2),
    "objective.head_hidden": science(512, "hidden width of a head", low=1),
    "objective.predictor_hidden": science(
        0, "hidden width of a residual predictor that the student alone has; 0: none", low=0
    ),
    "objective.teacher_temperature": science(0.04, "softmax temperature of the teacher", low=1e-4),
    "objective.teacher_temperature_start": science(0.04, "the same at step 0 of a teacher's warm-up", low=1e-4),
    "objective.teacher_warmup_frac": science(
        0.0, "share of the steps in which the teacher's temperature goes from one to the other", low=0.0, high=1.0
    ),
    "objective.student_temperature": science(0.1, "softmax temperature of the student", low=1e-4),
    "objective.centre_over": science(
        "position",
        "position: a centre for each token, as published; all: one for all; the same where segments are distilled",
        choices=("position", "all"),
    ),
    "objective.centre_momentum": science(0.9, "momentum of the teacher's centre", low=0.0, high=1.0),
    "objective.amplitude_weight": science(0.1, "weight of the amplitude spectrum's loss", low=0.0),
    "objective.phase_weight": science(0.1, "weight of the phase spectrum's loss", low=0.0),
    "objective.decode_from": science(
        "token",
        "token: the spectra are decoded from the student's tokens, as published; segment: from their mean, so that the "
        "vector which an export gives of a segment holds them",
        choices=("segment", "token"),
    ),
    "objective.breathing_weight": science(
        0.0,
        "weight of where within breathing_hz the better segment's spectrum lies, foretold from the mean of the "
        "student's tokens; 0: none, as published",
        low=0.0,
    ),
    "objective.breathing_hz": science((0.1, 0.6), "band of breathing, Hz: 6 to 36 breaths a minute", tuple),
    "objective.koleo_weight": science(
        0.0,
        "weight of a term that keeps the student's segments of a batch apart; it couples the batch",
        low=0.0,
    ),
    "objective.variance_weight": science(
        0.0,
        "weight of a hinge on the deviation of the student's features; it couples the batch",
        low=0.0,
    ),
    "objective.variance_least": science(0.1, "the deviation below which that hinge pulls", low=1e-6),
    "objective.spectrum": science(
        "magnitude", "magnitude: the author's code; power: the paper's word", choices=("magnitude", "power")
    ),
    "objective.ema_start": science(
        0.996,
        "teacher momentum at step 0, cosine to ema_end; the author's 0.7 collapses short runs",
        low=0.0,
        high=1.0,
    ),
    "objective.ema_end": science(1.0, "teacher momentum at the last step", low=0.0, high=1.0),
    "objective.ema_horizon_frac": science(
        None,
        "in the place of ema_start and ema_end: the share of the run's steps in which the teacher forgets by 1/e, so "
        "that it follows alike in short and long runs; None: the published cosine",
        float,
        optional=True,
        low=1e-6,
    ),
    "objective.teacher_dropout": science(False, "dropout in the teacher too, as published"),
}

# What our recipes change of the published distillation, so that the student learns by it; docs/recipe.md has the runs
# behind every line.
LEARNS: dict[str, Any] = {
    "objective.distill_over": "segment",
    "objective.head": "mlp",
    "objective.ema_horizon_frac": 0.25,
    "objective.koleo_weight": 0.15,
    "objective.variance_weight": 1.0,
    "objective.amplitude_weight": 3.0,
    "objective.breathing_weight": 1.25,
    "objective.decode_from": "segment",
    "optimizer.warmup_frac": 0.1,
}

# A run of a hundred or two steps: features spread and targets say something from the first steps on, and the centre
# keeps up with a teacher that moves quickly. In long runs LEARNS keeps more rank and more of breathing.
SHORT: dict[str, Any] = LEARNS | {
    "objective.teacher_temperature_start": 0.02,
    "objective.teacher_warmup_frac": 1.0,
    "objective.centre_momentum": 0.5,
    "objective.koleo_weight": 0.2,
    "objective.variance_weight": 10.0,
    "objective.breathing_weight": 2.5,
    "optimizer.warmup_frac": 0.2,
}

# A run of many thousands of steps, in which features lose rank, and targets all but one feature, by the weight that
# hundreds of steps want.
LONG: dict[str, Any] = LEARNS | {"objective.koleo_weight": 0.4}

# The published recipe to the letter (docs/references.md); everything else is equal to ours.
AUTHOR: dict[str, Any] = {
    "data.scaling": "joint",
    "quality.variant": "author",
    "pairs.max_per_segment": None,
    "objective.distill_over": "token",
    "objective.head": "none",
    "objective.teacher_temperature_start": 0.04,
    "objective.teacher_warmup_frac": 0.0,
    "objective.centre_momentum": 0.9,
    "objective.ema_horizon_frac": None,
    "objective.koleo_weight": 0.0,
    "objective.variance_weight": 0.0,
    "objective.amplitude_weight": 0.1,
    "objective.decode_from": "token",
    "objective.breathing_weight": 0.0,
    "objective.ema_start": 0.7,
    "objective.teacher_dropout": True,
    "optimizer.name": "adam_l2",
    "optimizer.learning_rate": 2e-4,
    "optimizer.warmup_frac": 0.0,
    "optimizer.clip_norm": None,
    "model.dropout_bits": "threefry",
    "augment.noise_bits": "threefry",
}

# An epoch of the published corpus on a TPU v5e-256: 32 pairs a chip and step, drawn from the chips' own memory.
V5E_256: dict[str, Any] = {
    "mesh.platform": "tpu",
    "precision.compute": "bfloat16",
    "data.cache": "device",
    "train.batch": 8192,
    "train.reference_batch": 512,
    "train.steps": 2630,
    "train.steps_per_dispatch": 10,
    "eval.every_steps": 130,
    "checkpoint.every_steps": 130,
}

_MACHINES: dict[str, dict[str, Any]] = {
    # Heads and feed-forward width of the blocks over four devices; base and medium have four heads.
    "tensor": {
        "mesh.tensor": 4,
        "mesh.rules": (
            ("blocks/attention/qkv/kernel$", (None, None, "tensor")),
            ("blocks/attention/qkv/bias$", (None, "tensor")),
            ("blocks/attention/output/kernel$", (None, "tensor")),
            ("blocks/feedforward_in/kernel$", (None, None, "tensor")),
            ("blocks/feedforward_in/bias$", (None, "tensor")),
            ("blocks/feedforward_out/kernel$", (None, "tensor")),
            (".*", "replicate"),
        ),
    },
    # Recompute a block in the gradient: a third more products, a fraction of the activations.
    "remat": {"model.remat": "full"},
}

# Of recipes, by what stands behind the colon.
PRESETS: dict[str, dict[str, Any]] = {"short": SHORT, "long": LONG, "author": AUTHOR, "v5e_256": V5E_256}

_METRICS: dict[str, str] = {
    "distill": "cross-entropy, nats, of what the student makes of the worse segment under what the teacher makes of "
    "the better one. It cannot fall below the teacher's entropy; a student that says nothing has the logarithm of the "
    "number of features compared.",
    "distill_constant": "what the best prediction that is the same for every segment would give, nats: the entropy of "
    "the mean of what the teacher says, over all held-out segments.",
    "distill_uniform": "what a prediction that says nothing would give, nats: the logarithm of the number of features "
    "compared.",
    "student_entropy": "entropy of what the student says of a segment, nats, at its own temperature.",
    "student_mean_entropy": "entropy of the mean of what the student says, nats: where it equals student_entropy, the "
    "student says the same of every segment.",
    "koleo": "how near the student's segments of a batch lie to each other: minus the mean logarithm of the distance "
    "to the nearest; less is farther apart.",
    "variance": "how far the deviation of the student's features falls below objective.variance_least, as a share of "
    "it.",
    "amplitude": "error of the better segment's amplitude spectrum, as decoded from the worse one (smooth L1 of "
    "z-scores); less is better.",
    "breathing": "error of where the better segment's spectrum lies within the band of breathing, as foretold from the "
    "worse one (smooth L1 of z-scores over the band); less is better.",
    "phase": "error of the better segment's phase spectrum, as decoded from the worse one. A phase depends on when "
    "beats fall within its segment, which the other does not tell: an output that stays flat is to be expected.",
    "teacher_entropy": "entropy of what the teacher says of a segment or token, nats: 0 is one feature alone, the "
    "logarithm of their number all alike, and both ends teach nothing.",
}


def _model_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    width, heads, window = values["model.width"], values["model.heads"], values["model.window"]
    if width % heads:
        yield Fault("model.heads", heads, f"make it a divisor of model.width = {width}")
    if width % 2:
        yield Fault("model.width", width, "even: half the position table is sine, half cosine")
    if window is None:
        return
    if window % 2:
        yield Fault("model.window", window, f"even, half to each side: {window - 1} or {window + 1}")
    seconds = values["data.segment_s"] if values["data.crop_s"] is None else values["data.crop_s"]
    tokens = -(-round(seconds * values["data.rate_hz"]) // SAMPLES_PER_TOKEN)
    widest = 2 * (tokens - 1)  # half of it reaches from the first token of the input to the last
    if window > widest and values["train.init_from"] is None:  # an export's window is as it was trained
        remedy = f"longer than the input, {tokens} tokens: at most {widest}, or None: attention to all"
        yield Fault("model.window", window, remedy)


def _objective_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    if values["model.name"] != "qualityfm":
        yield Fault(
            "objective.name", values["objective.name"], "its decoder is a second qualityfm: model.name = qualityfm"
        )
        return
    width, channels = values["model.width"], len(values["data.channels"])
    # the decoder reads the width as time: one token, one signal
    if -(-width // SAMPLES_PER_TOKEN) != channels:
        near = f"{SAMPLES_PER_TOKEN * (channels - 1) + 2} to {SAMPLES_PER_TOKEN * channels}"
        yield Fault("model.width", width, f"the decoder must give {channels} signals, one in 500: {near}")
    if values["objective.breathing_weight"]:
        yield from _breathing_faults(values)


def _breathing_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    band_hz, rate_hz = values["objective.breathing_hz"], values["data.rate_hz"]
    seconds = values["data.segment_s"] if values["data.crop_s"] is None else values["data.crop_s"]
    remedy = f"two frequencies, the lower first, from 0 to {rate_hz / 2:g} Hz and {2 / seconds:.3g} Hz or more apart"
    if len(band_hz) != 2 or not 0 <= band_hz[0] <= band_hz[1] - 2 / seconds or band_hz[1] > rate_hz / 2:
        yield Fault("objective.breathing_hz", band_hz, remedy)


FAMILY = Family(
    models={
        "qualityfm": Model(
            "jaxbio.models.qualityfm:QualityFMEncoder",
            _MODEL,
            _model_faults,
            presets=_MACHINES,
            counted_as={"model.tokenizer": "convolution", "model.remat": "none"},
        )
    },
    objectives={
        "quality_distillation": Training(
            "jaxbio.objectives.quality_distillation:quality_distillation",
            _OBJECTIVE,
            _objective_faults,
            momenta=("ema_start", "ema_end", "centre_momentum"),
            neighbourhoods=True,
            metrics=_METRICS,
        )
    },
    references=("jaxbio.export.torch_names:QUALITYFM",),
)
