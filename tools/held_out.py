"""What a finished run's held-out terms are on another store: another sensor, hospital or length of segment.

python tools/held_out.py --workdir runs/tokenizer --store runs/ring_store
python tools/held_out.py --workdir runs/tokenizer --store runs/icu_store --store runs/ring_store --batch 8

The loss and its terms are those that the run itself evaluates, under the same keys: "eval/" of metrics.jsonl. Every
pair of a store counts, of whatever split, but for segments and subjects that the run has learnt from. A store of
shorter segments than the run's is seen as it is, where the encoder can. The last line, JSON, has the terms by store.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

from jaxbio.config import changes, fields
from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.data.seen import SEEN, read_seen
from jaxbio.data.several import open_stores


def main(arguments: Sequence[str]) -> dict:
    """Evaluate the newest checkpoint on every store and return the terms by store."""
    flags = parse_flags(arguments)
    stores = {name: open_stores(name) for name in flags.store}
    # JAX only after the stores are found: a wrong path answers at once.
    from jaxbio.export.frozen import recall_networks
    from jaxbio.objectives import make_objective
    from jaxbio.training.checkpoint import restore_items
    from jaxbio.training.devices import check_devices
    from jaxbio.training.other_store import evaluate_on

    check_devices()
    step, items, meta = restore_items(flags.workdir)
    networks, seen = recall_networks(meta.frozen), read_seen(flags.workdir / SEEN)
    found = {}
    for name, opened in stores.items():
        config = changes.from_plain(meta.config)
        found[name] = evaluate_on(
            fit_to_store(config, opened.segment_s, flags.batch),
            make_objective(config, networks),
            items["params"],
            items["objective"],
            opened,
            seen,
        )
        logging.info("%s: %s", name, json.dumps(found[name]))
    return {"workdir": str(flags.workdir), "step": step, "stores": found}


def fit_to_store(config, segment_s: float, batch: int | None):
    """Return the run's `config` changed in place to segments of `segment_s`, whole where a crop is no shorter."""
    crop_s = config.data.crop_s
    fits = {"data.segment_s": segment_s, "data.crop_s": None if crop_s is None or crop_s >= segment_s else crop_s}
    return fields.change(config, fits | ({} if batch is None else {"train.batch": batch}))


def parse_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the flags of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--store", required=True, action="append", metavar="DIR", help="a prepared store; repeatable")
    parser.add_argument("--batch", type=int, metavar="N", help="pairs at a time; the run's where it is not said")
    flags, _ = parse_command(arguments, parser, needs_config=False)
    if flags.batch is not None and flags.batch < 1:
        raise UserError(Fault("--batch", flags.batch, "at least 1"))
    return flags


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
