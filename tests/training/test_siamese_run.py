"""A siamese network with batch statistics under the general loop: a curriculum resumed, eight devices for one.

The network has one basic block a stage and segments of ten seconds; store, loop and checkpoints are the real ones.
"""

import itertools

import jax
import numpy as np
import pytest
from array_data import exact_values, resume_of

from jaxbio.config import fields
from jaxbio.config.families import siamquality
from jaxbio.config.faults import UserError
from jaxbio.config.resolve import resolve
from jaxbio.data.batch import batch_spec
from jaxbio.data.pairs import open_index
from jaxbio.data.prepare import prepare_store
from jaxbio.data.recordings import parse_source
from jaxbio.objectives import make_objective
from jaxbio.training.checkpoint import restore_items
from jaxbio.training.loop import train
from jaxbio.training.program import build_program
from jaxbio.training.run_data import RunData, open_run_data
from jaxbio.training.sharding import make_mesh, place_state
from jaxbio.training.state import abstract_state, leaf_paths
from jaxbio.training.step import make_train_step, seeded

EDGES = (6, 8)  # steps at which a stage of the curriculum ends
SMALL = {
    **siamquality.PAIRS,
    "data.segment_s": 10.0,
    "data.streams": 4,
    "data.curriculum": ((6 / 16, 0.4), (8 / 16, 0.8), (1.0, 1.0)),
    "prepare.split": (0.5, 0.25, 0.25),
    "model.depth": 18,
    "model.blocks": (1, 1, 1, 1),
    "objective.projector_width": 32,
    "objective.predictor_hidden": 64,
    "train.batch": 16,
    "optimizer.learning_rate": 1e-4,  # the published one; larger ones make rounding grow from step to step
    "train.steps": 16,
    "log.every_steps": 1,
    "eval.every_steps": 8,
    "eval.batches": 1,
    "checkpoint.every_steps": 4,
    "checkpoint.every_s": None,
}


def small_config(**changes):
    """Return the small run's configuration; `changes` with two underscores for a dot."""
    settings = {**SMALL, **{name.replace("__", "."): value for name, value in changes.items()}}
    return resolve(fields.change(fields.defaults("resnet1d", "quality_siamese"), settings))


class Stopped(Exception):
    pass


class StoppedData:
    """The data of a run, whose stream of batches fails before `step` (counted from 0)."""

    def __init__(self, data: RunData, step: int):
        self.data, self.step = data, step

    def __getattr__(self, name):
        return getattr(self.data, name)

    def batches(self, mesh, start_step):
        with self.data.batches(mesh, start_step) as batches:
            for batch in batches:
                if batch.step == self.step:
                    raise Stopped
                yield batch


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A synthetic store of the small run, and its index.

    Large enough that the pairs of a batch differ: over a handful of segments the batch statistics of some units are
    all but constant, and rounding decides their gradients.
    """
    folder = tmp_path_factory.mktemp("store") / "store"
    # Of some seeds the few pairs are so alike that batch norms divide by almost nothing, and rounding grows with it.
    prepare_store([parse_source("synthetic:150?seed=1")], small_config(), folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def data(store):
    return open_run_data(small_config(), store)


@pytest.fixture(scope="module")
def program():
    config = small_config()
    return build_program(config, make_objective(config), devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def uninterrupted(program, data, tmp_path_factory):
    """The workdir of a run that nothing stopped."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    train(program, data, workdir)
    return workdir


def last_state(workdir):
    step, items, _ = restore_items(workdir, ("params", "optimizer", "objective"))
    assert step == SMALL["train.steps"]
    return leaf_paths(items)


def test_stages_of_the_run_draw_what_they_may_and_differ(data):
    assert data.order.first_step_E.tolist() == [0, *EDGES]
    index = data.train
    drawn = [index.difficulty_N[data.order.draw(step)] for step in range(SMALL["train.steps"])]
    hardest = [np.max(drawn[first:stop]) for first, stop in ((0, 6), (6, 8), (8, 16))]
    assert hardest[0] <= 0.4 < hardest[1] <= 0.8 < hardest[2]


