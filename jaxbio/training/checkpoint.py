"""Checkpoints of a run: `checkpoints/<step>` with the items params, optimizer, objective and meta, through Orbax.

Saving is asynchronous; `poll` at every step boundary surfaces what went wrong in the background. A checkpoint is
visible only when it is whole. What is restored is checked to the bit (see `integrity`).

    checkpoints = Checkpoints(workdir / "checkpoints", keep=3)
    checkpoints.save(state, meta)
    state, meta = checkpoints.restore(program.abstract, step)
"""

import json
import logging
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from jax.experimental import multihost_utils

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.refusals import NO_ROOM, advise, error_number
from jaxbio.data.regular_files import read_text
from jaxbio.training import integrity
from jaxbio.training.orbax_path import LiteralPath
from jaxbio.training.state import State, leaf_paths

ARRAY_ITEMS = ("params", "optimizer", "objective")
ITEMS = (*ARRAY_ITEMS, "meta")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Meta:
    """What a checkpoint says of itself.

    `step` steps are done; `config` is the resolved configuration (plain), `store_hash`, `index_hash` and, by label,
    `label_hashes` say on which data, `clock` holds the totals of the run (seconds, pairs), `versions` those of the
    packages, `nonfinite` the updates refused so far, `best` the value of checkpoint.best_metric, `sums` the sum of bits
    by item and leaf, `frozen` the cards of the networks that the objective uses and does not train, by name, and
    `evaluation_due` that the evaluation at this step was given up for a stop.
    """

    step: int
    config: dict[str, Any]
    store_hash: str
    index_hash: str
    clock: dict[str, float]
    versions: dict[str, str]
    nonfinite: int = 0
    best: float | None = None
    label_hashes: dict[str, str] = field(default_factory=dict)
    sums: dict[str, dict[str, int]] = field(default_factory=dict)
    frozen: dict[str, dict[str, Any]] = field(default_factory=dict)
    evaluation_due: bool = False


