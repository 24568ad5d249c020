"""The launch line: what it refuses, before a device is touched, and a whole run of it.

In-process runs take a linear objective, which compiles in a second; the real model and real kills are slow tests.
"""

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from simulated import xla_flags

from jaxbio.config import changes, fields
from jaxbio.config.command_line import load_recipe
from jaxbio.config.faults import EXIT_USER_FAULT, UserError
from jaxbio.data.labels import Label, open_labels, write_labels
from jaxbio.data.prepare import prepare_store
from jaxbio.data.recordings import parse_source
from jaxbio.data.seen import SEEN, read_seen
from jaxbio.data.several import open_stores
from jaxbio.data.store import open_store
from jaxbio.training import program
from jaxbio.training.checkpoint import Checkpoints, Meta, list_steps
from jaxbio.training.run_data import open_run_data
from jaxbio.training.sharding import make_mesh
from jaxbio.training.state import State
from jaxbio.training.writers import read_metrics
from launch import environment, run

RECIPE = str(Path(__file__).with_name("tiny_recipe.py"))


@pytest.fixture
def launch(monkeypatch, tmp_path, store):
    """Call main with the tiny recipe and store; JAX runs here already, too late for its settings."""
    monkeypatch.setattr(environment, "configure", lambda **_: {})
    monkeypatch.chdir(tmp_path)

    def call(*arguments, store=store):
        named = [] if store is None else [f"--config.data.store={store}"]
        return run.main(["--config", RECIPE, *named, "--workdir", "run", *arguments])

    return call


@pytest.fixture
def untrained(monkeypatch):
    """Stop where the first device would be touched."""
    started = []

    def start(config, data, workdir, resume, peers, questions, networks, checks):
        started.append(resume)
        return {"step": 0}

    monkeypatch.setattr(run, "start", start)
    return started


@pytest.fixture
def linear(monkeypatch, repository):
    """Train a linear model in the place of the recipe's."""
    from linear_run import linear_objective

    from jaxbio import objectives
    from jaxbio.planning import flops

    monkeypatch.setattr(objectives, "make_objective", lambda config, networks: linear_objective())
    monkeypatch.setattr(flops, "model_flops", lambda config, pairs, networks: flops.FlopCount(1.0, {}))


def save_checkpoint(workdir, store, step=6, **config_changes):
    """Leave a checkpoint of a run on `store` in `workdir`: what a resume is checked against."""
    config = fields.change(load_recipe(RECIPE), config_changes)
    hashes = {label.name: label.hash for label in open_labels(open_store(store), config.data.labels)}
    meta = Meta(step, changes.to_plain(config), open_store(store).hash, index_of(store), {}, {}, label_hashes=hashes)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=5)
    leaf = {"kernel": jnp.ones(3)}
    checkpoints.save(State(jnp.int32(step), leaf, leaf, leaf), meta)
    checkpoints.close()


def index_of(store):
    (folder,) = (store / "index").iterdir()
    return folder.name


def faults_of(call):
    with pytest.raises(UserError) as error:
        call()
    return {fault.field: str(fault) for fault in error.value.faults}


def test_no_store_prints_the_command_that_makes_one(launch, untrained):
    (fault,) = faults_of(lambda: launch(store=None)).values()
    assert f"python tools/prepare_store.py --config {RECIPE} --source 'FORMAT:PATH' --out STORE" in fault
    assert untrained == []


def test_store_that_is_not_there_prints_the_command_that_makes_it(launch, untrained):
    (fault,) = faults_of(lambda: launch(store="nowhere")).values()
    assert "no such folder" in fault
    assert "--out nowhere" in fault


def test_folder_that_is_no_store_is_named(launch, untrained, tmp_path):
    assert "data.store" in faults_of(lambda: launch(store=tmp_path))
    assert untrained == []


def test_all_faults_of_the_line_come_together(launch, untrained):
    faults = faults_of(lambda: launch("--config.train.stepz=3", "--config.train.batch=0", "--config.data.cache=tape"))
    assert {"train.stepz", "train.batch", "data.cache"} <= faults.keys()
    assert "train.steps" in faults["train.stepz"]


