"""Linear probes on an export, beside the same network at random initialisation and beside no network.

python tools/evaluate.py --export runs/icu/export --task heart_rate --data 'csv:bidmc?rate_hz=125&glob=*_Signals.csv.gz'
    --subjects subjects.csv --train_subjects runs/icu_store --out runs/icu/heart_rate

Whom the encoder has learnt from is never tested: the export's seen.npz tells, and so does the store of the pretraining
where --train_subjects names it, as data.store did: a folder, or "(('A', 0.7), ('B', 0.3))".
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

import numpy as np

from jaxbio.config import fields
from jaxbio.config.command_line import parse_command, parse_value
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.data.listing import read_subjects
from jaxbio.data.recordings import parse_source
from jaxbio.data.seen import SEEN, Seen
from jaxbio.data.several import Stores, open_stores
from jaxbio.data.whole_files import whole_file
from jaxbio.evaluation import probes, protocol, tasks


def main(arguments: Sequence[str]) -> dict:
    """Evaluate; write metrics.json and report.html into --out and return the metrics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", required=True, metavar="DIR", help="an export folder")
    parser.add_argument("--task", required=True, metavar="TASK", help=f"one of {', '.join(tasks.TASKS)}")
    parser.add_argument("--data", action="append", required=True, metavar="FORMAT:PATH", help="may be repeated")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for metrics.json and report.html")
    parser.add_argument(
        "--window_s", type=float, metavar="S", help="length of the segments; the export's own if not given"
    )
    parser.add_argument("--subjects", metavar="FILE.csv", help="source,recording,subject where paths do not say")
    parser.add_argument(
        "--train_subjects", metavar="STORE", help="the store that the encoder was pretrained on: fit there"
    )
    parser.add_argument("--protocol", help="transfer: fit on the run's train subjects, the default with a store; or "
                        "cross_validate: fit and test by turns on the others")  # fmt: skip
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="of cross_validate")
    parser.add_argument("--seed", type=int, default=0, help="of folds and of the random initialisation")
    flags, _ = parse_command(arguments, parser, needs_config=False)
    task = tasks.get_task(flags.task)
    probes.check_installed()
    sources = [parse_source(text) for text in flags.data]
    subjects = read_subjects(flags.subjects) if flags.subjects else None
    chosen = flags.protocol or ("transfer" if flags.train_subjects else "cross_validate")
    if chosen not in protocol.PROTOCOLS:
        raise UserError(Fault("--protocol", chosen, f"one of {', '.join(protocol.PROTOCOLS)}"))
    if chosen == "transfer" and flags.train_subjects is None and not (Path(flags.export) / SEEN).exists():
        remedy = f"transfer needs it, the store the encoder was pretrained on: the export has no {SEEN}"
        raise UserError(Fault("--train_subjects", None, remedy))
    if flags.folds < 2:
        raise UserError(Fault("--folds", flags.folds, "at least 2"))
    # JAX only after the flags are read: a wrong flag answers at once.
    from jaxbio.evaluation import comparison, probe_report, verdict
    from jaxbio.export.folder import read_seen
    from jaxbio.export.pretrained import load_pretrained
    from jaxbio.training.devices import check_devices

    check_devices()
    model = load_pretrained(flags.export)
    card, seen = model.card, read_seen(flags.export)
    store = _open_training_store(flags.train_subjects, card.store_hash) if flags.train_subjects else None
    length = card.length if flags.window_s is None else round(flags.window_s * card.rate_hz)
    segments = tasks.read_segments(
        flags.task, sources, rate_hz=card.rate_hz, length=length, channels=card.channels, subjects=subjects
    )
    seen_B = _find_seen(segments, seen, store)
    splits = protocol.make_splits(chosen, segments.subject_B, seen_B, folds=flags.folds, seed=flags.seed)
    known = seen.complete or store is not None or bool(seen_B.any())
    counts = {
        "segments_tested": sum(len(test) for _, test in splits),
        "subjects_tested": len(np.unique(segments.subject_B[probes.tested_rows(splits)])),
        "subjects_fitted_on": len(np.unique(segments.subject_B[np.concatenate([fit for fit, _ in splits])])),
        "segments_seen_in_pretraining": int(seen_B.sum()) if known else None,
        "subjects_seen_in_pretraining": len(np.unique(segments.subject_B[seen_B])) if known else None,
    }
    if task.classes:
        tested_N = segments.label_B[probes.tested_rows(splits)]
        counts["tested_by_class"] = {name: int(np.sum(tested_N == k)) for k, name in enumerate(task.classes)}
    logging.info("%s: %s", chosen, counts)
    features = {
        comparison.PRETRAINED: comparison.embed_segments(model, segments.x_BCT),
        comparison.RANDOM: comparison.embed_segments(comparison.initialise_again(model, flags.seed), segments.x_BCT),
    }
    compared = comparison.compare(task, features, segments.label_B, segments.subject_B, splits)
    tested = probes.tested_rows(splits)
    judged = verdict.judge(
        task,
        compared,
        subjects=counts["subjects_tested"],
        unnamed=float(np.mean(~segments.subject_known_B[tested])),
        seen_known=seen.complete or store is not None,
    )
    said = _describe(chosen, flags.folds, seen.complete or store is not None)
    out = Path(flags.out)
    out.mkdir(parents=True, exist_ok=True)
    facts = {"encoder": card.encoder, "steps": card.steps, **_readable(counts)}
    report = probe_report.write_probe_report(out / "report.html", task, compared, segments.label_B, facts, said, judged)
    result = {
        "task": flags.task,
        "export": flags.export,
        "protocol": chosen,
        "left_out": said,
        "verdict": judged.text,
        **counts,
    }
    result |= {**compared.summary(), "report": str(report)}
    with whole_file(out / "metrics.json") as unfinished:
        unfinished.write_text(json.dumps(result) + "\n")
    logging.info("\n%s\n%s", judged.result, judged.trust)
    return result


