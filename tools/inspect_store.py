"""Check every byte of a store, count what is in it, and draw store_report.html into it.

python tools/inspect_store.py store
python tools/inspect_store.py store --config configs/qualityfm_base.py --config.quality.variant=author
python tools/inspect_store.py store --beside other
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

from jaxbio.config import fields
from jaxbio.config.command_line import config_words, parse_command
from jaxbio.config.faults import run_command
from jaxbio.config.next_lines import python, say_next
from jaxbio.data.labels import count_values, list_labels, open_labels
from jaxbio.data.overlap import find_overlap
from jaxbio.data.pairs import split_codes
from jaxbio.data.store import open_store
from jaxbio.report.store import write_store_report


def main(arguments: Sequence[str]) -> dict:
    """Verify and draw the store and its labels; return its counts and where the report lies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", metavar="DIR", help="a store that tools/prepare_store.py made")
    parser.add_argument("--out", metavar="FILE.html", help="the report; default: store_report.html in the store")
    parser.add_argument("--beside", action="append", metavar="DIR", help="count what is in this store too")
    flags, config = parse_command(arguments, parser, needs_config=False)
    store = open_store(flags.store)
    overlaps = {name: find_overlap(store, open_store(name))._asdict() for name in flags.beside or ()}
    store.verify()
    out = Path(flags.out) if flags.out else None
    # Without a recipe: the classes and pairs of the default fields, at the store's own rate and length.
    report = write_store_report(store, config or fields.defaults(), out)
    account = {name: store.manifest["account"][name] for name in ("total_s", "kept_s", "rejected_s")}
    split_R = split_codes(store)
    labels = {
        label.name: {value: sum(by_split) for value, by_split in count_values(label, split_R).items()}
        for label in open_labels(store, list_labels(store))
    }
    counts = {**store.manifest["counts"], **account, "labels": labels}
    counts |= {"overlaps": overlaps} if overlaps else {}
    if config is not None:  # else nobody knows what is to be trained on it
        words = config_words(arguments, without=["data.store"])
        say_next(python("launch/run.py", *words, f"--config.data.store={flags.store}"))
    return {"store": flags.store, "hash": store.hash, **counts, "report": str(report)}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