def test_exit_code_and_one_line_for_each_fault(repository):
    line = [
        sys.executable,
        "launch/run.py",
        "--config",
        "configs/quickstart.py",
        "--config.train.stepz=3",
        "--frobnicate",
    ]
    process = subprocess.run(line, capture_output=True, text=True, cwd=repository)
    assert process.returncode == EXIT_USER_FAULT
    assert process.stdout == ""
    lines = process.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: ") for line in lines)


def test_store_of_another_rate_or_length_is_refused(launch, untrained):
    faults = faults_of(lambda: launch("--config.data.segment_s=10.0", "--config.data.rate_hz=100.0"))
    assert {"data.segment_s", "data.rate_hz"} == faults.keys()


def test_fewer_pairs_than_a_batch_and_batch_that_fits_no_streams(launch, untrained):
    faults = faults_of(lambda: launch("--config.train.batch=8192"))
    assert "fewer than a batch" in faults["train.batch"]
    assert "multiple or a divisor" in faults_of(lambda: launch("--config.train.batch=3"))["train.batch"]
    assert untrained == []


def test_empty_validation_split_is_a_fault_of_the_run(store, tmp_path):
    folder = tmp_path / "store"
    shutil.copytree(store, folder)
    (index,) = (folder / "index").iterdir()
    for part in (".npy", ".difficulty.npy"):
        np.save(index / f"validation{part}", np.load(index / f"validation{part}")[:0])
    with pytest.raises(UserError, match="validation split has no pairs"):
        open_run_data(load_recipe(RECIPE), folder)


def test_workdir_that_cannot_be_written_is_named(launch, untrained, tmp_path):
    (tmp_path / "run").write_text("a file in the way")
    assert "--workdir" in faults_of(launch)
    assert untrained == []


def test_second_process_on_a_workdir_is_refused(launch, untrained, repository, tmp_path):
    code = "import pathlib; from jaxbio.training.workdir import hold\nwith hold(pathlib.Path('run')): print(); input()"
    (tmp_path / "run").mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(repository)},
    )
    assert other.stdout is not None
    other.stdout.readline()
    assert f"process {other.pid}" in faults_of(launch)["--workdir"]
    other.communicate(b"\n")
    launch()
    assert untrained == [None]


def test_changed_science_fields_are_refused_by_name_unless_allowed(launch, untrained, store, tmp_path):
    save_checkpoint(tmp_path / "run", store)
    changed = ("--config.train.steps=30", "--config.optimizer.learning_rate=1e-3", "--config.log.every_steps=2")
    faults = faults_of(lambda: launch(*changed))
    assert faults.keys() == {"train.steps", "optimizer.learning_rate"}  # log.every_steps is the machine's
    assert "started with 24" in faults["train.steps"]
    launch(*changed, "--allow_change=train.steps", "--allow_change=optimizer.learning_rate")
    assert [meta.step for meta in untrained] == [6]


def test_store_may_move_but_not_change(launch, untrained, store, tmp_path):
    save_checkpoint(tmp_path / "run", store)
    shutil.copytree(store, tmp_path / "moved")
    launch(store=tmp_path / "moved")
    other = tmp_path / "other"
    prepare_store([parse_source("synthetic:108")], load_recipe(RECIPE), other, progress=False)
    assert "another store" in faults_of(lambda: launch(store=other))["data.store"]
    launch("--allow_change=data.store", store=other)
    assert len(untrained) == 2


@pytest.fixture
def labelled(store, tmp_path):
    """A copy of the store in which every segment is labelled: by its row's number, and by whether that is odd."""
    folder = Path(shutil.copytree(store, tmp_path / "labelled"))
    row_R = np.arange(open_store(folder).rows, dtype=np.float32)
    write_labels(open_store(folder), [Label("row", row_R), Label("odd", row_R % 2, ("even", "odd"))])
    return folder


def test_labels_that_the_store_lacks_are_refused_with_the_command_that_adds_them(launch, untrained, labelled):
    faults = faults_of(lambda: launch("--config.data.labels=('mood','row')", "--config.train.batch=3", store=labelled))
    assert faults.keys() == {"data.labels", "train.batch"}
    known = "odd, respiratory_rate, rhythm, row, transit_time, true_heart_rate, wave_shape"
    assert f"it has {known}" in faults["data.labels"]
    assert f"python tools/add_labels.py --store {labelled} --labels FILE.csv" in faults["data.labels"]
    assert "once" in faults_of(lambda: launch("--config.data.labels=('row','row')", store=labelled))["data.labels"]
    assert untrained == []