class Checkpoints:
    """The checkpoints of one workdir.

    Kept are the newest `keep`, the multiples of `keep_every_steps`, and the one whose `best_metric` is smallest.
    """

    def __init__(self, folder: Path, *, keep: int, keep_every_steps: int | None = None, best_metric: str | None = None):
        policies: list[Any] = [ocp.checkpoint_managers.LatestN(keep)]
        if keep_every_steps is not None:
            policies.append(ocp.checkpoint_managers.EveryNSteps(keep_every_steps))
        if best_metric is not None:
            best = ocp.checkpoint_managers.BestN(
                get_metric_fn=lambda metrics: metrics["best"], reverse=True, n=1, keep_checkpoints_without_metrics=False
            )
            policies.append(best)
        self.folder = folder.absolute()
        self._by_metric = best_metric is not None
        self._manager = ocp.CheckpointManager(
            LiteralPath(self.folder),
            item_names=ITEMS,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
                async_options=ocp.options.AsyncOptions(barrier_sync_fn=_meet_unless_failed),
            ),
        )
        self._sealer = ThreadPoolExecutor(1, thread_name_prefix="seal")
        self._saving: int | None = None
        self._sealing: Future[None] | None = None

    def save(self, state: State, meta: Meta) -> None:
        """Start saving `state`; return when it may be donated. Raises UserError when this or the last save failed."""
        self.wait()
        items = _items(state)
        sums = {name: integrity.sum_bits(tree) for name, tree in items.items()}
        content = asdict(meta) | {"sums": sums}
        args: dict[str, Any] = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        args["meta"] = ocp.args.JsonSave({"content": content, "crc32": integrity.checksum_json(content)})
        best = meta.best if meta.best is not None and math.isfinite(meta.best) else None  # no number is none to sort by
        metrics = {"best": best} if self._by_metric and best is not None else None
        try:
            self._manager.save(meta.step, args=ocp.args.Composite(**args), metrics=metrics, force=True)
        except OSError as error:
            raise self._not_saved(meta.step, error) from error
        self._saving = meta.step

    def poll(self) -> None:
        """Finish what the background has done, without waiting for it. Raises UserError when a save failed."""
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self._finish_save()
        if self._sealing is not None and self._sealing.done():
            self._finish_seal()

    def wait(self) -> None:
        """Wait until the last save is whole and sealed. Raises UserError when it failed."""
        if self._saving is not None:
            self._finish_save()
        if self._sealing is not None:
            self._finish_seal()

    def close(self) -> None:
        """Wait for the background and release it."""
        try:
            self.wait()
        finally:
            self._sealer.shutdown()
            self._manager.close()

    def restore(self, abstract: State, step: int) -> tuple[State, Meta]:
        """Return the state of `step`, placed as `abstract` says (shapes, dtypes, shardings), and its meta.

        Of several processes each reads a share of the files to check them, and all learn what one finds. Raises
        UserError, naming item and leaf and offering the checkpoint before, when an item is missing, a file or a
        restored value differs from what was saved, or the saved leaves are not those of `abstract`, or of other shapes.
        """
        meta = _check_files_together(self.folder, step)
        wanted = _items(abstract)
        _check_leaves(self.folder, step, meta, wanted)
        args = {name: ocp.args.StandardRestore(tree) for name, tree in wanted.items()}
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:  # Orbax and TensorStore raise many kinds for bytes they cannot read
            _check_shapes(self.folder, step, wanted)
            raise _damaged(self.folder, step, _name_damage(self.folder, step, meta), str(error)) from error
        items = {name: restored[name] for name in ARRAY_ITEMS}
        broken = [
            f"{name} {leaf}"
            for name in ARRAY_ITEMS
            for leaf, found in integrity.sum_bits(items[name]).items()
            if found != meta.sums[name][leaf]
        ]
        if broken:
            _check_shapes(self.folder, step, wanted)  # Orbax fills or cuts what has another shape
            raise _damaged(self.folder, step, broken, "the sum of its bits differs from what was saved")
        number = jax.device_put(np.int32(meta.step), abstract.step.sharding)
        params = _unnest(items["params"], abstract.params)
        opt_state = _unnest(items["optimizer"]["state"], abstract.opt_state)
        return State(number, params, opt_state, _unnest(items["objective"]["state"], abstract.objective_state)), meta

    def _finish_save(self) -> None:
        step, self._saving = self._saving, None
        assert step is not None
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # as above: whatever the writing threads met
            raise self._not_saved(step, error) from error
        if jax.process_index() == 0:
            self._sealing = self._sealer.submit(integrity.seal, self.folder / str(step))

    def _finish_seal(self) -> None:
        sealing, self._sealing = self._sealing, None
        assert sealing is not None
        try:
            sealing.result()
        except OSError as error:
            raise self._not_saved(int(self._manager.latest_step() or 0), error) from error

    def _not_saved(self, step: int, error: BaseException) -> UserError:
        try:
            whole = [found for found in list_steps(self.folder) if found != step]
            left = f"the newest whole checkpoint is {whole[-1]}" if whole else "there is no checkpoint yet"
        except OSError as unlisted:  # as where no file can be opened any more
            left = f"earlier ones cannot be listed ({unlisted.strerror})"
        reason = " ".join(str(error).split())[:300]
        if error_number(error) in NO_ROOM:
            reason += f" ({shutil.disk_usage(self.folder).free / 2**20:.0f} MiB free on that disk)"
        remedy = f"{reason}; {left}: {advise(error)} and start again"
        return UserError(Fault(str(self.folder / str(step)), "not saved", remedy))


