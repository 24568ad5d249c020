"""Judge frozen embeddings on classes: neighbours, a linear probe and clusters, for some leads or few labels.

python tools/judge.py --export runs/st_mem/export --store STORE --label superclass --out runs/st_mem/superclass
python tools/judge.py --export A --export B --store STORE --label rhythm --leads all --leads i --out judged

Of --leads, all are the channels of an encoder, whether of ECG leads or not.

The store holds the segments at the encoders' rate and length, with a label of classes (tools/add_labels.py). Each
encoder stands beside the first one's network at random initialisation, drawn once: tools/evaluate.py --task label:NAME
draws five, has the run's own start beside them and says what follows. Whom any of the encoders has learnt from, by its
seen.npz or by the store's train split, is never tested.
"""

import argparse
import json
import logging
import math
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
from jaxbio.data.store import open_store
from jaxbio.data.whole_files import whole_file
from jaxbio.evaluation import probes, protocol

log = logging.getLogger(__name__)
RANDOM = "random_initialisation"


def main(arguments: Sequence[str]) -> dict:
    """Judge; write metrics.json and report.html into --out and return what the former holds."""
    flags = parse_flags(arguments)
    probes.check_installed()
    # JAX only after the flags are read: a wrong flag answers at once.
    from jaxbio.evaluation import judging
    from jaxbio.evaluation.comparison import initialise_again
    from jaxbio.evaluation.judging_report import Judged, write_judging_page
    from jaxbio.export.pretrained import load_pretrained

    unknown = [name for name in flags.leads if name not in judging.LEAD_SETS]
    if unknown:
        raise UserError(Fault("--leads", ", ".join(unknown), f"one of {', '.join(judging.LEAD_SETS)}"))
    models = {folder: load_pretrained(folder) for folder in flags.export}
    models[RANDOM] = initialise_again(models[flags.export[0]], flags.seed)
    store = open_store(flags.store)
    labelled = judging.read_labelled(store, flags.label)
    for name in labelled.left_out:
        log.warning("class %s has a single subject, who cannot be on both sides: left out", name)
    splits = split_rows(flags, store, labelled)
    tested = probes.tested_rows(splits)
    result = {
        "store": flags.store,
        "label": flags.label,
        "protocol": flags.protocol,
        "classes_left_out": list(labelled.left_out),
        "tested_by_class": {
            name: int((labelled.class_N[tested] == code).sum()) for code, name in enumerate(labelled.classes)
        },
        "subjects_tested": len(np.unique(labelled.subject_N[tested])),
        "leads": {},
    }
    by_leads: dict[str, Judged] = {}
    for name in flags.leads:
        chosen = judging.LEAD_SETS[name]
        features = {
            encoder: judging.embed_rows(model, store, labelled.row_N, chosen) for encoder, model in models.items()
        }
        judged = judging.judge(
            features, labelled.class_N, len(labelled.classes), labelled.subject_N, splits, flags.shares, flags.seed
        )
        channels = {
            encoder: [role for role in model.card.channels if chosen is None or role in chosen]
            for encoder, model in models.items()
        }
        result["leads"][name] = {"channels": channels, "measures": plain(judged)}
        by_leads[name] = Judged(judged, features)
    out = Path(flags.out)
    out.mkdir(parents=True, exist_ok=True)
    facts = {
        **{name.replace("_", " "): result[name] for name in ("store", "label", "protocol", "subjects_tested")},
        "segments tested by class": ", ".join(f"{name} {count}" for name, count in result["tested_by_class"].items()),
        "classes of a single subject, left out": ", ".join(labelled.left_out) or "none",
    }
    result["report"] = str(write_judging_page(out / "report.html", facts, by_leads, labelled, tested))
    with whole_file(out / "metrics.json") as unfinished:
        unfinished.write_text(json.dumps(result) + "\n")
    return result


def parse_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the flags; raises UserError for values that mean nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", action="append", required=True, metavar="DIR", help="an export; may be repeated")
    parser.add_argument("--store", required=True, metavar="DIR", help="a store with the label")
    parser.add_argument("--label", required=True, metavar="NAME", help="a label of classes of the store")
    parser.add_argument(
        "--leads", action="append", default=[], help="all channels (the default), limb, i or ii; may be repeated"
    )
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.01, 0.05, 1.0], help="shares of the labels that are fitted on"
    )
    parser.add_argument("--protocol", choices=protocol.PROTOCOLS, default="transfer", help="as in tools/evaluate.py")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="of cross_validate")
    parser.add_argument("--seed", type=int, default=0, help="of folds, shares, clusters and the random initialisation")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for metrics.json and report.html")
    flags, _ = parse_command(arguments, parser, needs_config=False)
    flags.leads = flags.leads or ["all"]
    faults = [Fault("--shares", share, "above 0 and at most 1") for share in flags.shares if not 0 < share <= 1]
    if flags.folds < 2:
        faults.append(Fault("--folds", flags.folds, "at least 2"))
    if faults:
        raise UserError(*faults)
    return flags


def split_rows(flags: argparse.Namespace, store, labelled) -> list[probes.Split]:
    """Return the splits of --protocol over the labelled segments: nobody whom an encoder has learnt from is tested.

    Raises UserError where nothing is left to tell apart, in what is fitted on or in what is tested.
    """
    from jaxbio.export.folder import read_seen

    seen_N = np.isin(labelled.subject_N, labelled.subject_N[store.column("split")[labelled.row_N] == "train"])
    for folder in flags.export:
        seen_N |= find_seen(read_seen(folder), store, labelled.row_N)
    splits = protocol.make_splits(
        flags.protocol,
        labelled.subject_N,
        seen_N,
        folds=flags.folds,
        seed=flags.seed,
        label_B=labelled.class_N,
        named_by="--store",
    )
    protocol.check_splits(splits, labelled.class_N, labelled.classes, named_by="--store")
    return splits


def find_seen(seen, store, row_N: np.ndarray) -> np.ndarray:
    """Return which rows are of subjects that an encoder has learnt from, bool (N,)."""
    whose_N = np.array([f"{a}/{b}" for a, b in zip(store.column("source")[row_N], store.column("subject")[row_N])])
    return seen.find(whose_N, store.column("fingerprint")[row_N])


def plain(judged) -> dict:
    """Return intervals as JSON: [value, low, high], None where a number is not defined."""
    return {
        measure: {
            name: [round(number, 4) if math.isfinite(number) else None for number in interval]
            for name, interval in by_encoder.items()
        }
        for measure, by_encoder in judged.items()
    }


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