def test_labels_that_changed_are_not_resumed_on_unless_allowed(launch, untrained, labelled, tmp_path):
    names = "--config.data.labels=('row','odd')"
    save_checkpoint(tmp_path / "run", labelled, **{"data.labels": ("row", "odd")})
    launch(names, store=labelled)
    changed_R = np.ones(open_store(labelled).rows, np.float32)
    write_labels(open_store(labelled), [Label("odd", changed_R, ("even", "odd")), Label("new", changed_R)])
    fault = faults_of(lambda: launch(names, store=labelled))["data.labels"]
    assert "'odd'" in fault
    assert "--allow_change=data.labels" in fault
    launch(names, "--allow_change=data.labels", store=labelled)
    assert [meta.step for meta in untrained] == [6, 6]
    assert "started with" in faults_of(lambda: launch("--config.data.labels=('row',)", store=labelled))["data.labels"]


def test_labels_reach_the_loss_by_row_and_in_the_recipes_order(labelled):
    from linear_run import linear_objective

    plain = linear_objective()

    def loss(params, state, batch, keys, progress, train):
        value, (aux, terms) = plain.loss(params, state, batch, keys, progress, train)
        odd, row = batch["label_BMK"][..., 0], batch["label_BMK"][..., 1]
        return value, (aux, terms | {"odd": odd.mean(), "wrong": jnp.abs(row - batch["row_BM"]).max()})

    config = fields.change(load_recipe(RECIPE), {"data.labels": ("odd", "row"), "train.microbatches": 2})
    data = open_run_data(config, labelled)
    made = program.build_program(config, dataclasses.replace(plain, loss=loss), devices=jax.devices()[:2])
    with data.batches(made.mesh, 0) as batches:
        first = next(batches)
        state = made.init(first.arrays)
        for batch in (first, *itertools.islice(batches, 3)):
            state, metrics = made.train_step(state, dict(batch.arrays))
            assert float(metrics["train/wrong"][0]) == 0
            assert float(metrics["train/odd"][0]) == pytest.approx((data.rows(batch.step) % 2).mean())


@pytest.fixture(scope="module")
def stores(tmp_path_factory, store):
    """The value of data.store for the synthetic store and another, at 0.7 and 0.3."""
    folder = tmp_path_factory.mktemp("another") / "store"
    prepare_store([parse_source("synthetic:84?seed=5")], load_recipe(RECIPE), folder, progress=False)
    return ((str(store), 0.7), (str(folder), 0.3))


def crc32_by_step(workdir):
    return {
        record["step"]: record["data/rows_crc32"]
        for record in read_metrics(workdir / "metrics.jsonl")
        if "data/rows_crc32" in record
    }


@pytest.mark.slow
def test_two_stores_stopped_and_resumed_on_another_mesh_have_the_same_rows(
    launch, linear, stores, tmp_path, monkeypatch
):
    launch("--config.train.steps=8", "--config.checkpoint.every_steps=4", store=stores)
    whole = crc32_by_step(tmp_path / "run")
    assert len(whole) == 8
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "8")
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    launch("--config.train.steps=8", "--config.mesh.data=2", "--config.mesh.fsdp=4", store=stores)
    assert crc32_by_step(tmp_path / "run") == {step: whole[step] for step in range(5, 9)}


def test_stores_may_move_but_weights_and_their_order_may_not_change(launch, untrained, stores, store, tmp_path):
    launch(store=stores)
    config = changes.to_plain(fields.change(load_recipe(RECIPE), {"data.store": stores}))
    meta = Meta(6, config, open_stores(stores).hash, index_of(store), {}, {})
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", keep=5)
    leaf = {"kernel": jnp.ones(3)}
    checkpoints.save(State(jnp.int32(6), leaf, leaf, leaf), meta)
    checkpoints.close()
    moved = Path(shutil.copytree(stores[1][0], tmp_path / "moved"))
    launch(store=(stores[0], (str(moved), 0.3)))
    for other in ((stores[1], stores[0]), ((stores[0][0], 0.6), (stores[1][0], 0.4)), stores[0][0]):
        assert "same weights" in faults_of(lambda other=other: launch(store=other))["data.store"]
    launch("--allow_change=data.store", store=((stores[0][0], 0.6), (stores[1][0], 0.4)))


