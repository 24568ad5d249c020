"""Add labels to a store from a table of recordings; its shards, its table and its pairs stay as they are.

python tools/add_labels.py --store store --labels labels.csv
python tools/add_labels.py --store store --labels rhythm.csv --classes rhythm=SR,AF,other --replace

The CSV has the columns source,recording[,start_s,end_s] and one column a label, of numbers or of names of classes; an
empty cell says nothing. A segment takes the value that holds for more than half of it. See docs/data.md.
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

import numpy as np

from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.config.next_lines import python, say_next
from jaxbio.data.label_file import ALLOWED, Account, read_label_file
from jaxbio.data.labels import Label, count_unknown, count_values, list_labels, write_labels
from jaxbio.data.pairs import split_codes
from jaxbio.data.splits import SPLITS
from jaxbio.data.store import open_store

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> dict:
    """Read the file, write a label for each of its columns, and return how many segments have which value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, metavar="DIR", help="a store that tools/prepare_store.py made")
    parser.add_argument("--labels", required=True, metavar="FILE.csv", help="source,recording[,start_s,end_s],LABEL...")
    parser.add_argument(
        "--classes",
        action="append",
        default=[],
        metavar="LABEL=A,B,C",
        help="the classes of a label in the order of their codes 0, 1, 2; default: sorted, as the file has them",
    )
    parser.add_argument("--replace", action="store_true", help="labels of these names may be there: they are replaced")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        choices=ALLOWED,
        help="unknown_recordings: leave out lines of recordings that are not in the store; unseen_classes: keep the "
        "codes of classes that no segment has, where several stores are to share them",
    )
    flags, _ = parse_command(arguments, parser, needs_config=False)
    classes = parse_classes(flags.classes)
    store = open_store(flags.store)
    taken = () if flags.replace else list_labels(store)
    labels, account = read_label_file(Path(flags.labels), store, classes=classes, allow=flags.allow, taken=taken)
    write_labels(store, labels)
    split_R = split_codes(store)
    report(labels, split_R, account)
    summary = {label.name: summarise(label, split_R, account) for label in labels}
    say_next(python("tools/inspect_store.py", flags.store))
    return {"store": flags.store, "lines": account.lines, "labels": summary}


def parse_classes(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the classes of each label by texts LABEL=A,B,C; raises UserError, all faults together."""
    classes: dict[str, tuple[str, ...]] = {}
    faults = []
    for text in texts:
        name, _, listed = text.partition("=")
        stated = tuple(part.strip() for part in listed.split(","))
        if not name or not all(stated) or len(set(stated)) < len(stated) or name in classes:
            faults.append(Fault("--classes", text, "LABEL=A,B,C, each label once and each of its classes once"))
        classes[name] = stated
    if faults:
        raise UserError(*faults)
    return classes


def summarise(label: Label, split_R: np.ndarray, account: Account) -> dict:
    """Return how many segments in use have the label, have it not, have spans that decide nothing, and by value."""
    values = {value: sum(by_split) for value, by_split in count_values(label, split_R).items()}
    unknown, undecided = sum(count_unknown(label, split_R)), account.undecided[label.name]
    return {"segments": sum(values.values()), "unknown": unknown, "undecided": undecided, "values": values}


def report(labels: Sequence[Label], split_R: np.ndarray, account: Account) -> None:
    """Log the segments in use by label, value and split, and what of the file gave nothing."""
    log.info("%-20s %-20s %s", "label", "value", " ".join(f"{split:>10}" for split in SPLITS))
    for label in labels:
        by_value = count_values(label, split_R)
        for value, by_split in (*by_value.items(), ("(unknown)", count_unknown(label, split_R))):
            log.info("%-20s %-20s %s", label.name, value, " ".join(f"{count:>10,}" for count in by_split))
    for label in labels:
        of_train = {value: by_split[0] for value, by_split in count_values(label, split_R).items()}
        if not any(of_train.values()):
            log.warning("%s: no segment of the train split has it", label.name)
        elif unseen := [name for name in label.classes if not of_train[name]]:
            log.warning("%s: no segment of the train split is of class %s", label.name, ", ".join(unseen))
        if account.undecided[label.name]:
            many = account.undecided[label.name]
            log.warning("%s: %d segments stay unknown, no value holds for more than half of them", label.name, many)
    if account.lines_without_segment:
        log.warning("%d lines are of recordings of which no segment was kept", account.lines_without_segment)
    if account.lines_unknown:
        log.warning("%d lines are of recordings that are not in the store", account.lines_unknown)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
