"""Discrete codes and triplets (docs/references.md): the encoder `vq_vae` with the objective
`code_reconstruction`, and `label_triplets` for any encoder.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxbio.config.families.family import Family, KnownLabel, Model, Training
from jaxbio.config.families.st_mem import HYBRID, OUTPUT, RECIPE, lead_faults, single_faults
from jaxbio.config.faults import Fault
from jaxbio.config.field import Field, science

_MODEL: dict[str, Field] = {
    "model.width": science(384, "width of a token", low=2),
    "model.layers": science(12, "blocks of the encoder", low=1),
    "model.heads": science(6, "attention heads of the encoder", low=1),
    "model.head_width": science(64, "width of a head, in encoder and decoder", low=1),
    "model.feedforward": science(1536, "hidden width of the encoder's feed-forward layer", low=1),
    "model.patch": science(75, "samples of a patch of all leads (0.3 s)", low=2),
    "model.latent": science(192, "width of a code", low=1),
    "model.codes": science(512, "codes in the codebook", low=2),
    **OUTPUT,
    "model.output": science(
        "latent", "latent: tokens before they are quantised; quantised: their codes", choices=("latent", "quantised")
    ),
}
_CODES: dict[str, Field] = {
    "objective.decoder_width": science(256, "width of the decoder", low=2),
    "objective.decoder_layers": science(4, "blocks of the decoder", low=1),
    "objective.decoder_heads": science(3, "attention heads of the decoder", low=1),
    "objective.commitment": science(0.25, "weight of what draws tokens to their codes (van den Oord: 0.25)", low=0.0),
    "objective.codebook": science(
        "averages",
        "averages: codes are moving averages of their tokens, outside the optimiser; gradient: they are learnt; both "
        "at once pull against each other, as in the published code",
        choices=("averages", "gradient"),
    ),
    "objective.codebook_decay": science(0.99, "decay of the moving averages", low=0.0, high=1.0),
    "objective.codebook_epsilon": science(
        1e-8, "smoothing of a code's moving share of the tokens, so that none divides by 0", low=0.0
    ),
    "objective.kmeans_rounds": science(10, "rounds of k-means over the first batch's tokens, to start from", low=1),
    "objective.revive_below": science(
        0.03, "codes used by less than this of uniform use start anew from tokens of the batch", low=0.0, high=1.0
    ),
}
_TRIPLETS: dict[str, Field] = {
    "objective.head_hidden": science(64, "hidden width of the head", low=1),
    "objective.head_width": science(9, "width of the head's output, on the unit sphere", low=2),
    "objective.margin": science(1.0, "margin between squared distances of 0 to 4; 0.2 to 0.5 is usual", low=0.0),
    "objective.mining": science(
        "random",
        "the negative of an anchor; random: any; semi_hard: farther than the positive by less than the margin, any "
        "where there is none",
        choices=("random", "semi_hard"),
    ),
}

_CODE_METRICS: dict[str, str] = {
    "loss": "the reconstruction, and what draws tokens and codes together; less is better.",
    "reconstruction": "mean squared error of the decoded signal; of standardised signals zeros have 1, 0 is perfect.",
    "commitment": "mean squared distance of tokens to their codes; smaller is closer.",
    "code_perplexity": "how many codes, used alike, would be as various; more is better, at most the codes there are.",
    "unused_codes": "share of the codes that no token is nearest to; less is better, of a collapsed codebook nearly 1.",
    "revived_codes": "codes that hardly any token chose and that started anew from tokens of the batch, in a step.",
    "steps_to_revival": "steps that no token chooses a code until it starts anew; 0: none ever does.",
}
_TRIPLET_METRICS: dict[str, str] = {
    "loss": "by how much triplets fall short of the margin, the mean over anchors; 0: all are apart by it.",
    "anchors": "the share of the batch that has another segment of its class and one of another class.",
    "active": "the share of the anchors whose triplet is not yet apart by the margin; 0: there is nothing to learn.",
}

# Without a filter, as published; batch 64, 100 epochs of 188,000 records (section 4.3).
CODES: dict[str, Any] = {
    **RECIPE,
    "data.band_hz": None,
    "train.batch": 64,
    "train.steps": 290_000,
    "optimizer.learning_rate": 3.75e-5,  # 1.5e-4 x batch / 256
    "optimizer.warmup_frac": 0.1,
    "optimizer.weight_decay": 0.05,
    "optimizer.weight_decay_end": 0.05,
}
# A head on ST-MEM base, which stays as it was pretrained (section 3): Adam, batch 128, 20 epochs of PTB-XL.
TRIPLETS: dict[str, Any] = {
    **RECIPE,
    "model.width": 768,
    "model.heads": 12,
    "model.feedforward": 3072,
    "data.labels": ("superclass",),
    "train.batch": 128,
    "train.steps": 2_700,
    "optimizer.learning_rate": 1.5e-4,
    "optimizer.learning_rate_end": 1.5e-4,
    "optimizer.warmup_frac": 0.0,
    "optimizer.b2": 0.999,
    "optimizer.weight_decay": 0.0,
    "optimizer.weight_decay_end": 0.0,
    "optimizer.groups": ((r"^encoder/", {"frozen": True}),),
}
PRESETS: dict[str, dict[str, Any]] = {
    "hybrid": HYBRID,
    "semi_hard": {"objective.mining": "semi_hard", "objective.margin": 0.2},
    # The published head was fed signals without the filter that its encoder was pretrained behind; ours has the input
    # of the export that it starts from. data.band_hz=None goes with an encoder that was pretrained so.
    "author": {"optimizer.clip_norm": None},
}
# Synthetic recordings know their rhythm, and of fewer all to train on are sinus; the encoder learns with its head, for
# there is no export to start from.
SMOKE: dict[str, Any] = {"data.store": "synthetic:256", "data.labels": ("rhythm",), "optimizer.groups": ()}
_FEW = 8  # numbers of a label without names that are classes in all but name, as tools/add_labels.py counts them


def _code_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    yield from single_faults(values)
    if values["model.name"] != "vq_vae":
        yield Fault("objective.name", values["objective.name"], "it quantises what model.name = vq_vae encodes")
    elif values["model.output"] != "latent":
        yield Fault(
            "model.output", values["model.output"], "latent in training; an export's --which quantised has codes"
        )


def _triplet_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    yield from single_faults(values)
    if len(values["data.labels"]) != 1:
        yield Fault("data.labels", values["data.labels"], "one label, of classes: who is alike follows from it")
    if values["data.target"] is not None:
        yield Fault("data.target", values["data.target"], "None: triplets are of classes, not of a channel's course")
    if values["train.batch"] < 3:
        yield Fault("train.batch", values["train.batch"], "at least 3: an anchor, one of its class and one of another")
    frozen = [
        rule for rule, changes in values["optimizer.groups"] if "frozen" in changes and re.search(rule, "encoder/")
    ]
    if frozen and values["train.init_from"] is None:
        remedy = (
            "the encoder is frozen: name its export, (('encoder', 'EXPORT'),), or train it with optimizer.groups=()"
        )
        yield Fault("train.init_from", None, remedy)


def _triplet_label_faults(values: Mapping[str, Any], labels: Sequence[KnownLabel]) -> Iterator[Fault]:
    for label in labels:
        value_N = np.unique(np.concatenate([label.train_N, label.validation_N]))
        if not label.classes and ((value_N != np.rint(value_N)).any() or len(value_N) > _FEW):
            remedy = "a label of classes: names in the table of tools/add_labels.py, such as young and old for ages"
            yield Fault("data.labels", f"{label.name}: {len(value_N)} different numbers", remedy)
            continue
        for split, split_N in (("train", label.train_N), ("validation", label.validation_N)):
            count_by_class = np.unique(split_N, return_counts=True)[1]
            if (count_by_class > 1).sum() < 2:
                found = f"{label.name}: {(count_by_class > 1).sum()} classes with two segments in {split}"
                remedy = "two such classes: an anchor, another of its class and one of another are a triplet; label "
                remedy += "more recordings, or prepare with other shares (prepare.split)"
                yield Fault("data.labels", found, remedy)


FAMILY = Family(
    models={
        "vq_vae": Model("jaxbio.models.vq_vae:VQVAE", _MODEL, lead_faults, counted_as={"model.remat": "none"}),
    },
    objectives={
        "code_reconstruction": Training(
            "jaxbio.objectives.code_reconstruction:code_reconstruction",
            _CODES,
            _code_faults,
            momenta=("codebook_decay",),
            metrics=_CODE_METRICS,
        ),
        "label_triplets": Training(
            "jaxbio.objectives.label_triplets:label_triplets",
            _TRIPLETS,
            _triplet_faults,
            metrics=_TRIPLET_METRICS,
            labelled=True,
            label_faults=_triplet_label_faults,
        ),
    },
    encoders={"headed": "jaxbio.models.headed:Headed"},
    references=("jaxbio.export.torch_names_ecg:VQ_VAE",),
)