def test_every_store_that_is_not_there_is_named(launch, untrained, store):
    with pytest.raises(UserError) as error:
        launch(store=(("one", 0.5), (str(store), 0.3), ("two", 0.2)))
    assert [fault.value for fault in error.value.faults] == ["one", "two"]
    assert "--out two" in error.value.faults[1].remedy


def test_stores_of_another_rate_or_channels_are_refused(launch, untrained, stores, tmp_path):
    single = fields.change(load_recipe(RECIPE), {"data.channels": ("ppg",), "data.rate_hz": 100.0})
    prepare_store([parse_source("synthetic:84")], single, tmp_path / "single", progress=False)
    faults = faults_of(lambda: launch(store=(stores[0], (str(tmp_path / "single"), 0.3))))
    assert faults.keys() == {"data.rate_hz", "data.channels"}
    assert all(str(tmp_path / "single") in fault for fault in faults.values())
    assert untrained == []


def test_other_excluded_subjects_are_refused_on_resume_and_strangers_named(launch, untrained, store, tmp_path):
    save_checkpoint(tmp_path / "run", store)
    name = sorted(set(open_store(store).column("subject")))[0]
    (tmp_path / "left_out.csv").write_text(f"subject\n{name}\n")
    excluding = "--config.data.exclude_subjects=left_out.csv"
    assert faults_of(lambda: launch(excluding)).keys() == {"data.exclude_subjects"}
    launch(excluding, "--allow_change=data.exclude_subjects")
    (tmp_path / "left_out.csv").write_text(f"subject\n{name[:-1]}\n")
    assert "did you mean synthetic,seed0-subject" in faults_of(lambda: launch(excluding))["data.exclude_subjects"]


def test_the_workdir_says_what_its_encoder_has_seen_over_changes_and_starts(launch, untrained, store, stores, tmp_path):
    launch()
    own = read_seen(tmp_path / "run" / SEEN)
    data = open_run_data(load_recipe(RECIPE), str(store))
    np.testing.assert_array_equal(own.segment_N, data.seen().segment_N)
    launch(store=stores[1][0])  # nothing was saved: this run starts anew
    other = read_seen(tmp_path / "run" / SEEN)
    assert not np.isin(other.segment_N, own.segment_N).any()

    save_checkpoint(tmp_path / "run", Path(stores[1][0]))
    launch("--allow_change=data.store")
    both = read_seen(tmp_path / "run" / SEEN)
    assert both.complete
    np.testing.assert_array_equal(both.segment_N, own.unite(other).segment_N)

    (tmp_path / "export").mkdir()
    other.write(tmp_path / "export" / SEEN)
    for folder, complete in (("export", True), ("nowhere", False)):
        shutil.rmtree(tmp_path / "run")
        launch(f"--config.train.init_from={tmp_path / folder}")
        started = read_seen(tmp_path / "run" / SEEN)
        assert started.complete is complete
        assert started.segment_N.size == (both if complete else own).segment_N.size


def test_whole_run_leaves_what_it_promises_resumes_and_names_a_missing_item(launch, linear, tmp_path, capsys):
    result = launch("--config.train.steps=12")
    assert result["step"] == 12
    folder = tmp_path / "run"
    assert {"config.json", "metrics.jsonl", "checkpoints", "report.html"} <= {path.name for path in folder.iterdir()}
    assert not (folder / "lock").exists()
    assert json.loads((folder / "config.json").read_text())["train.steps"] == 12
    said = capsys.readouterr().err
    assert "run/report.html" in said
    assert "python tools/export_params.py --workdir run --out run/export" in said

    shutil.rmtree(folder / "checkpoints" / "12" / "optimizer")
    more = ("--config.train.steps=24", "--allow_change=train.steps")
    (fault,) = faults_of(lambda: launch(*more)).values()
    assert "optimizer" in fault
    assert "--from_step=6" in fault
    assert launch(*more, "--from_step=6")["resumed_from"] == 6
    assert (folder / "checkpoints_set_aside" / "12" / "params").is_dir()
    assert list_steps(folder / "checkpoints") == [18, 24]
    records = read_metrics(folder / "metrics.jsonl")
    assert [record["step"] for record in records if "train/loss" in record] == list(range(1, 25))
    assert [record["step"] for record in records if "eval/loss" in record] == [0, 12, 24]


