"""From which checkpoint a run goes on, and whether it may: found out before a device is touched.

meta = find_resume(workdir, config, allowed=("train.steps",))       # None: nothing to resume
check_same_data(meta, data.store_hash, data.index_hash, data.label_hashes, allowed)
"""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxbio.config import changes, fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.data.exclusion import FIELD as EXCLUDED
from jaxbio.training.checkpoint import Meta, list_steps, read_meta
from jaxbio.training.writers import METRICS, read_metrics

log = logging.getLogger(__name__)


def find_resume(
    workdir: Path,
    config: ConfigDict,
    allowed: Collection[str] = (),
    from_step: int | None = None,
    on_the_line: Collection[str] | None = None,
) -> Meta | None:
    """Return the meta of the newest checkpoint, or of `from_step`; None where the workdir holds none.

    Raises UserError when `from_step` is no checkpoint, when the meta is damaged, and for every science field that has
    changed since and is not `allowed`; in one fault, where they are another recipe's and not `on_the_line` themselves.
    """
    folder = (workdir / "checkpoints").absolute()
    steps = list_steps(folder)
    if from_step is not None and from_step not in steps:
        raise UserError(Fault("--from_step", from_step, f"no such checkpoint in {folder}; there are {steps}"))
    if not steps:
        return None
    meta = read_meta(folder, steps[-1] if from_step is None else from_step)
    recall_scales(config, meta.config)
    changed = changes.check_resume(meta.config, config, allowed, on_the_line)
    if changed:
        now = changes.to_plain(config)
        log.info("changed since the checkpoint: %s", ", ".join(f"{name} = {now.get(name)}" for name in changed))
    if meta.step > config.train.steps:
        raise UserError(Fault("train.steps", config.train.steps, f"checkpoint {meta.step} is past it: at least that"))
    if meta.step % config.train.steps_per_dispatch:
        remedy = f"make it a divisor of {meta.step}, the step of the checkpoint"
        raise UserError(Fault("train.steps_per_dispatch", config.train.steps_per_dispatch, remedy))
    return meta


def recall_scales(config: ConfigDict, saved: Mapping[str, Any]) -> None:
    """Give `config` the scales of features that were fitted when the `saved` run began, where it states none."""
    if config.data.features and not config.data.feature_scales:
        scales = tuple((centre, spread) for centre, spread in saved.get("data.feature_scales", ()))
        fields.change(config, {"data.feature_scales": scales})


def check_same_data(
    meta: Meta, store_hash: str, index_hash: str, label_hashes: Mapping[str, str], allowed: Collection[str] = ()
) -> None:
    """Raise UserError when the stores (they may lie elsewhere), their weights, the subjects left out, the index or the
    labels are not those that the checkpoint was trained on.

    Changed stores are allowed as data.store, and have labels of their own; other excluded subjects as
    data.exclude_subjects; a changed index as any of its own fields, which have been checked; changed values of a label
    as data.labels.
    """
    faults = []
    if store_hash != meta.store_hash and "data.store" not in allowed:
        remedy = f"its hash is {store_hash[:12]}, the checkpoint's {meta.store_hash[:12]}: other data; name the same "
        remedy += "store (several: in the same order, with the same weights), or add --allow_change=data.store"
        faults.append(Fault("data.store", "another store", remedy))
    rule, excluded, saved_rule, saved_excluded = *_parts(index_hash), *_parts(meta.index_hash)
    if excluded != saved_excluded and EXCLUDED not in allowed:
        remedy = "not those that the checkpoint was trained without: name the same, or add --allow_change="
        faults.append(Fault(EXCLUDED, "other subjects", remedy + EXCLUDED))
    index_allowed = any(name.split(".")[0] in ("pairs", "quality", "data", "prepare") for name in allowed)
    if rule != saved_rule and not index_allowed and not faults:
        remedy = f"its hash is {rule[:12]}, the checkpoint's {saved_rule[:12]}: other pairs; make the index "
        faults.append(Fault("pairs", "another index", remedy + "anew with tools/make_pairs.py"))
    if store_hash == meta.store_hash and "data.labels" not in allowed:
        remedy = "its values are not the checkpoint's: bring those back with tools/add_labels.py --replace, or add "
        for name in sorted(label_hashes.keys() & meta.label_hashes.keys()):
            if label_hashes[name] != meta.label_hashes[name]:
                faults.append(Fault("data.labels", name, remedy + "--allow_change=data.labels"))
    if faults:
        raise UserError(*faults)


def owes_evaluation(workdir: Path, meta: Meta) -> bool:
    """Tell whether the evaluation at the checkpoint was given up for a stop and has not been made up for since."""
    if not meta.evaluation_due:
        return False
    records = read_metrics(workdir / METRICS) if (workdir / METRICS).exists() else []
    return not any(record["step"] == meta.step and "eval/loss" in record for record in records)


def _parts(index_hash: str) -> tuple[str, str]:
    """Return the hash of the rule and that of the excluded subjects, "" where there are none."""
    rule, _, excluded = index_hash.partition("-")
    return rule, excluded
