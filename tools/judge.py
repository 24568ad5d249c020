"""Judge frozen embeddings on classes: neighbours, a linear probe and clusters, for some leads or few labels.

python tools/judge.py --export runs/st_mem/export --store STORE --label superclass --out runs/st_mem/superclass
python tools/judge.py --export A --export B0 B1 B2 --store STORE --label rhythm --leads all --leads i --out judged

Of --leads, all are the channels of an encoder, whether of ECG leads or not. What one --export names are seeds of one
recipe, measured by their mean.

The store holds the segments at the encoders' rate and length, with a label of classes (tools/add_labels.py). Each
encoder stands beside five fresh initialisations of its network; encoders of one network share theirs. A verdict says
what neighbours and a linear probe read, and whether training is why; tools/evaluate.py --task label:NAME has the run's
own start beside it too. Whom any of the encoders has learnt from, by its seen.npz or by the store's train split, is
never tested.
"""

import argparse
import itertools
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


def main(arguments: Sequence[str]) -> dict:
    """Judge; write metrics.json and report.html into --out and return what the former holds."""
    flags = parse_flags(arguments)
    probes.check_installed()
    # JAX only after the flags are read: a wrong flag answers at once.
    from jaxbio.evaluation import judging
    from jaxbio.evaluation.judging_verdict import tell_trust

    unknown = [name for name in flags.leads if name not in judging.LEAD_SETS]
    if unknown:
        raise UserError(Fault("--leads", ", ".join(unknown), f"one of {', '.join(judging.LEAD_SETS)}"))
    models = load_models(flags.export)
    store = open_store(flags.store)
    labelled = judging.read_labelled(store, flags.label)
    for name in labelled.left_out:
        log.warning("class %s has a single subject, who cannot be on both sides: left out", name)
    splits, seen_known = split_rows(flags, store, labelled), knows_seen(flags.export, models, store)
    fresh, fresh_of = judging.draw_beside(models, flags.seed)
    shown = {name: judge_leads(flags, name, models | fresh, fresh_of, store, labelled, splits) for name in flags.leads}
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
        "fresh_networks": fresh_of,
        "leads": {name: summarise(name, found, models | fresh) for name, found in shown.items()},
    }
    result["trust"] = tell_trust(
        [said for found in shown.values() for said in found.said.values()],
        subjects=result["subjects_tested"],
        unnamed=float(np.mean(~store.column("subject_known")[labelled.row_N[tested]])),
        seen_known=seen_known,
    )
    write_result(Path(flags.out), result, shown, labelled, tested)
    for name, found in shown.items():
        for encoder, said in found.said.items():
            log.info("\n%s, leads %s: %s", encoder, name, said.text)
    log.info("\n%s", result["trust"])
    return result


def load_models(exports: Sequence[Sequence[str]]) -> dict[str, list]:
    """Return the encoders of each --export, by the name of its folders.

    Raises UserError where those of one are not of one network and input: then they are no seeds of one recipe.
    """
    from jaxbio.evaluation.encoders import architecture
    from jaxbio.export.pretrained import load_pretrained

    models = {", ".join(folders): [load_pretrained(folder) for folder in folders] for folders in exports}
    remedy = "of another network, rate or channels than the first, so no seed of one recipe: give it its own --export"
    faults = [
        Fault("--export", folder, remedy)
        for folders, own in zip(exports, models.values())
        for folder, model in zip(folders, own)
        if architecture(model.card) != architecture(own[0].card)
    ]
    if faults:
        raise UserError(*faults)
    return models


def judge_leads(flags: argparse.Namespace, name: str, models, fresh_of, store, labelled, splits):
    """Return what is found, and said, of all `models` with one choice of leads."""
    from jaxbio.evaluation import judging
    from jaxbio.evaluation.comparison import check_features
    from jaxbio.evaluation.judging_report import Shown
    from jaxbio.evaluation.judging_verdict import tell_encoder

    features: dict[str, list[np.ndarray]] = {}
    for encoder, own in models.items():
        features[encoder] = [judging.embed_rows(model, store, labelled.row_N, judging.LEAD_SETS[name]) for model in own]
        for feature_ND in features[encoder]:
            check_features(encoder, feature_ND)
    judged = judging.judge(
        features,
        fresh_of,
        labelled.class_N,
        len(labelled.classes),
        labelled.subject_N,
        splits,
        flags.shares,
        flags.seed,
    )
    said = {
        encoder: tell_encoder(judged, encoder, fresh, label=flags.label, share=max(flags.shares))
        for encoder, fresh in fresh_of.items()
    }
    return Shown(judged, features, said)


def summarise(name: str, shown, models) -> dict:
    """Return what was found with one choice of leads as plain JSON."""
    from jaxbio.evaluation.judging import LEAD_SETS

    chosen, judged = LEAD_SETS[name], shown.judged
    return {
        "channels": {
            encoder: [role for role in own[0].card.channels if chosen is None or role in chosen]
            for encoder, own in models.items()
        },
        "verdict": {encoder: said.text for encoder, said in shown.said.items()},
        "measures": plain(judged.intervals),
        "minus_fresh": plain(judged.gains),
        "seeds": plain(judged.seeds),
    }


def write_result(out: Path, result: dict, shown, labelled, tested: np.ndarray) -> None:
    """Write report.html and metrics.json, and name the former in `result`."""
    from jaxbio.evaluation.judging_report import write_judging_page

    out.mkdir(parents=True, exist_ok=True)
    facts = {
        **{name.replace("_", " "): result[name] for name in ("store", "label", "protocol", "subjects_tested")},
        "segments tested by class": ", ".join(f"{name} {count}" for name, count in result["tested_by_class"].items()),
        "classes of a single subject, left out": ", ".join(labelled.left_out) or "none",
    }
    result["report"] = str(write_judging_page(out / "report.html", facts, shown, result["trust"], labelled, tested))
    with whole_file(out / "metrics.json") as unfinished:
        unfinished.write_text(json.dumps(result) + "\n")


def parse_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the flags; raises UserError for values that mean nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", action="append", nargs="+", required=True, metavar="DIR", help="an export, or "
                        "exports that differ in the seed alone; may be repeated")  # fmt: skip
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
    parser.add_argument("--seed", type=int, default=0, help="of folds, shares, clusters and the fresh initialisations")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for metrics.json and report.html")
    flags, _ = parse_command(arguments, parser, needs_config=False)
    flags.export = list(dict.fromkeys(map(tuple, flags.export)))
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
    for folder in itertools.chain(*flags.export):
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


def knows_seen(exports: Sequence[Sequence[str]], models, store) -> bool:
    """Return whether it is known whom every encoder has learnt from: by its seen.npz, or since this is its store."""
    from jaxbio.export.folder import read_seen

    return all(
        model.card.store_hash == store.hash or read_seen(folder).complete
        for folders, own in zip(exports, models.values())
        for folder, model in zip(folders, own)
    )


def plain(found) -> dict:
    """Return intervals ([value, low, high]) or values of seeds as JSON, None where a number is not defined."""
    return {
        measure: {
            name: [round(number, 4) if math.isfinite(number) else None for number in numbers]
            for name, numbers in by_encoder.items()
        }
        for measure, by_encoder in found.items()
    }


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