def _meet_unless_failed(*, key: str, timeout_ms: int) -> None:
    """Be the barrier of Orbax's background threads, but let one with an error pass, so that its process can tell.

    Orbax has a thread that could not write wait for the other processes, which wait for what it should have written.
    """
    if sys.exc_info()[0] is None:
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def list_steps(folder: Path) -> list[int]:
    """Return the steps of the whole checkpoints in `folder`, rising; half-written ones have another name."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdecimal())


def read_meta(folder: Path, step: int) -> Meta:
    """Read what checkpoint `step` says of itself. Raises UserError when that is missing or damaged."""
    path = folder / str(step) / "meta" / "metadata"
    if not path.parent.is_dir():
        raise _damaged(folder, step, ["meta"], "the item is missing")
    try:
        saved = json.loads(read_text(path))
        intact = set(saved) == {"content", "crc32"} and integrity.checksum_json(saved["content"]) == saved["crc32"]
    except (OSError, ValueError, TypeError):
        intact = False
    if not intact:
        raise _damaged(folder, step, ["meta metadata"], "its bits differ from what was saved")
    return Meta(**saved["content"])


def check_files(folder: Path, step: int, share: int = 0, shares: int = 1) -> Meta:
    """Check that checkpoint `step` has all items and that every file is what was sealed; return its meta.

    Of `shares` callers each reads the files of its own `share`. Raises UserError naming items, leaves and files.
    """
    missing = [name for name in ITEMS if not (folder / str(step) / name).is_dir()]
    if missing:
        raise _damaged(folder, step, missing, "the item is missing")
    meta = read_meta(folder, step)
    broken = integrity.find_broken_files(folder / str(step), share, shares)
    if broken is None:
        log.warning("checkpoint %d was never sealed (its process was killed right after); values are checked", step)
    elif broken:
        leaves = _name_damage(folder, step, meta)
        items = sorted({name.split("/")[0] for name in broken})
        where = leaves or [f"{item} (the values of its leaves are whole)" for item in items]
        raise _damaged(folder, step, where, f"changed since it was saved: {', '.join(broken)}")
    return meta


def _check_files_together(folder: Path, step: int) -> Meta:
    """As `check_files`, a share of the files in each process; what one finds is an error of all."""
    process, processes = jax.process_index(), jax.process_count()
    if processes == 1:
        return check_files(folder, step)
    error = None
    try:
        meta = check_files(folder, step, process, processes)
    except UserError as found:
        error = found
    whole_P = np.asarray(multihost_utils.process_allgather(np.bool_(error is None)))
    if error is not None:
        raise error
    if not whole_P.all():
        check_files(folder, step)  # all of them, to say which
        where = [f"what process {other} read" for other in np.flatnonzero(~whole_P)]
        raise _damaged(folder, step, where, "the same files are whole on this host: a disk or a network that errs")
    return meta


def restore_items(
    workdir: Path, items: Sequence[str] = ("params", "objective"), step: int | None = None
) -> tuple[int, dict[str, Any], Meta]:
    """Read `items` of a checkpoint (default the newest) without a trainer: nested dictionaries of NumPy arrays.

    Raises UserError for a workdir without checkpoints, and for damage as `Checkpoints.restore` does.
    """
    folder = (Path(workdir) / "checkpoints").absolute()
    steps = list_steps(folder)
    if not steps or (step is not None and step not in steps):
        missing = f"no checkpoint {step} in it; there are {steps}" if steps else "no checkpoint in it: is it a run's?"
        raise UserError(Fault("--workdir", str(workdir), missing))
    step = steps[-1] if step is None else step
    meta = check_files(folder, step)
    found = {}
    for name in items:
        leaves = {leaf: _read_leaf(folder / str(step) / name, leaf) for leaf in meta.sums[name]}
        broken = [
            f"{name} {leaf}"
            for leaf, array in leaves.items()
            if integrity.sum_bits_host(array) != meta.sums[name][leaf]
        ]
        if broken:
            raise _damaged(folder, step, broken, "the sum of its bits differs from what was saved")
        tree = _nest(leaves)
        found[name] = tree if name == "params" else tree.get("state", {})
    return step, found, meta


def set_aside_after(folder: Path, step: int) -> list[int]:
    """Move the checkpoints after `step` into `checkpoints_set_aside/`, so that a run can go on from `step`.

    Returns their steps.
    """
    later = [found for found in list_steps(folder) if found > step]
    for found in later:
        target = folder.parent / "checkpoints_set_aside" / str(found)
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        (folder / str(found)).rename(target)
    return later


def _items(state: State) -> dict[str, Any]:
    """Return the array items as nested dictionaries; Orbax takes no empty item, hence the level `state`."""
    optimizer, objective = _nest(leaf_paths(state.opt_state)), _nest(leaf_paths(state.objective_state))
    return {
        "params": _nest(leaf_paths(state.params)),
        "optimizer": {"state": optimizer},
        "objective": {"state": objective},
    }


def _read_leaf(item: Path, leaf: str) -> np.ndarray:
    """Read one leaf of an item."""
    return np.asarray(_open_leaf(item, leaf).read().result())


def _open_leaf(item: Path, leaf: str) -> Any:
    """Open one leaf of an item as Orbax laid it down: zarr arrays in an OCDBT store, named by their path."""
    base = {"driver": "file", "path": f"{item}/"}  # no file:// address, in which # ? % and | have a meaning
    kvstore = {"driver": "ocdbt", "base": base, "path": leaf.replace("/", ".") + "/"}
    return ts.open({"driver": "zarr", "kvstore": kvstore}).result()


def _nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested dictionaries of leaves that are named by path."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *nodes, name = path.split("/")
        node = tree
        for key in nodes:
            node = node.setdefault(key, {})
        node[name] = leaf
    return tree


def _unnest(nested: Mapping[str, Any], like: Any) -> Any:
    """Return the leaves of `nested` in the structure of the tree `like`."""
    leaves = leaf_paths(nested)
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[path] for path in leaf_paths(like)])


def _check_leaves(folder: Path, step: int, meta: Meta, wanted: Mapping[str, Any]) -> None:
    """Raise UserError when the saved leaves are not the wanted ones: another model, objective or optimizer."""
    differences = []
    for name, tree in wanted.items():
        saved, needed = set(meta.sums[name]), set(leaf_paths(tree))
        differences += [f"{name} {leaf} is not in the checkpoint" for leaf in sorted(needed - saved)]
        differences += [f"{name} {leaf} is not in this run" for leaf in sorted(saved - needed)]
    _refuse_differences(folder, step, differences)


def _check_shapes(folder: Path, step: int, wanted: Mapping[str, Any]) -> None:
    """Raise UserError when saved leaves have other shapes than the wanted ones, such as a head of other classes."""
    differences = []
    for name, tree in wanted.items():
        for leaf, needed in leaf_paths(tree).items():
            try:
                saved = tuple(_open_leaf(folder / str(step) / name, leaf).shape)
            except Exception:  # a leaf that cannot be opened is damaged, which is said elsewhere
                continue
            if saved != needed.shape:
                differences.append(f"{name} {leaf} has the shape {saved} in the checkpoint, {needed.shape} in this run")
    _refuse_differences(folder, step, differences)


def _refuse_differences(folder: Path, step: int, differences: list[str]) -> None:
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError(
            Fault(str(folder / str(step)), "; ".join(differences[:3]) + more, "resume with the model it was saved from")
        )


def _name_damage(folder: Path, step: int, meta: Meta) -> list[str]:
    """Return `item leaf` of every leaf that cannot be read or whose bits are not the saved ones, reading one by one."""
    broken = []
    for name in ARRAY_ITEMS:
        for leaf, expected in meta.sums[name].items():
            try:
                whole = integrity.sum_bits_host(_read_leaf(folder / str(step) / name, leaf)) == expected
            except Exception:  # any failure to read it is what is looked for
                whole = False
            if not whole:
                broken.append(f"{name} {leaf}")
    return broken


def _damaged(folder: Path, step: int, where: list[str], reason: str) -> UserError:
    before = [found for found in list_steps(folder) if found < step]
    remedy = (
        f"go on from the checkpoint before with --from_step={before[-1]}"
        if before
        else "there is none before it; start in a new --workdir"
    )
    shown = ", ".join(where[:5]) + (f" and {len(where) - 5} more" if len(where) > 5 else "")
    return UserError(
        Fault(f"checkpoint {folder / str(step)}", shown, f"damaged: {' '.join(reason.split())[:300]}; {remedy}")
    )