@pytest.mark.slow
def test_curriculum_resumes_bit_for_bit_inside_a_stage_and_across_changes(program, data, uninterrupted, tmp_path):
    resumed = []
    # from 4: inside the first stage, across both changes; from 8: at a change; from 12: inside the last stage
    for stop in (5, 10, 13):
        with pytest.raises(Stopped):
            train(program, StoppedData(data, stop), tmp_path, resume=resume_of(tmp_path))
        resumed.append(resume_of(tmp_path).step)
    train(program, data, tmp_path, resume=resume_of(tmp_path))
    assert resumed == [4, 8, 12]
    assert exact_values(tmp_path) == exact_values(uninterrupted)
    found, wanted = last_state(tmp_path), last_state(uninterrupted)
    assert found.keys() == wanted.keys()
    assert all(np.asarray(found[path]).tobytes() == np.asarray(wanted[path]).tobytes() for path in wanted)


@pytest.mark.slow
def test_eight_devices_equal_one_with_synchronised_statistics(program, data):
    """Two pairs a device: statistics of a device alone would be far from those of the batch."""
    config, objective = program.config, program.objective
    mesh = make_mesh(8, 1, 1)
    abstract = abstract_state(objective, program.optimizer, batch_spec(config))
    shardings = place_state(abstract, mesh, config.mesh.rules, config.mesh.moments).shardings
    step = seeded(make_train_step(config, objective, program.optimizer, mesh, shardings), config, mesh)
    state = None
    with data.batches(program.mesh, 0) as ones, data.batches(mesh, 0) as eights:
        for one, eight in itertools.islice(zip(ones, eights), 5):
            if state is None:
                state = program.init(one.arrays)
                states = jax.device_put(jax.tree.map(np.array, state), shardings)
                before = stem_mean(states)
            state, wanted = program.train_step(state, dict(one.arrays))
            states, found = step(states, dict(eight.arrays))
            for name in ("train/loss", "train/output_spread"):
                np.testing.assert_allclose(found[name], wanted[name], atol=1e-5, err_msg=f"{name}, step {one.step}")
            moved, expected = leaf_paths(states.objective_state), leaf_paths(state.objective_state)
            for path, leaf in expected.items():
                np.testing.assert_allclose(moved[path], leaf, rtol=1e-5, atol=1e-5, err_msg=path)
    assert len(states.step.sharding.device_set) == 8
    assert np.abs(stem_mean(states) - before).max() > 1e-2


def stem_mean(state):
    return np.array(state.objective_state["batch_stats"]["encoder"]["bn1"]["mean"])


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"data__rate_hz": 50.0}, "data.rate_hz"), ({"data__channels": ("ecg",)}, "data.channels")],
    ids=["rate", "channel"],
)
def test_store_of_another_rate_or_channel_than_the_model_wants_is_refused(store, changes, field):
    with pytest.raises(UserError, match="prepared with") as refused:
        open_run_data(small_config(**changes), store)
    assert field in {fault.field for fault in refused.value.faults}


def test_store_without_difficulty_is_refused_with_the_command_that_makes_one(store, data, tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    for path in store.iterdir():
        (folder / path.name).symlink_to(path) if path.name != "index" else None
    index = folder / "index" / data.index_hash
    index.mkdir(parents=True)
    for path in (store / "index" / data.index_hash).iterdir():
        if ".difficulty" not in path.name:
            (index / path.name).symlink_to(path)
    with pytest.raises(UserError, match="make_pairs"):
        open_run_data(small_config(), folder)
    for split in ("train", "validation", "test"):
        np.save(index / f"{split}.difficulty.npy", np.full(len(np.load(index / f"{split}.npy")), np.nan, np.float32))
    assert open_index(data.store.stores[0], small_config(), "train").difficulty_N.size
    with pytest.raises(UserError, match="no difficulty for every pair") as refused:
        open_run_data(small_config(), folder)
    assert {fault.field for fault in refused.value.faults} == {"data.curriculum"}