def test_finished_run_started_again_says_so_and_touches_no_device(launch, untrained, store, tmp_path, caplog):
    save_checkpoint(tmp_path / "run", store, step=12, **{"train.steps": 12})
    with caplog.at_level("INFO"):
        assert launch("--config.train.steps=12")["step"] == 12
    assert untrained == []
    assert "all 12 steps were done before" in caplog.text


def test_task_without_a_probe_is_refused(launch, untrained):
    assert "eval.tasks" in faults_of(lambda: launch("--config.eval.tasks=('af',)"))


def test_synthetic_store_is_made_in_the_workdir_and_said_so(launch, untrained, tmp_path, caplog):
    launch(store="synthetic:96")
    assert "SYNTHETIC" in caplog.text
    made = (tmp_path / "run" / "store" / "manifest.json").stat().st_mtime_ns
    launch(store="synthetic:96")
    assert (tmp_path / "run" / "store" / "manifest.json").stat().st_mtime_ns == made
    assert untrained == [None, None]


def test_rows_of_a_run_are_those_of_its_order_on_any_mesh(store):
    config = load_recipe(RECIPE)
    data = open_run_data(config, store)
    read = {}
    for devices, axes in ((1, (1, 1, 1)), (8, (4, 2, 1))):
        feed = data.batches(make_mesh(*axes, jax.devices()[:devices]), 3)
        batch = next(feed)
        feed.close()
        assert batch.step == 3
        assert np.array_equal(np.asarray(batch.arrays["row_BM"])[0], data.rows(3))
        read[devices] = np.asarray(batch.arrays["segment_BMCT"])
    assert np.array_equal(read[1], read[8])
    records = data.describe(data.rows(3))
    assert len(records) == 2 * config.train.batch
    assert {"source", "recording", "start_s"} <= records[0].keys()


def test_default_workdir_is_named_after_the_recipe():
    assert run.recipe_name(["--config", "configs/quickstart.py:smoke"]) == "quickstart"
    assert run.recipe_name(["--config=configs/qualityfm_base.py", "--workdir", "x"]) == "qualityfm_base"


@pytest.mark.parametrize(
    ("recipe", "folder"),
    [
        ("configs/qualityfm_base.py", "qualityfm_base"),
        ("configs/qualityfm_base.py:smoke", "qualityfm_base-smoke"),
        ("configs/qualityfm_base.py:author,smoke", "qualityfm_base-author-smoke"),
        ("configs/qualityfm_base.py:tpu,fsdp,remat", "qualityfm_base"),  # settings of the machine go on with a run
        ("configs/qualityfm_base.py:smoke,gpu", "qualityfm_base-smoke"),
        ("configs/siamquality_resnet50.py:smoke", "siamquality_resnet50-smoke"),
    ],
)
def test_every_variant_of_a_recipe_has_a_workdir_of_its_own(repository, recipe, folder):
    config = load_recipe(str(repository / recipe))
    assert run.default_workdir(["--config", recipe], config) == Path("runs") / folder


def test_another_recipe_in_the_workdir_of_a_run_is_refused_in_one_line(launch, untrained, store, tmp_path):
    save_checkpoint(tmp_path / "run", store, **{"train.batch": 16, "train.seed": 3, "data.streams": 16})
    assert faults_of(launch).keys() == {"--config"}
    faults = faults_of(lambda: launch("--config.train.seed=4"))
    assert faults.keys() == {"--config", "train.seed"}
    assert untrained == []


@pytest.mark.slow
def test_real_processes_killed_at_random_continue_bit_for_bit(repository, store, tmp_path):
    line = ["--config", RECIPE, f"--config.data.store={store}", "--out", str(tmp_path / "soak"), "--kills", "3"]
    one_device = os.environ | {"XLA_FLAGS": xla_flags(1)}
    process = subprocess.run(
        [sys.executable, "tools/soak_resume.py", *line], capture_output=True, text=True, cwd=repository, env=one_device
    )
    assert process.returncode == 0, process.stderr
    said = json.loads(process.stdout)
    assert said["kills"] == 3
    assert said["identical"] is True
