"""A finished run's held-out terms on another store."""

import runpy
from dataclasses import replace

import jax
import numpy as np
import pytest
from linear_run import linear_objective
from prepared import prepare, small_config, write_archive

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.data.labels import Label
from jaxbio.data.pairs import split_codes
from jaxbio.training.held_out import evaluate, make_held_out_order
from jaxbio.training.other_store import _unseen_pairs, evaluate_on
from jaxbio.training.program import build_program
from jaxbio.training.run_data import open_run_data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The data, the program and the first state of a run, whose test split is empty."""
    folder = tmp_path_factory.mktemp("other_store")
    config = small_config(train__batch=8, prepare__split=(0.6, 0.4, 0.0))
    store = prepare(write_archive(folder / "records", 16, minutes=4.2), folder / "store", config)
    data = open_run_data(config, str(store.path))
    pairs = len(data.validation.rows_NM)
    data = replace(data, held_out_order=make_held_out_order(pairs, 8, pairs, whole=True))
    program = build_program(config, linear_objective())
    with data.batches(program.mesh, 0) as batches:
        return data, program, program.init(next(iter(batches)).arrays)


def test_on_the_runs_own_store_they_are_those_of_its_held_out_split(run):
    data, program, state = run
    params, objective_state = jax.device_get((state.params, state.objective_state))
    expected = evaluate(program, state, data.held_out(program.mesh))
    found = evaluate_on(data.config, program.objective, params, objective_state, data.store, data.seen())
    assert found.pop("pairs") == len(data.validation.rows_NM)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_a_store_that_the_run_has_learnt_from_is_refused(run):
    data, program, state = run
    everything = replace(data, train=replace(data.train, rows_NM=np.arange(data.store.rows, dtype=np.uint32)[:, None]))
    with pytest.raises(UserError, match="that the run has not learnt from"):
        evaluate_on(data.config, program.objective, state.params, state.objective_state, data.store, everything.seen())


def test_only_segments_with_the_label_that_is_learnt_are_asked(run):
    data = run[0]
    config = fields.change(fields.defaults(objective="supervised"), {"pairs.rule": "all_segments"})
    value_R = np.where(np.arange(data.store.rows) % 3 == 0, np.nan, 1.0)
    nobody = replace(data.seen(), subject_S=data.seen().subject_S[:0], segment_N=data.seen().segment_N[:0])
    index = _unseen_pairs(config, data.store, nobody, [Label("heart_rate", value_R, ())])
    used_R = split_codes(data.store.stores[0]) >= 0
    np.testing.assert_array_equal(index.rows_NM[:, 0], np.flatnonzero(used_R & np.isfinite(value_R)))


@pytest.mark.parametrize(("segment_s", "crop_s"), [(240.0, 120.0), (120.0, None), (60.0, None)])
def test_a_shorter_store_is_seen_whole(repository, segment_s, crop_s):
    fit_to_store = runpy.run_path(str(repository / "tools/held_out.py"))["fit_to_store"]
    config = fit_to_store(fields.change(fields.defaults(), {"data.crop_s": 120.0}), segment_s, 4)
    assert (config.data.segment_s, config.data.crop_s, config.train.batch) == (segment_s, crop_s, 4)


def test_wrong_flags_and_stores_are_told_before_anything_else(repository, tmp_path):
    main = runpy.run_path(str(repository / "tools/held_out.py"))["main"]
    with pytest.raises(UserError, match="at least 1"):
        main(["--workdir", str(tmp_path), "--store", str(tmp_path), "--batch", "0"])
    with pytest.raises(UserError, match="nowhere"):
        main(["--workdir", str(tmp_path), "--store", str(tmp_path / "nowhere")])
