"""Make another index of a store: another pairing rule, cap, class edges or quality variant. Signals are not read.

python tools/make_pairs.py --store store --config configs/qualityfm_base.py --config.quality.variant=author
python tools/make_pairs.py --store store --config configs/qualityfm_base.py --config.pairs.max_per_segment=None
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

from jaxbio.config.command_line import config_words, parse_command
from jaxbio.config.faults import run_command
from jaxbio.config.next_lines import python, say_next
from jaxbio.data.pairs import make_pairs, open_index
from jaxbio.data.splits import SPLITS
from jaxbio.data.store import open_store


def main(arguments: Sequence[str]) -> dict:
    """Write the index and return its hash and its pairs by split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, metavar="DIR", help="a store that tools/prepare_store.py made")
    flags, config = parse_command(arguments, parser)
    store = open_store(flags.store)
    store.check(config)
    name = make_pairs(store, config)
    pairs = {split: len(open_index(store, config, split).rows_NM) for split in SPLITS}
    changed = config_words(arguments, without=["data.store"])
    say_next(python("launch/run.py", *changed, f"--config.data.store={flags.store}"))
    return {"store": flags.store, "index": name, "pairs": pairs}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
