"""What an encoder is worth for a clinical question, on subjects it has not seen, beside what needs no pretraining.

python tools/evaluate.py --export runs/icu/export --task vt_alarm --data cinc2015 --out runs/icu/vt_alarm
python tools/evaluate.py --workdir runs/icu --which both --task heart_rate --data bidmc --out runs/icu/heart_rate
python tools/evaluate.py --export runs/icu/export --task heart_rate --data 'csv:bidmc?rate_hz=125&glob=*_Signals.csv.gz'
    --subjects subjects.csv --train_subjects runs/icu_store --out runs/icu/heart_rate
python tools/evaluate.py --workdir runs/icu --task label:transit_time --data runs/icu_store --out runs/icu/transit_time

`--data` is the folder of a data set that the task knows, as it was downloaded, or FORMAT:PATH. Of label:NAME it is a
prepared store: any of its labels (tools/add_labels.py), or of its table's columns of numbers, is asked of the segments
that it holds, and the probes are fitted on those of its train split. Beside a linear probe on the encoder stand the
run's own start (with --workdir), five fresh initialisations, hand-made features and no features; of a detector, what it
says itself, by its own temperature and threshold. Several --export or --workdir are seeds of one recipe. Whom the
encoder has learnt from is never tested: the export's seen.npz tells, and so does the store of the pretraining where
--train_subjects names it, as data.store did: a folder, or "(('A', 0.7), ('B', 0.3))".
"""

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

from jaxbio.config import fields
from jaxbio.config.command_line import parse_command, parse_value
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.config.next_lines import python, say_next
from jaxbio.data.listing import read_subjects
from jaxbio.data.seen import SEEN
from jaxbio.data.several import Stores, open_stores
from jaxbio.evaluation import probes, protocol, tasks
from jaxbio.signals.segments import MIN_S

_KEPT = "~/.cache/jaxbio/embeddings"


def main(arguments: Sequence[str]) -> dict:
    """Evaluate; write results.json, predictions.parquet and report.html into --out and return the results."""
    flags = parse_flags(arguments)
    stored = tasks.open_stored(flags.task, flags.data) if tasks.is_label(flags.task) else None
    task = tasks.get_task(flags.task, stored.classes if stored else ())
    sources = [] if stored else tasks.find_sources(task, flags.data)
    subjects = read_subjects(flags.subjects) if flags.subjects else None
    probes.check_installed()
    chosen = _protocol(flags, task)
    # JAX only after the flags are read: a wrong flag answers at once.
    from jaxbio.evaluation import comparison, encoders, evaluation
    from jaxbio.training.devices import check_devices

    check_devices()
    loaded = encoders.load_encoders(flags.export, flags.workdir, flags.which)
    card = loaded.card
    store = _open_training_store(flags.train_subjects, card.store_hash) if flags.train_subjects else None
    own = {"rate_hz": card.rate_hz, "channels": tuple(card.channels)}
    if stored:
        store = stored.store if stored.store.hash == card.store_hash else store
        segments = stored.read(length=card.length, most=flags.most_segments or tasks.MOST, seed=flags.seed, **own)
    else:
        length = tasks.window_length(task, sources, flags.window_s, card.rate_hz, card.length)
        segments = tasks.read_segments(flags.task, sources, length=length, subjects=subjects, **own)
    settings = evaluation.Settings(
        protocol=chosen,
        folds=flags.folds,
        seed=flags.seed,
        shares=tuple(flags.shares),
        cache=None if flags.cache == "none" else Path(flags.cache).expanduser(),
        data=tuple(flags.data),
        train_subjects=flags.train_subjects,
    )
    result = evaluation.evaluate(flags.task, loaded, segments, settings, Path(flags.out), store)
    first = comparison.DETECTOR if loaded.detectors else comparison.PRETRAINED
    entrants = [word for name in (first, comparison.HAND_MADE) for word in ("--entrant", name)]
    say_next(python("tools/compare.py", flags.out, *entrants, "--out", Path(flags.out) / "compared"))
    return result


