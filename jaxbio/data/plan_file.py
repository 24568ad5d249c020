"""The plan as a file that all workers read, so that nobody lists an archive twice and all write parts of one store.

A zip file: `plan.json` says which plan it is, `outcomes` what headers alone have decided, and an entry a shard what is
written into it. A worker reads the shards that it writes.

    write_plan(path, plan)
    write_planned(out, 7, plan.hash)      # in any process of any machine
"""

import json
import pickle
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.own_pickles import dump, load
from jaxbio.data.recordings.mirror import Elsewhere, whole_folders
from jaxbio.data.regular_files import open_binary
from jaxbio.data.shard_plan import Block, Outcome, Plan, Settings
from jaxbio.data.shards import write_shard
from jaxbio.data.store_files import PARTS
from jaxbio.data.whole_files import whole_file

PLAN = "plan.zip"
_HEADER, _OUTCOMES = "plan.json", "outcomes"


def write_plan(path: Path, plan: Plan) -> None:
    """Write `plan` to `path` in one move."""
    known = {"hash": plan.hash, "first": plan.first, "shards": len(plan.shards), "config": plan.config}
    with (
        whole_file(path) as unfinished,
        zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
    ):
        file.writestr(_HEADER, json.dumps({**known, "settings": asdict(plan.settings)}))
        file.writestr(_OUTCOMES, dump([tuple(outcome) for outcome in plan.outcomes]))
        for number, blocks in enumerate(plan.shards):
            file.writestr(str(number), dump(blocks))


def read_plan(path: Path) -> Plan:
    """Return the plan in `path`; raises UserError where it cannot be read."""
    try:
        with open_binary(path) as opened, zipfile.ZipFile(opened) as file:
            known = json.loads(file.read(_HEADER))
            outcomes = tuple(Outcome(*outcome) for outcome in load(file.read(_OUTCOMES)))
            shards = tuple(load(file.read(str(number))) for number in range(known["shards"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise _unreadable(path, error) from None
    return Plan(_settings(known), shards, outcomes, known["config"], known["hash"], known["first"])


def write_planned(out: Path, number: int, plan_hash: str) -> None:
    """Write shard `number` of the plan that was begun in folder `out`.

    Raises UserError where that plan is not the one of this hash, and WriteError as `write_shard`.
    """
    path = out / PARTS / PLAN
    try:
        with open_binary(path) as opened, zipfile.ZipFile(opened) as file:
            known = json.loads(file.read(_HEADER))
            if known["hash"] != plan_hash:
                raise UserError(Fault("--out", str(out), "another plan has taken the place of this one: start again"))
            blocks: tuple[Block, ...] = load(file.read(str(number)))
    except (OSError, KeyError, json.JSONDecodeError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise _unreadable(path, error) from None
    place = Plan(_settings(known), ((),) * known["shards"], (), known["config"], known["hash"], known["first"])
    with whole_folders([Elsewhere(*at) for block in blocks if (at := block.recording.elsewhere)]):
        write_shard(out, place.shard_name(number), place.first + number, blocks, place.settings)


def _settings(known: dict[str, Any]) -> Settings:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in known["settings"].items()
    }
    return Settings(**values)


def _unreadable(path: Path, error: Exception) -> UserError:
    remedy = f"the plan of this preparation cannot be read ({error}): remove {path.parent} and start again"
    return UserError(Fault("--out", str(path), remedy))
