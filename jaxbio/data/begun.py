"""What preparations in one folder have agreed on: the plan that was made there first, which all others follow.

One process makes it while the others wait; it lies in the folder of the parts until the store is finished.

    plan = settle_plan(out, request, make)
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.assemble import write_json
from jaxbio.data.folder_lock import hold, name_holder
from jaxbio.data.plan_file import PLAN, read_plan, write_plan
from jaxbio.data.regular_files import read_text
from jaxbio.data.shard_plan import Plan
from jaxbio.data.store_files import MANIFEST, PARTS

LISTING = "listing"
_BEGUN = "plan.json"
_PLANNING = "planning"
_ASK_AGAIN_S = 1.0


def settle_plan(out: Path, request: str, make: Callable[[], Plan]) -> Plan:
    """Return the plan of the preparation in folder `out`: the one begun there for this `request`, else a new one.

    Of processes that come together one calls `make`, and the others wait for it. Raises UserError where something else
    was begun, or lies, in the folder, and what `make` raises; then the folder is as it was.
    """
    parts = out / PARTS
    was_there = [folder for folder in (out, parts) if folder.exists()]
    try:
        with _planning(out):
            if (parts / _BEGUN).exists() and (parts / PLAN).exists() and f'"{request}"' in _begun(out):
                logging.info("going on with the plan in %s; remove it to list the sources anew", parts)
                return read_plan(parts / PLAN)
            plan = make()
            _check_same(out, plan)
            write_plan(parts / PLAN, plan)  # also where it was begun from other places, as in a folder that was moved
            _write_begun(out, plan, request)
            shutil.rmtree(parts / LISTING, ignore_errors=True)
            return plan
    except UserError:
        if not (parts / _BEGUN).exists():
            for folder in (parts / LISTING, parts / _PLANNING):
                shutil.rmtree(folder, ignore_errors=True)
            for folder in (parts, out):
                with contextlib.suppress(OSError):  # somebody else's things are in it
                    if folder not in was_there:
                        folder.rmdir()
        raise


def agree(out: Path, plan: Plan) -> None:
    """Say that `plan`, of recordings in memory, is begun in folder `out`.

    Raises UserError where another one was, or something else lies there.
    """
    _check_same(out, plan)
    if not (out / PARTS / _BEGUN).exists():
        _write_begun(out, plan, "")


def _check_same(out: Path, plan: Plan) -> None:
    """Raise UserError where another plan was begun in folder `out`, or it holds anything but what is extended."""
    if (out / PARTS / _BEGUN).exists():
        if plan.hash not in _begun(out):
            remedy = "a preparation of other recordings or settings was begun there: remove it, or name another folder"
            raise UserError(Fault("--out", str(out), remedy))
    elif not (out / MANIFEST).exists():
        strangers = [entry.name for entry in out.iterdir() if entry.name != PARTS]
        if strangers:
            raise UserError(Fault("--out", str(out), f"holds {strangers[0]!r}: name a new or empty folder"))


def _write_begun(out: Path, plan: Plan, request: str) -> None:
    write_json(out / PARTS / _BEGUN, {"plan": plan.hash, "request": request, "config": plan.config})


def _begun(out: Path) -> str:
    return read_text(out / PARTS / _BEGUN)


@contextlib.contextmanager
def _planning(out: Path) -> Iterator[None]:
    """Hold the right to make the plan; wait while another process has it."""
    folder = out / PARTS / _PLANNING
    folder.mkdir(parents=True, exist_ok=True)
    said = None
    while True:
        if holder := name_holder(folder):
            if holder != said:
                logging.info("%s makes the plan: waiting for it", holder)
            said = holder
            time.sleep(_ASK_AGAIN_S)
            continue
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(hold(folder, field="--out", named=out))
            except UserError:
                if name_holder(folder):  # somebody else was faster
                    continue
                raise
            yield
            return
