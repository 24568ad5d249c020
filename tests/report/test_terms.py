"""Every word that a page shows is defined: keys of the record, outcomes of an account."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.config import families, fields
from jaxbio.config.command_line import load_recipe
from jaxbio.config.resolve import resolve
from jaxbio.data.recordings.recording import REASONS as REFUSALS
from jaxbio.data.shard_plan import KEPT
from jaxbio.objectives import make_objective
from jaxbio.report.terms import NOT_DESCRIBED, OUTCOMES, describe, tell_outcome
from jaxbio.signals.segments import REASONS
from jaxbio.training.clock import PARTS
from jaxbio.training.collapse import collapse_monitors
from jaxbio.training.performance import memory
from jaxbio.training.sharding import PARTS as PARTS_OF_STATE

# One recipe of each objective, at the smallest size that builds it.
RECIPES = {
    "quality_distillation": (
        "qualityfm_base",
        {
            "model.width": 502,
            "model.layers": 1,
            "model.heads": 2,
            "objective.koleo_weight": 0.1,
            "objective.variance_weight": 0.1,
        },
    ),
    "quality_siamese": ("siamquality_resnet50", {"model.depth": 18}),
    "contrastive": ("siamquality_simclr", {"model.depth": 18}),
    "byol": ("siamquality_byol", {"model.depth": 18}),
}
# What the trainer adds to an objective's metrics (training/step.py, training/journal.py).
TRAINER = {
    *(f"train/{name}" for name in ("loss", "nonfinite", "learning_rate", "learning_rate_group_1", "weight_decay")),
    *(f"train/{name}" for name in ("grad_norm", "param_norm", "update_norm", "update_norm_group_0")),
    *("perf/step_s", "perf/pairs_per_s", "perf/mfu", "data/wait_s", "data/rows_crc32", "time/starts", "eval/loss"),
    *(f"time/{part}_s" for part in PARTS),
    *(f"memory/{name}" for name in memory()),
    *(f"memory/{part}_bytes" for part in (*PARTS_OF_STATE, "resident", "temporaries")),
    *(f"eval/teacher_{name}" for name in collapse_monitors([[0.0, 1.0], [1.0, 0.0]])),
}


@functools.cache
def metrics_of(objective: str, repository: Path) -> set[str]:
    """Return the names of the objective's own metrics, by tracing it."""
    recipe, changes = RECIPES[objective]
    config = resolve(
        fields.change(load_recipe(str(repository / f"configs/{recipe}.py")), {**changes, "train.batch": 2})
    )
    channels, length = len(config.data.channels), round(config.data.rate_hz * config.data.segment_s)
    made = make_objective(config)
    batch = {
        "segment_BMCT": jnp.zeros((2, 2, channels, length), jnp.int16),
        "scale_BMC2": jnp.ones((2, 2, channels, 2)),
        "row_BM": jnp.zeros((2, 2), jnp.uint32),
    }

    def step(key):
        params, state = made.init(key, batch, {})
        keys = {"augment": key, "dropout": key}
        _, (aux, terms) = made.loss(params, state, batch, keys, jnp.float32(0), True)
        _, (_, held_out) = made.loss(params, state, batch, keys, jnp.float32(0), False)
        return {**terms, **held_out, **made.update(params, state, aux, key, jnp.float32(0))[1]}

    traced = jax.eval_shape(step, jax.random.key(0))
    means = {name: np.full(term.shape, 0.5) for name, term in traced.items() if term.ndim}  # only `conclude` sees them
    return {*(traced.keys() - means.keys()), *(made.conclude(means) if made.conclude else ())}


@pytest.mark.parametrize("objective", RECIPES)
def test_every_metric_of_a_family_is_described(objective, repository):
    names = metrics_of(objective, repository)
    assert names
    for key in TRAINER | {f"{area}/{name}" for area in ("train", "eval") for name in names}:
        said = describe(key, objective)
        assert said != NOT_DESCRIBED, key
        assert said.endswith("."), said


@pytest.mark.parametrize("objective", families.OBJECTIVES)
def test_every_objective_says_what_it_measures(objective):
    assert families.OBJECTIVES[objective].metrics, f"describe the metrics of {objective} in its family's Training"


def test_no_family_describes_what_it_does_not_measure(repository):
    for objective in RECIPES:
        described = set(families.OBJECTIVES[objective].metrics)
        assert described <= metrics_of(objective, repository) | {"loss"}


def test_a_probe_is_described_by_its_task_its_metric_and_who_answers():
    assert describe("eval/probe_heart_rate_mae_student", "byol").startswith(
        "heart rate told from the student's features"
    )
    assert "sees no segment" in describe("eval/probe_a_mae_b_balanced_accuracy_constant", "byol")


def test_what_nobody_describes_is_said_to_be_so():
    assert describe("eval/perplexity", "byol") == NOT_DESCRIBED
    assert tell_outcome("of_old") == "a reason of another version of jaxbio"


def test_every_outcome_of_an_account_is_defined():
    assert {KEPT, "remainder", *REASONS, *REFUSALS} <= set(OUTCOMES)
