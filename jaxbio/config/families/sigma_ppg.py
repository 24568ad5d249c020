"""SIGMA-PPG (docs/references.md): the encoders `sigma_tokenizer` and `sigma_ppg`, and the objectives of its two stages.

First a tokenizer learns a codebook of patches; then an encoder learns to name the codes of hidden patches, and a small
network to hide them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxbio.config.families.family import Family, Model, Training
from jaxbio.config.faults import Fault
from jaxbio.config.field import Field, machine, science

_PATCHES: dict[str, Field] = {
    "model.patch": science(
        100,
        "samples of a patch: 2 s, as the released commands; 50 is the paper's second and four times the attention",
        low=15,
    ),
    "model.tokens": science(
        120,
        "rows of the time table, at least the patches of what the encoder sees; shorter windows take the first",
        low=1,
    ),
}
_MACHINE: dict[str, Field] = {
    "model.remat": machine(
        "none",
        "what a block keeps for its gradient: none recomputes nothing, full all, dots keeps products",
        choices=("none", "full", "dots"),
    ),
    "model.unroll": machine(1, "blocks unrolled in the scan over layers: 1, or all", low=1),
}


def _sizes(width: int, layers: int, heads: int, channels: int) -> dict[str, Any]:
    return {"model.width": width, "model.layers": layers, "model.heads": heads, "model.channels": channels}


def _transformer(width: int, layers: int, heads: int, channels: int) -> dict[str, Field]:
    return {
        "model.width": science(width, "width of a token", low=1),
        "model.layers": science(layers, "transformer blocks", low=1),
        "model.heads": science(heads, "attention heads", low=1),
        "model.channels": science(
            channels, "channels of the convolutions in a patch, a multiple of their 4 groups", low=4
        ),
        **_PATCHES,
    }


_TOKENIZER: dict[str, Field] = {
    **_transformer(200, 12, 10, 8),
    "model.codes": science(4096, "codes in the codebook", low=2),
    "model.code_width": science(64, "width of a code, which is of unit length", low=2),
    **_MACHINE,
}
_STUDENT: dict[str, Field] = {
    **_transformer(360, 18, 12, 12),
    "model.q_v_biases": science(False, "biases of queries and values; the author adds them for fine-tuning"),
    "model.qk_norm": science(True, "normalise queries and keys per head"),
    "model.layer_scale": science(0.1, "start of the factor on what a block adds; 0: no factor", low=0.0),
    "model.dropout": science(0.08, "dropout of embeddings and of what a block adds", low=0.0, high=0.99),
    "model.attention_dropout": science(0.08, "dropout of attention weights", low=0.0, high=0.99),
    "model.drop_path": science(
        0.1,
        "probability that a segment skips a branch of the last block, linear from 0 at the first",
        low=0.0,
        high=0.99,
    ),
    "model.dropout_bits": science(
        "counter_hash",
        "counter_hash: a hashed counter, which the compiler fuses; threefry: JAX's vetted generator",
        choices=("counter_hash", "threefry"),
    ),
    **_MACHINE,
}

_SPECTRAL: dict[str, Field] = {
    "objective.decoder_layers": science(3, "blocks of the decoder, otherwise as wide as the encoder", low=1),
    "objective.decoder_start": science(
        "typical",
        "typical: its last biases are the first batch's typical spectrum, so that first gradients tell patches apart; "
        "zeros: the author's, where they push all points to one code",
        choices=("typical", "zeros"),
    ),
    "objective.spectrum_loss": science(
        "l1", "l1: the paper's word; mse: the author's code; smooth_l1: its option", choices=("l1", "mse", "smooth_l1")
    ),
    "objective.one_sided": science(
        False, "only the bins of one side of the spectrum; the mirrored ones double the weight of all but two"
    ),
    "objective.phase_weight": science(
        0.0, "weight of the phase spectrum's loss; 0: no phase, because patches are not aligned with beats", low=0.0
    ),
    "objective.commitment_weight": science(1.0, "weight of what pulls points to their codes", low=0.0),
    "objective.consistency_weight": science(0.5, "weight of what pulls a perturbed view to the clean one", low=0.0),
    "objective.code_decay": science(
        0.9,
        "decay of the codes' moving averages; at the author's 0.99 points move on faster than their codes follow",
        low=0.0,
        high=1.0,
    ),
    "objective.codebook_moves": science(
        "clean",
        "clean: once a step, by the clean view; both: then by the perturbed one too, as happens in the author's code",
        choices=("clean", "both"),
    ),
    "objective.kmeans_rounds": science(
        10, "rounds of the k-means on the first batch that the codes start from; 0: random directions", low=0
    ),
    "objective.revive_below": science(
        0.1,
        "codes used less than this share of uniform use start anew from points of the batch; 0: never, the author's: "
        "a code that points have left does not come back",
        low=0.0,
        high=1.0,
    ),
}
_MASKING: dict[str, Field] = {
    "objective.tokenizer": machine(None, "export of the first stage, whose codes are learnt", str, optional=True),
    "objective.masking": science(
        "adversarial",
        "adversarial: a network learns what to hide; prior: by the statistical prior alone; random",
        choices=("adversarial", "prior", "random"),
    ),
    "objective.mask_ratio": science(
        0.5, "share of a segment's patches that are chosen to be hidden", low=0.0, high=1.0
    ),
    "objective.punch_prob": science(0.3, "probability that a chosen patch is shown all the same", low=0.0, high=1.0),
    "objective.longest_run": science(5, "hidden patches in a row, after which one is shown", low=1),
    "objective.amplitude_share": science(
        0.5, "share of amplitude in the prior, the rest is skewness", low=0.0, high=1.0
    ),
    "objective.prior_weight": science(
        2.0,
        "factor on the prior, z-scored, that is added to the mask's logits; the released command leaves it at 0",
        low=0.0,
    ),
    "objective.likelihood": science(
        "independent",
        "of a mask; independent: the author's code; plackett_luce: exact for draws without replacement",
        choices=("independent", "plackett_luce"),
    ),
    "objective.mask_width": science(64, "width, and channels, of the network that hides", low=4),
    "objective.mask_layers": science(2, "its transformer blocks", low=1),
    "objective.mask_heads": science(4, "its attention heads", low=1),
}

_SPECTRAL_METRICS: dict[str, str] = {
    "amplitude": "distance of the decoded amplitude spectra from the patches' own, z-scored over a segment; less is "
    "better, and falls by the mean spectrum alone.",
    "amplitude_constant": "the same distance of the typical spectrum, one for every patch: more than amplitude where "
    "codes say something.",
    "amplitude_floor": "the least that the distance can be.",
    "phase": "distance of the decoded phases, as shares of pi; less is better.",
    "commitment": "mean square between normalised points and their codes; less is better, 0 where all share one code.",
    "consistency": "mean square between the points of the clean and of the perturbed view; less is better.",
    "identical_codes": "share of patches whose code the perturbation leaves; more is better, 1 where all share one.",
    "code_perplexity": "how many codes, used alike, would be as various; more is better, at most the codes there are.",
    "unused_codes": "share of the codes that no patch has, of a batch or of all held-out ones; less is better, the "
    "paper asks for below 0.1 of the latter.",
    "revived_codes": "codes that started anew from points of the batch in this step.",
    "steps_to_revival": "steps that no point chooses a code until it starts anew; 0: none ever does.",
    "still": "share of segments in which nothing moves; where nothing moves in a whole batch its update is refused.",
}
_MASKING_METRICS: dict[str, str] = {
    "cross_entropy": "of the codes of hidden patches, nats; less is better, log of the codes is knowing nothing. Held "
    "out, the same patches are hidden in every run.",
    "accuracy": "share of hidden patches whose code is told exactly; more is better.",
    "accuracy_peak": "the same of hidden patches with a prior above its mean.",
    "accuracy_flat": "the same of hidden patches with a prior not above its mean; equal to the peaks' is a bad sign.",
    "encoder_entropy": "of the encoder's answer for a hidden patch, nats; 0 is certainty.",
    "reward": "mean over segments, of those with any hidden patch, of the cross-entropy of their hidden patches: what "
    "the mask generator is paid.",
    "advantage_spread": "standard deviation over the batch of reward minus its mean; 0 teaches the generator nothing.",
    "policy": "what the mask generator makes smaller: minus advantage times the log likelihood of the mask.",
    "mask_entropy": "of the distribution that patches are chosen from, nats; log of the patches is no preference.",
    "hidden": "share of patches that are hidden.",
    "prior_of_hidden": "mean prior of hidden patches over that of all; 1 is no preference.",
    "prior_overlap": "share of hidden patches that are among as many of largest prior.",
    "still": "share of segments in which nothing moves; where nothing moves in a whole batch its update is refused.",
}

# Single windows of four minutes at 50 Hz, band-passed and scaled to [0, 1] (docs/references.md). What `per_channel`
# scales, `unit` scales again behind the filter; the split is by subject, the author's by file.
DATA: dict[str, Any] = {
    "data.rate_hz": 50.0,
    "data.segment_s": 240.0,
    "data.channels": ("ppg",),
    "data.scaling": "per_channel",
    "data.band_hz": (0.5, 8.0),
    "data.standardise": "unit",
    "pairs.rule": "all_segments",
    "augment.noise_prob": 0.0,
    "augment.scale_prob": 0.0,
    "augment.offset_prob": 0.0,
    "augment.block_prob": 0.0,
}

# 120 000 h are 1.8 million windows: 100 epochs of 440 steps. The perturbed view has a factor and noise; the author adds
# the noise behind the factor, so that its deviation is 0.05 exactly and not 0.045 to 0.055.
TOKENIZER: dict[str, Any] = {
    **DATA,
    "augment.noise_prob": 1.0,
    "augment.noise_sigma": 0.05,
    "augment.scale_prob": 1.0,
    "augment.scale_range": (0.9, 1.1),
    "train.steps": 44_000,
    "train.batch": 4096,
    "optimizer.learning_rate": 2.83e-4,
    "optimizer.learning_rate_end": 1e-5,
    "optimizer.warmup_frac": 0.1,
    "optimizer.b2": 0.99,
    "optimizer.weight_decay": 1e-4,
    "optimizer.weight_decay_end": 1e-4,
}
# 80 epochs of 220 steps; the network that hides has an optimiser of its own.
STUDENT: dict[str, Any] = {
    **DATA,
    "train.steps": 17_600,
    "train.batch": 8192,
    "optimizer.learning_rate": 5e-4,
    "optimizer.learning_rate_end": 1e-5,
    "optimizer.warmup_frac": 0.125,
    "optimizer.weight_decay": 0.05,
    "optimizer.weight_decay_end": 0.05,
    "optimizer.groups": (
        (
            "^mask_generator/",
            {"learning_rate": 1e-4, "learning_rate_end": 1e-4, "warmup_frac": 0.0, "decay_mask": "all"},
        ),
    ),
}
SIZES: dict[str, dict[str, Any]] = {
    "base": _sizes(200, 12, 10, 8),
    "pro": _sizes(360, 18, 12, 12),
    "large": _sizes(512, 24, 8, 16),
    "huge": _sizes(1024, 28, 16, 16),
}

# Beside the common :smoke: forty windows of four minutes, and codes that the patches of eight windows are enough for.
SMOKE: dict[str, Any] = {"data.store": "synthetic:400", "prepare.split": (0.4, 0.4, 0.2)}
TOKENIZER_SMOKE: dict[str, Any] = {**SMOKE, "model.codes": 512}

# Recompute a block in the gradient: a third more products, a fraction of the activations.
_MACHINES: dict[str, dict[str, Any]] = {"remat": {"model.remat": "full"}}
PATCH_50: dict[str, Any] = {"model.patch": 50, "model.tokens": 240}
TOKENIZER_PRESETS: dict[str, dict[str, Any]] = {
    "author": {
        "objective.decoder_start": "zeros",
        "objective.spectrum_loss": "mse",
        "objective.code_decay": 0.99,
        "objective.codebook_moves": "both",
        "objective.revive_below": 0.0,
        "augment.noise_bits": "threefry",
    },
    "patch50": PATCH_50,
    "phase": {"objective.phase_weight": 1.0},
}
STUDENT_PRESETS: dict[str, dict[str, Any]] = {
    "author": {"model.dropout_bits": "threefry"},
    "patch50": PATCH_50,
    "prior": {"objective.masking": "prior", "optimizer.groups": ()},
    "random": {"objective.masking": "random", "optimizer.groups": ()},
}


def _patches(values: Mapping[str, Any]) -> float:
    """Return the patches of what the encoder sees, not rounded."""
    seen_s = values["data.segment_s"] if values["data.crop_s"] is None else values["data.crop_s"]
    return values["data.rate_hz"] * seen_s / values["model.patch"]


def _model_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    width, heads, channels = values["model.width"], values["model.heads"], values["model.channels"]
    if width % heads:
        yield Fault("model.heads", heads, f"make it a divisor of model.width = {width}")
    if channels % 4:
        yield Fault("model.channels", channels, f"a multiple of 4: {channels // 4 * 4} or {channels // 4 * 4 + 4}")
    if len(values["data.channels"]) != 1:
        yield Fault("data.channels", values["data.channels"], "one role: this encoder reads a single signal")
    patches, tokens = _patches(values), values["model.tokens"]
    if abs(patches - round(patches)) > 1e-6 or round(patches) < 1:
        samples = round(patches * values["model.patch"])
        yield Fault("model.patch", values["model.patch"], f"a divisor of the {samples} samples that the encoder sees")
    elif tokens < round(patches):
        yield Fault("model.tokens", tokens, f"at least {round(patches)}, the patches of what the encoder sees")


def _single_faults(values: Mapping[str, Any], model: str) -> Iterator[Fault]:
    if values["model.name"] != model:
        yield Fault("objective.name", values["objective.name"], f"it trains model.name = {model} alone")
    if values["pairs.rule"] != "all_segments":
        yield Fault("pairs.rule", values["pairs.rule"], "all_segments: this objective reads single segments")


def _spectral_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    yield from (faults := list(_single_faults(values, "sigma_tokenizer")))
    if faults or not values["objective.kmeans_rounds"]:
        return
    batch, codes, patches = values["train.batch"], values["model.codes"], int(_patches(values))
    if batch * patches < codes:
        least = -(-codes // max(patches, 1))
        remedy = (
            f"the first batch has {batch * patches} patches for its k-means: at most that, or train.batch >= {least}"
        )
        yield Fault("model.codes", codes, remedy)


def _masking_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    yield from (faults := list(_single_faults(values, "sigma_ppg")))
    if faults:
        return
    ratio, punched, patches = values["objective.mask_ratio"], values["objective.punch_prob"], int(_patches(values))
    chosen = int(patches * ratio)
    if not 0 < ratio < 1 or not 0 < chosen < patches:
        yield Fault("objective.mask_ratio", ratio, f"of {patches} patches it hides {chosen}: at least 1, and not all")
    elif chosen * (1 - punched) < 1:
        remedy = f"of the {chosen} patches that are chosen less than one is left hidden: lower it"
        yield Fault("objective.punch_prob", punched, remedy)
    width, heads = values["objective.mask_width"], values["objective.mask_heads"]
    if width % heads or width % 4:
        yield Fault("objective.mask_width", width, f"a multiple of objective.mask_heads = {heads}, and of 4")
    masking, rules = values["objective.masking"], [rule for rule, _ in values["optimizer.groups"]]
    if masking != "adversarial" and any("mask_generator" in rule for rule in rules):
        remedy = (
            f"it has no mask generator for optimizer.groups: the recipe's :{masking}, or optimizer.groups=() as well"
        )
        yield Fault("objective.masking", masking, remedy)


FAMILY = Family(
    models={
        "sigma_tokenizer": Model(
            "jaxbio.models.sigma_tokenizer:SigmaTokenizer",
            _TOKENIZER,
            _model_faults,
            presets=_MACHINES,
            counted_as={"model.remat": "none"},
        ),
        "sigma_ppg": Model(
            "jaxbio.models.sigma:SigmaEncoder",
            _STUDENT,
            _model_faults,
            presets=_MACHINES,
            counted_as={"model.remat": "none"},
        ),
    },
    objectives={
        "spectral_tokenizer": Training(
            "jaxbio.objectives.spectral_tokenizer:spectral_tokenizer",
            _SPECTRAL,
            _spectral_faults,
            momenta=("code_decay",),
            metrics=_SPECTRAL_METRICS,
        ),
        "adversarial_masking": Training(
            "jaxbio.objectives.adversarial_masking:adversarial_masking",
            _MASKING,
            _masking_faults,
            frozen=("tokenizer",),
            metrics=_MASKING_METRICS,
        ),
    },
    references=(
        "jaxbio.export.torch_names_sigma_ppg:STUDENT",
        "jaxbio.export.torch_names_sigma_ppg:TOKENIZER",
    ),
)