def _open_training_store(text: str, store_hash: str | None) -> Stores:
    store = open_stores(parse_value(text, fields.COMMON["data.store"]))
    if store.hash != store_hash:
        remedy = f"is not the store {store_hash} that the export's card names: name the one it was pretrained on"
        raise UserError(Fault("--train_subjects", text, remedy))
    return store


def _find_seen(segments: tasks.Segments, seen: Seen, store: Stores | None) -> np.ndarray:
    """Return which segments, bool (B,), are of subjects that pretraining has seen; say how many."""
    seen_B = seen.find(segments.subject_B, segments.fingerprint_B)
    if store is not None:
        seen_B |= protocol.find_seen(store, segments.source_B, segments.recording_B, segments.subject_B)
        if not seen_B.any():
            logging.warning("no recording of --data is in the train split of the store: right for other data")
    if seen_B.any():
        logging.info("pretraining has seen %d of %d segments: they are not tested", seen_B.sum(), len(seen_B))
    return seen_B


def _readable(counts: dict) -> dict[str, object]:
    """Return counts as a person reads them: names without underscores, classes on one line, unknown said so."""
    texts = {
        name: ", ".join(f"{label} {n}" for label, n in count.items()) if isinstance(count, dict) else count
        for name, count in counts.items()
    }
    return {name.replace("_", " "): "not known" if text is None else text for name, text in texts.items()}


def _describe(chosen: str, folds: int, known: bool) -> str:
    if chosen == "transfer":
        return (
            "The probe is fitted on subjects of the run's train split and tested on subjects that neither the encoder "
            "nor the probe has learnt from."
        )
    whom = "subjects that pretraining has not seen" if known else "subjects that pretraining is not known to have seen"
    warning = "" if known else f" What it has seen is not known ({SEEN}): the encoder may have seen these subjects."
    return f"Cross-validated over {whom}: at most {folds} folds, every subject whole in one of them.{warning}"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
