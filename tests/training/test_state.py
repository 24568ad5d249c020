"""The state: its shape without arrays, its initialisation straight into shardings, and its random streams."""

import jax
import numpy as np
import pytest
from linear_run import linear_config, linear_objective, start

from jaxbio.data.batch import batch_spec
from jaxbio.training.optimizer import make_optimizer
from jaxbio.training.program import abstract_batch, lay_out, lower_eval_step, lower_train_step
from jaxbio.training.sharding import make_mesh, place_state
from jaxbio.training.state import abstract_state, leaf_paths, new_state, stream_key
from jaxbio.training.step import step_keys

FSDP = {"mesh__data": 1, "mesh__fsdp": 8, "mesh__rules": ((".*", "fsdp"),)}


def test_abstract_state_is_the_shape_of_the_initialised_one():
    config, objective = linear_config(), linear_objective()
    abstract = abstract_state(objective, make_optimizer(config.optimizer, config.train.steps), batch_spec(config))
    _, _, _, state = start(config, objective)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), abstract) == jax.tree.map(lambda a: (a.shape, a.dtype), state)


def test_initial_values_do_not_depend_on_the_mesh():
    objective = linear_objective()
    single = start(linear_config(), objective, jax.devices()[:1])[-1]
    sharded = start(linear_config(**FSDP), objective)[-1]
    for path, leaf in leaf_paths(single).items():
        np.testing.assert_array_equal(leaf, leaf_paths(sharded)[path], err_msg=path)


def test_initialisation_holds_no_unsharded_copy():
    config, objective = linear_config(**FSDP), linear_objective(width=512)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    batch = abstract_batch(config)
    abstract = abstract_state(objective, optimizer, batch)
    placement = place_state(abstract, make_mesh(1, 8, 1), config.mesh.rules, config.mesh.moments)
    initialise = jax.jit(lambda b: new_state(objective, optimizer, 0, b, {}), out_shardings=placement.shardings)
    memory = initialise.lower(batch).compile().memory_analysis()
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract.params))
    assert memory.output_size_in_bytes == pytest.approx(placement.bytes_per_device, rel=0.02)
    assert memory.temp_size_in_bytes < whole / 4


def test_runs_of_any_seed_share_one_program():
    """A sweep over seeds compiles once; and the seed does reach the program: the two starts differ."""
    texts, starts = [], []
    for seed in (0, 2**31 - 1):
        config, objective = linear_config(train__seed=seed), linear_objective()
        layout = lay_out(config, objective)
        texts.append([lower(config, objective, layout).as_text() for lower in (lower_train_step, lower_eval_step)])
        starts.append(start(config, objective)[-1].params)
    assert texts[0] == texts[1]
    assert not np.array_equal(*(jax.tree.leaves(params)[-1] for params in starts))


def test_streams_are_named_and_repeatable():
    assert jax.random.key_data(stream_key(3, "init")).tolist() == jax.random.key_data(stream_key(3, "init")).tolist()
    drawn = {tuple(jax.random.key_data(stream_key(seed, name)).tolist()) for seed in (0, 1) for name in ("a", "b")}
    assert len(drawn) == 4


def test_augmentation_goes_by_step_and_dropout_by_microbatch_too():
    def words(step, microbatch):
        return {name: tuple(jax.random.key_data(key).tolist()) for name, key in step_keys(0, step, microbatch).items()}

    first, other_part, other_step = words(5, 0), words(5, 1), words(6, 0)
    assert first["augment"] == other_part["augment"]
    assert first["dropout"] != other_part["dropout"]
    assert first["augment"] != other_step["augment"]
    assert first["dropout"] != other_step["dropout"]
