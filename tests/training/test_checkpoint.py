"""Checkpoints: kept, whole, checked to the bit, restored elsewhere. Small arrays; the loop's are in test_loop."""

import errno
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from simulated import xla_flags

from jaxbio.config.faults import UserError
from jaxbio.training import checkpoint, integrity
from jaxbio.training.checkpoint import (
    ITEMS,
    Checkpoints,
    Meta,
    list_steps,
    read_meta,
    restore_items,
    set_aside_after,
)
from jaxbio.training.state import State, leaf_paths


def small_state(step=5, placed=None):
    keys = jax.random.split(jax.random.key(step), 3)
    params = {"encoder": {"kernel": jax.random.normal(keys[0], (64, 96)), "bias": jnp.ones(8, jnp.bfloat16)}}
    opt_state = ({"mu": params, "count": jnp.int32(step)}, None, [jnp.arange(4), jnp.zeros((), jnp.bool_)])
    objective_state = {"teacher": {"encoder": {"kernel": jax.random.normal(keys[1], (64, 96))}}}
    state = State(jnp.int32(step), params, opt_state, objective_state)
    return state if placed is None else jax.device_put(state, placed)


def abstract_of(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def meta_of(step, best=None):
    return Meta(step, {"train.steps": 9}, "store", "index", {"step_s": 1.5}, {"jax": "0"}, nonfinite=2, best=best)


def same(left, right):
    found, wanted = leaf_paths(left), leaf_paths(right)
    return found.keys() == wanted.keys() and all(
        np.asarray(found[path]).tobytes() == np.asarray(wanted[path]).tobytes() for path in wanted
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def checkpoints(folder):
    opened = Checkpoints(folder, keep=2)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with checkpoints 5 and 9, and the state of 9."""
    workdir = tmp_path_factory.mktemp("saved")
    made = Checkpoints(workdir / "checkpoints", keep=2)
    for step in (5, 9):
        made.save(small_state(step), meta_of(step))
    made.close()
    return workdir


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of `saved` to be damaged."""
    shutil.copytree(saved / "checkpoints", tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def test_restored_state_equals_the_saved_one_in_every_bit_and_its_structure(checkpoints):
    state = small_state()
    checkpoints.save(state, meta_of(5))
    checkpoints.wait()
    restored, meta = checkpoints.restore(abstract_of(state), 5)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert same(restored, state)
    assert (meta.step, meta.nonfinite, meta.clock, meta.store_hash) == (5, 2, {"step_s": 1.5}, "store")


def test_state_may_be_donated_as_soon_as_save_returns(checkpoints):
    state = small_state()
    expected = jax.tree.map(np.array, state)
    checkpoints.save(state, meta_of(5))
    overwrite = jax.jit(lambda tree: jax.tree.map(jnp.zeros_like, tree), donate_argnums=0)
    jax.block_until_ready(overwrite(state))
    checkpoints.wait()
    assert same(checkpoints.restore(abstract_of(expected_like(expected)), 5)[0], expected)


def expected_like(tree):
    return jax.tree.map(jnp.asarray, tree)


def test_restores_onto_another_mesh(checkpoints):
    def placed(shape, spec):
        mesh = jax.make_mesh(
            shape, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[: shape[0] * shape[1]]
        )
        whole = NamedSharding(mesh, PartitionSpec())
        return jax.tree.map(
            lambda leaf: NamedSharding(mesh, spec) if leaf.shape == (64, 96) else whole, abstract_of(small_state())
        )

    state = small_state(placed=placed((8, 1), PartitionSpec("data")))
    checkpoints.save(state, meta_of(5))
    checkpoints.wait()
    elsewhere = abstract_of(small_state(placed=placed((2, 2), PartitionSpec(None, "fsdp"))))
    restored, _ = checkpoints.restore(elsewhere, 5)
    assert same(restored, state)
    kernel = restored.params["encoder"]["kernel"]
    assert kernel.sharding == elsewhere.params["encoder"]["kernel"].sharding
    assert len(kernel.sharding.device_set) == 4


def test_objective_without_state_is_saved_too(checkpoints):
    state = small_state()
    empty = State(state.step, state.params, state.opt_state, {})
    checkpoints.save(empty, meta_of(5))
    checkpoints.wait()
    assert checkpoints.restore(abstract_of(empty), 5)[0].objective_state == {}


def test_keeps_the_newest_the_multiples_and_the_best(folder):
    kept = Checkpoints(folder, keep=2, keep_every_steps=4, best_metric="eval/loss")
    for step, best in ((2, 0.9), (3, 0.1), (4, 0.5), (5, 0.4), (6, 0.6), (7, None)):
        kept.save(small_state(step), meta_of(step, best))
    kept.close()
    assert list_steps(folder) == [3, 4, 6, 7]


def test_a_metric_that_is_no_number_is_never_the_best(folder):
    kept = Checkpoints(folder, keep=1, keep_every_steps=None, best_metric="eval/loss")
    for step, best in ((2, 0.9), (3, 0.1), (4, np.nan), (5, 0.4), (6, np.inf)):
        kept.save(small_state(step), meta_of(step, best))
    kept.close()
    assert list_steps(folder) == [3, 6]


def test_reading_without_a_trainer_gives_nested_numpy_arrays(saved):
    step, items, meta = restore_items(saved, ("params", "objective", "optimizer"))
    state = small_state(9)
    assert step == meta.step == 9
    assert isinstance(items["params"]["encoder"]["kernel"], np.ndarray)
    assert same(items["params"], state.params)
    assert same(items["objective"], state.objective_state)
    assert same(items["optimizer"], state.opt_state)
    assert restore_items(saved, step=5)[0] == 5
    for workdir, step in ((saved, 7), (saved / "nothing", None)):
        with pytest.raises(UserError, match="no checkpoint"):
            restore_items(workdir, step=step)


@pytest.mark.parametrize("name", ["a[1]", "[!a]*?", "50%20x#3|b?y", "layers=[2,4], é @:&"])
def test_any_folder_name_is_saved_restored_and_read(name, tmp_path):
    workdir = tmp_path / name / "run[0]"
    checkpoints = Checkpoints(workdir / "checkpoints", keep=2)
    checkpoints.save(small_state(5), meta_of(5))
    checkpoints.close()
    again = Checkpoints(workdir / "checkpoints", keep=2)
    assert same(again.restore(abstract_of(small_state(5)), 5)[0], small_state(5))
    again.close()
    step, items, _ = restore_items(workdir)
    assert step == 5
    assert same(items["params"], small_state(5).params)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]  # nothing beside it, as under a name cut short


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_one_flipped_bit_in_any_file_is_named_and_the_checkpoint_before_offered(copied):
    checkpoints = Checkpoints(copied, keep=2)
    abstract, rng = abstract_of(small_state(9)), random.Random(0)
    files = [path for path in sorted((copied / "9").rglob("*")) if path.is_file()]
    assert len(files) > 20
    for path in files:
        whole = path.read_bytes()
        flip(path, rng.randrange(8 * len(whole)))
        name = path.relative_to(copied / "9")
        with pytest.raises(UserError) as found:
            checkpoints.restore(abstract, 9)
        (fault,) = found.value.faults
        item = name.parts[0]
        assert item in ITEMS or len(name.parts) == 1
        assert item in str(fault.value), f"{name}: {fault}"
        assert "--from_step=5" in fault.remedy
        path.write_bytes(whole)
    assert same(checkpoints.restore(abstract, 9)[0], small_state(9))
    checkpoints.close()


def test_flipped_bit_in_a_value_names_its_leaf(copied):
    """Also without the checksums of files, as after a kill right behind the last write."""
    checkpoints = Checkpoints(copied, keep=2)
    abstract = abstract_of(small_state(9))
    largest = max((copied / "9" / "params").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    flip(largest, 8 * largest.stat().st_size // 2)
    for sealed in (True, False):
        if not sealed:
            (copied / "9" / integrity.SEAL).unlink()
        with pytest.raises(UserError, match="params encoder/kernel"):
            checkpoints.restore(abstract, 9)
        with pytest.raises(UserError, match=r"params encoder/kernel|DATA_LOSS"):
            restore_items(copied.parent)
    checkpoints.close()


def test_value_that_orbax_restores_silently_is_found_by_its_sum(copied):
    """A whole, readable checkpoint whose values are not the saved ones: swap the item of another step in."""
    shutil.rmtree(copied / "9" / "objective")
    shutil.copytree(copied / "5" / "objective", copied / "9" / "objective")
    (copied / "9" / integrity.SEAL).unlink()
    checkpoints = Checkpoints(copied, keep=2)
    with pytest.raises(UserError, match=r"objective state/teacher/encoder/kernel.*sum of its bits"):
        checkpoints.restore(abstract_of(small_state(9)), 9)
    checkpoints.close()


@pytest.mark.parametrize("item", ITEMS)
def test_missing_item_is_named(copied, item):
    shutil.rmtree(copied / "9" / item)
    checkpoints = Checkpoints(copied, keep=2)
    with pytest.raises(UserError, match=f"{item}.*the item is missing.*--from_step=5"):
        checkpoints.restore(abstract_of(small_state(9)), 9)
    checkpoints.close()


def test_half_written_checkpoint_is_never_picked_and_cleared_away(copied):
    half = copied / "12.orbax-checkpoint-tmp"
    shutil.copytree(
        copied / "9", half, ignore=shutil.ignore_patterns("commit_success.txt", integrity.SEAL, "optimizer")
    )
    assert list_steps(copied) == [5, 9]
    checkpoints = Checkpoints(copied, keep=2)
    checkpoints.save(small_state(12), meta_of(12))
    checkpoints.close()
    assert not half.exists()
    assert list_steps(copied) == [9, 12]


def test_setting_aside_keeps_what_is_newer(copied):
    assert set_aside_after(copied, 5) == [9]
    assert list_steps(copied) == [5]
    assert read_meta(copied.parent / "checkpoints_set_aside", 9).step == 9


def test_checkpoint_of_another_model_is_refused_by_leaf(copied):
    state = small_state(9)
    other = State(state.step, {"encoder": {"weights": jnp.zeros(3)}}, state.opt_state, state.objective_state)
    checkpoints = Checkpoints(copied, keep=2)
    with pytest.raises(UserError, match="params encoder/weights is not in the checkpoint"):
        checkpoints.restore(abstract_of(other), 9)
    checkpoints.close()


def test_checkpoint_of_a_head_of_other_classes_is_refused_by_shape(copied):
    state = small_state(9)
    first = next(iter(leaf_paths(state.params)))
    wider = jax.tree.map(lambda x: jnp.zeros((*x.shape[:-1], x.shape[-1] + 1), x.dtype), state.params)
    checkpoints = Checkpoints(copied, keep=2)
    with pytest.raises(UserError, match=f"params {first} has the shape .* in this run.*: resume with the model"):
        checkpoints.restore(abstract_of(State(state.step, wider, state.opt_state, state.objective_state)), 9)
    checkpoints.close()


def save_and_poll(checkpoints, step):
    checkpoints.save(small_state(step), meta_of(step))
    until = time.monotonic() + 30
    while time.monotonic() < until:  # as the loop does at every boundary
        checkpoints.poll()


def test_full_disk_surfaces_before_the_next_save_and_the_last_whole_one_stays(checkpoints, folder):
    """The limit on file sizes stands in for the disk: both make the writing threads' writes fail."""
    checkpoints.save(small_state(5), meta_of(5))
    checkpoints.wait()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(UserError, match=r"not saved.*newest whole checkpoint is 5"):
            save_and_poll(checkpoints, 6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list_steps(folder) == [5]
    assert same(checkpoints.restore(abstract_of(small_state(5)), 5)[0], small_state(5))


@pytest.mark.parametrize(
    ("number", "advice", "room"),
    [
        (errno.ENOSPC, "make room", True),
        (errno.EDQUOT, "make room", True),
        (errno.EMFILE, "ulimit -n", False),
        (errno.EOPNOTSUPP, "its file system cannot do that", False),
        (errno.EIO, "the disk or its mount fails", False),
        (errno.EACCES, "right to read and write", False),
    ],
)
def test_a_save_that_fails_asks_for_room_only_where_room_is_wanted(checkpoints, number, advice, room):
    said = str(checkpoints._not_saved(6, OSError(number, os.strerror(number))))
    assert advice in said
    assert said.endswith("start again")
    assert ("room" in said, "MiB free" in said) == (room, room)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "uint32", "bool"])
def test_sum_of_bits_is_the_same_on_device_and_host_and_sees_every_bit(dtype):
    rng = np.random.default_rng(0)
    array = np.asarray(jnp.asarray(rng.integers(0, 2, 300)).astype(dtype))
    (device,) = integrity.sum_bits({"leaf": jnp.asarray(array)}).values()
    assert device == integrity.sum_bits_host(array)
    for bit in rng.integers(0, 8 * array.nbytes, 50) if dtype != "bool" else ():
        flipped = bytearray(array.tobytes())
        flipped[bit // 8] ^= 1 << bit % 8
        assert integrity.sum_bits_host(np.frombuffer(bytes(flipped), array.dtype)) != device


@pytest.mark.slow
def test_bench_checkpoint_prints_one_line_and_leaves_nothing(repository, tmp_path):
    small = {"model.width": 100, "model.layers": 1, "data.channels": "('ppg',)", "data.segment_s": 10.0}
    command = [sys.executable, "tools/bench_checkpoint.py", "--config", "configs/qualityfm_base.py"]
    command += ["--out", str(tmp_path / "disk"), "--repeats", "2"]
    command += [f"--config.{name}={value}" for name, value in small.items()]
    one_device = os.environ | {"XLA_FLAGS": xla_flags(1)}
    done = subprocess.run(command, cwd=repository, env=one_device, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["bytes"] > 4 * 3 * 100_000  # parameters and two moments of a hundred thousand, at least
    assert 0 < line["blocked_s"] < line["saved_s"]
    assert line["saved_gb_per_s"] == pytest.approx(line["bytes"] / line["saved_s"] / 1e9)
    assert list((tmp_path / "disk").iterdir()) == []


def test_the_files_of_a_checkpoint_are_read_by_several_once_each(copied, monkeypatch):
    read = []
    whole = integrity._checksum
    monkeypatch.setattr(integrity, "_checksum", lambda path: read.append(path) or whole(path))
    assert [integrity.find_broken_files(copied / "9", share, 3) for share in range(3)] == [[], [], []]
    sealed = json.loads((copied / "9" / integrity.SEAL).read_text())["files"]
    assert sorted(str(path.relative_to(copied / "9")) for path in read) == sorted(sealed)
    assert len(read) > 3


def test_a_broken_file_is_found_by_one_of_several_and_a_missing_one_by_all(copied):
    flipped, gone = sorted(path for path in (copied / "9" / "params").rglob("*") if path.is_file())[:2]
    flip(flipped, 0)
    gone.unlink()
    found = [integrity.find_broken_files(copied / "9", share, 3) for share in range(3)]
    names = [str(path.relative_to(copied / "9")) for path in (flipped, gone)]
    assert sorted(len(broken) for broken in found) == [1, 1, 2]
    assert all(names[1] in broken for broken in found)
    assert sorted(set().union(*found)) == sorted(names)


@pytest.mark.parametrize("process", [0, 1])
def test_what_one_process_finds_broken_is_named_by_all(copied, monkeypatch, process):
    """This one is `process` of two; the other, which read its share, is stood in for."""
    broken = next(path for path in sorted((copied / "9" / "params").rglob("*")) if path.is_file())
    flip(broken, 0)
    monkeypatch.setattr(jax, "process_index", lambda: process)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    found = [bool(integrity.find_broken_files(copied / "9", share, 2)) for share in range(2)]
    assert sorted(found) == [False, True]
    monkeypatch.setattr(checkpoint.multihost_utils, "process_allgather", lambda whole: ~np.array(found))
    with pytest.raises(UserError, match=str(broken.relative_to(copied / "9"))):
        checkpoint._check_files_together(copied, 9)
