"""A finished store that is extended: its shards and rows stay as they are, new ones follow them.

New tables, labels and manifest are written beside the old ones. Once the new manifest is there the addition is
decided, and takes effect file by file, the manifest last; whoever is ended meanwhile starts the same line again.

    base = open_base(out, config, key)
    store = base.extend(plan, parts, recordings, config)
"""

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from ml_collections import ConfigDict

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.assemble import assemble_store, write_json
from jaxbio.data.known_labels import find_known_labels
from jaxbio.data.labels import FOLDER, Label, list_labels, open_labels, write_labels
from jaxbio.data.pseudonyms import FLAG, SubjectKey
from jaxbio.data.recordings import Recording, Refused
from jaxbio.data.shard_plan import Plan, preparation_config
from jaxbio.data.shards import Part
from jaxbio.data.store import Store, open_store
from jaxbio.data.store_files import ADDITION, INDEX, MANIFEST, PARTS, RECORDINGS, TABLE


@dataclass(frozen=True)
class Base:
    """The finished store that is extended."""

    store: Store

    def leave_out_known(self, found: Sequence[Recording | Refused]) -> list[Recording | Refused]:
        """Return those of `found` that the store's account does not know, and say how many it does."""
        columns = pq.read_table(self.store.path / RECORDINGS, columns=["source", "recording"])
        known = set(zip(columns["source"].to_pylist(), columns["recording"].to_pylist(), strict=True))
        new = [entry for entry in found if (entry.source, entry.recording) not in known]
        logging.info("%d of %d recordings are in the store already", len(found) - len(new), len(found))
        return new

    def extend(self, plan: Plan, parts: Sequence[Part], recordings: Sequence[Recording], config: ConfigDict) -> Store:
        """Write what the new shards change and let it take effect; return the store as it then is."""
        folder, place = self.store.path, self.store.path / ADDITION
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        store = assemble_store(folder, plan, parts, config, base=self.store, place=place)
        write_labels(store, self._extend_labels(store, recordings))
        write_json(place / MANIFEST, store.manifest)
        finish_addition(folder)
        return open_store(folder)

    def _extend_labels(self, store: Store, recordings: Sequence[Recording]) -> list[Label]:
        """Return the store's labels over all rows: the old values, and what the sources know of the new rows."""
        known = {label.name: label for label in find_known_labels(store, recordings)}
        old = {label.name: label for label in open_labels(self.store, list_labels(self.store))}
        return [_join(old.get(name), known.get(name), name, store.rows) for name in sorted({*old, *known})]


def open_base(out: Path, config: ConfigDict, key: SubjectKey | None) -> Base:
    """Return the store in folder `out`, to be extended by what is prepared under `config`.

    Raises UserError where there is none, and where it was prepared with other settings or another key.
    """
    store = open_store(out)
    wanted, was = preparation_config(config), store.manifest["config"]
    # As JSON has them: a list and a tuple are the same.
    faults = [
        Fault(name, value, f"the store was prepared with {was.get(name)}: extend it with the same settings")
        for name, value in wanted.items()
        if (list(value) if isinstance(value, tuple) else value) != was.get(name)
    ]
    if store.manifest.get("subject_key") != (key.id if key else None):
        had = "another key" if "subject_key" in store.manifest and key else "one" if not key else "none"
        faults.append(Fault(FLAG, "another than before" if key else "none", f"the store was prepared with {had}"))
    if faults:
        raise UserError(*faults)
    return Base(store)


def finish_addition(out: Path) -> None:
    """Let an addition to the store in folder `out` that is decided take effect, and remove what it was made of."""
    place = out / ADDITION
    for name in (*(f"{FOLDER}/{path.name}" for path in (place / FOLDER).glob("[!.]*")), RECORDINGS, TABLE, MANIFEST):
        if (place / name).exists():
            (out / name).parent.mkdir(exist_ok=True)
            os.replace(place / name, out / name)
    for name in (PARTS, INDEX):  # pairs of the store as it was
        shutil.rmtree(out / name, ignore_errors=True)


def is_decided(out: Path) -> bool:
    """Whether an addition to the store in folder `out` waits to take effect."""
    return (out / ADDITION / MANIFEST).is_file()


def _join(old: Label | None, known: Label | None, name: str, rows: int) -> Label:
    """Return one label of old values, first, and those that are known; classes keep their codes, new ones follow."""
    classes = tuple(dict.fromkeys((*(old.classes if old else ()), *(known.classes if known else ()))))
    value_R = np.full(rows, np.nan, np.float32)
    if known is not None:
        value_R[:] = known.value_R
        if known.classes != classes:
            found_R = np.isfinite(known.value_R)
            place = np.array([classes.index(text) for text in known.classes], np.float32)
            value_R[found_R] = place[known.value_R[found_R].astype(np.int64)]
    if old is not None:
        value_R[: old.value_R.size] = old.value_R
    return Label(name, value_R, classes)
