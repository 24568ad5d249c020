"""`:author` is the published recipe (docs/references.md), and differs from ours only in named fields."""

import pytest

from jaxbio.config import fields
from jaxbio.config.command_line import load_recipe
from jaxbio.config.families import qualityfm

PUBLISHED = {
    "data.rate_hz": 300.0,
    "data.segment_s": 30.0,
    "data.channels": ("ppg", "ecg"),
    "data.scaling": "joint",
    "prepare.max_missing_frac": 0.2,
    "quality.variant": "author",
    "quality.author_rate_bpm": (40.0, 120.0),
    "pairs.max_gap_s": 300.0,
    "pairs.max_per_segment": None,
    "pairs.class_edges": (0.3, 0.5, 0.7, 0.9),
    "pairs.class_edges_as": "values",
    "augment.noise_prob": 0.5,
    "augment.noise_sigma": 0.01,
    "augment.scale_prob": 0.5,
    "augment.scale_range": (0.9, 1.1),
    "augment.offset_prob": 0.3,
    "augment.offset_max": 0.1,
    "augment.block_prob": 0.3,
    "augment.block_frac": (0.05, 0.1),
    "model.width": 512,
    "model.window": 8,
    "model.dropout": 0.1,
    "objective.distill_over": "token",
    "objective.head": "none",
    "objective.normalise": "none",
    "objective.predictor_hidden": 0,
    "objective.teacher_warmup_frac": 0.0,
    "objective.centre_over": "position",
    "objective.koleo_weight": 0.0,
    "objective.variance_weight": 0.0,
    "objective.ema_horizon_frac": None,
    "objective.teacher_temperature": 0.04,
    "objective.student_temperature": 0.1,
    "objective.centre_momentum": 0.9,
    "objective.amplitude_weight": 0.1,
    "objective.phase_weight": 0.1,
    "objective.spectrum": "magnitude",
    "objective.ema_start": 0.7,
    "objective.ema_end": 1.0,
    "objective.teacher_dropout": True,
    "optimizer.name": "adam_l2",
    "optimizer.b1": 0.9,
    "optimizer.b2": 0.999,
    "optimizer.eps": 1e-8,
    "optimizer.learning_rate": 2e-4,
    "optimizer.learning_rate_end": 1e-6,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_frac": 0.0,
    "optimizer.weight_decay": 0.04,
    "optimizer.weight_decay_end": 0.4,
    "optimizer.decay_mask": "matrices",
    "optimizer.clip_norm": None,
    "optimizer.clip_value": None,
    "train.batch": 512,
    "train.steps": 42_000,
    "precision.compute": "float32",
}
SIZES = {"base": (2, 4, 256), "medium": (21, 4, 512), "large": (50, 8, 2048)}


@pytest.mark.parametrize("size", SIZES)
def test_author_is_the_published_recipe(repository, size):
    author = fields.flatten(load_recipe(f"{repository}/configs/qualityfm_{size}.py:author"))
    assert {name: author[name] for name in PUBLISHED} == PUBLISHED
    assert (author["model.layers"], author["model.heads"], author["model.feedforward"]) == SIZES[size]


@pytest.mark.parametrize("size", SIZES)
def test_author_differs_from_ours_only_in_the_fields_it_names(repository, size):
    recipe = f"{repository}/configs/qualityfm_{size}.py"
    author, ours, short = (fields.flatten(load_recipe(f"{recipe}{preset}")) for preset in (":author", "", ":short"))
    different = {name for name in author if not author[name] == ours[name] == short[name]}
    assert different <= set(qualityfm.AUTHOR)
    # the larger ones have the published rate
    assert set(qualityfm.AUTHOR) - different <= {"optimizer.learning_rate"}
    for other in ("short", "long"):
        assert fields.flatten(load_recipe(f"{recipe}:{other},author")) == author