def parse_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the flags; raises UserError for values that mean nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--export", action="append", default=[], metavar="DIR", help="an export folder; may be repeated"
    )
    parser.add_argument("--workdir", action="append", default=[], metavar="DIR", help="a run, instead of its export")
    parser.add_argument("--which", metavar="NAME", help="of --workdir: another encoder of the objective, or both")
    parser.add_argument("--task", required=True, metavar="TASK", help=f"one of {', '.join(tasks.TASKS)}, or label:NAME")
    parser.add_argument("--data", action="append", required=True, metavar="FOLDER", help="or FORMAT:PATH; may be "
                        "repeated; of label:NAME a store")  # fmt: skip
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for results.json and report.html")
    parser.add_argument("--window_s", type=float, metavar="S", help="length of the segments; the export's own if not "
                        "given, or the data set's where that is shorter")  # fmt: skip
    parser.add_argument("--subjects", metavar="FILE.csv", help="source,recording,subject where paths do not say")
    parser.add_argument(
        "--train_subjects", metavar="STORE", help="the store that the encoder was pretrained on: fit there"
    )
    parser.add_argument("--most_segments", type=int, metavar="N", help="of label:NAME: fitted on and tested on at most "
                        f"so many each, spread over their subjects; {tasks.MOST} if not given")  # fmt: skip
    parser.add_argument("--protocol", help="transfer: fit on the run's train subjects, the default with a store; "
                        "cross_validate: fit and test by turns on the others; leaky: segments dealt whatever their "
                        "subject, as some publications do")  # fmt: skip
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.1], help="of the subjects, also fitted on")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="of cross_validate and leaky")
    parser.add_argument("--seed", type=int, default=0, help="of folds, shares and the fresh initialisations")
    kept = f"where embeddings are kept by content ({_KEPT}); none: nowhere"
    parser.add_argument("--cache", default=_KEPT, metavar="DIR", help=kept)
    flags, _ = parse_command(arguments, parser, needs_config=False)
    faults = [Fault("--shares", share, "above 0 and at most 1") for share in flags.shares if not 0 < share <= 1]
    if bool(flags.export) == bool(flags.workdir):
        faults.append(Fault("--export", flags.export or None, "name one kind of --export and --workdir"))
    if flags.which is not None and not flags.workdir:
        faults.append(Fault("--which", flags.which, "an export holds one encoder: name the run by --workdir"))
    if flags.window_s is not None and not MIN_S <= flags.window_s < math.inf:
        faults.append(Fault("--window_s", flags.window_s, f"seconds, at least {MIN_S:g}: less cannot be scored"))
    if flags.folds < 2:
        faults.append(Fault("--folds", flags.folds, "at least 2"))
    faults += _check_label_flags(flags)
    if faults:
        raise UserError(*faults)
    return flags


def _check_label_flags(flags: argparse.Namespace) -> list[Fault]:
    """Return the faults of flags that say nothing of a store's label, or of nothing else."""
    if not tasks.is_label(flags.task):
        remedy = f"only {tasks.PREFIX}NAME reads a part: leave it out"
        return [] if flags.most_segments is None else [Fault("--most_segments", flags.most_segments, remedy)]
    remedy = "a store's segments are as long, and as much whose, as they were prepared: leave it out"
    given = {"--window_s": flags.window_s, "--subjects": flags.subjects}
    faults = [Fault(name, value, remedy) for name, value in given.items() if value is not None]
    if flags.most_segments is not None and flags.most_segments < 1:
        faults.append(Fault("--most_segments", flags.most_segments, "at least 1"))
    return faults


def _protocol(flags: argparse.Namespace, task: tasks.Task) -> str:
    """Return the protocol asked for, or what the task and the flags make the default."""
    if task.classes_are_subjects:
        if flags.protocol not in (None, protocol.TIME):
            remedy = f"the subject is the question, so that it is on both sides: {protocol.TIME}, the default"
            raise UserError(Fault("--protocol", flags.protocol, remedy))
        return protocol.TIME
    known = (*protocol.PROTOCOLS, protocol.LEAKY)
    stored = tasks.is_label(flags.task)
    chosen = flags.protocol or ("transfer" if flags.train_subjects or stored else "cross_validate")
    if chosen not in known:
        raise UserError(Fault("--protocol", chosen, f"one of {', '.join(known)}"))
    told = any((Path(folder) / SEEN).exists() for folder in (*flags.export, *flags.workdir))
    if chosen == "transfer" and flags.train_subjects is None and not told and not stored:
        remedy = f"transfer needs it, the store the encoder was pretrained on: the export has no {SEEN}"
        raise UserError(Fault("--train_subjects", None, remedy))
    return chosen


def _open_training_store(text: str, store_hash: str | None) -> Stores:
    store = open_stores(parse_value(text, fields.COMMON["data.store"]))
    if store.hash != store_hash:
        remedy = f"is not the store {store_hash} that the export's card names: name the one it was pretrained on"
        raise UserError(Fault("--train_subjects", text, remedy))
    return store


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
