"""Turn recordings into a segment store, and make its index.

python tools/prepare_store.py --config configs/qualityfm_base.py --source wfdb:/archive/mimic --out store --workers 16
python tools/prepare_store.py --config configs/quickstart.py --source synthetic:1600 --out store
python tools/prepare_store.py --config configs/quickstart.py --source 'csv:DIR?time=Time [s]:s' --out store --dry_run
python tools/prepare_store.py --config RECIPE --source ward=wfdb:/archive/2026 --out store --add --subject_key ward.key

On several machines that see the same folders, a scheduler of each kind:

python tools/prepare_store.py --config RECIPE --source SOURCE --out store --share $SLURM_ARRAY_TASK_ID/16 --workers 8
python tools/prepare_store.py --config RECIPE --source SOURCE --out store --runner dask:tcp://scheduler:8786
python tools/prepare_store.py --config RECIPE --source SOURCE --out store --runner 'beam:--runner=FlinkRunner ...'

A preparation that was ended goes on where it was: start the same line again. See docs/data.md and docs/archives.md.
"""

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

# One thread a worker: processes already fill the cores. Before NumPy is imported, here and in every worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from jaxbio.config.command_line import address, config_words, count, free_text, parse_command
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.config.local_paths import is_address, without_file
from jaxbio.config.next_lines import python, say_next
from jaxbio.data.addition import open_base
from jaxbio.data.exclusion import read_exclusion
from jaxbio.data.listing import find_recordings, read_subjects
from jaxbio.data.prepare import prepare_share, prepare_store
from jaxbio.data.pseudonyms import read_key
from jaxbio.data.recordings import Refused, Source, parse_assumed, parse_source
from jaxbio.data.runners import parse_runner
from jaxbio.data.shard_plan import Plan, plan_store
from jaxbio.data.shares import parse_share
from jaxbio.data.store import Store
from jaxbio.data.stored_elsewhere import check_free, fetch_store, publish_store, staging_folder
from jaxbio.report.store import write_store_report


def main(arguments: Sequence[str]) -> dict:
    """Prepare the store, or say what a preparation would write; return counts and the account."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--source", action="append", required=True, type=address, metavar="FORMAT:PATH", help="may be repeated"
    )
    parser.add_argument(
        "--out", required=True, type=address, metavar="DIR", help="folder of the store; new, or one begun before"
    )
    parser.add_argument("--workers", type=count, default=1, metavar="N", help="processes; one a core is right")
    parser.add_argument("--runner", type=free_text, default="local", help="local, dask:ADDRESS, or 'beam:its options'")
    parser.add_argument("--share", metavar="I/N", help="write only share I, from 0, of N; the last one assembles")
    parser.add_argument("--add", action="store_true", help="extend the finished store in --out by new recordings")
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N recordings of every source")
    parser.add_argument("--subjects", metavar="FILE.csv", help="source,recording,subject where paths do not say")
    parser.add_argument("--exclude_subjects", metavar="FILE.csv", help="[source,]subject of those who are left out")
    parser.add_argument("--subject_key", metavar="FILE", help="a secret: subjects and recordings go by its HMAC")
    parser.add_argument("--assume_unit", metavar="ROLE:UNIT", help="unit of signals that state none: ecg:uV,ppg:NU")
    parser.add_argument("--dry_run", action="store_true", help="plan from headers, write nothing")
    flags, config = parse_command(arguments, parser)
    sources = _parse_sources(flags.source, flags.assume_unit)
    left_out = read_exclusion(flags.exclude_subjects, "--exclude_subjects") if flags.exclude_subjects else None
    said = {
        "limit": flags.limit,
        "subjects": read_subjects(flags.subjects) if flags.subjects else None,
        "excluded": left_out.subjects if left_out else (),
        "key": read_key(flags.subject_key, flags.out) if flags.subject_key else None,
    }
    runner = parse_runner(flags.runner, flags.workers)
    if flags.share and flags.runner != "local":
        raise UserError(Fault("--share", flags.share, f"is for jobs of their own: leave --runner {flags.runner} out"))
    if flags.dry_run:
        base = open_base(_folder_of(flags), config, said["key"]) if flags.add else None
        found = find_recordings(sources, config, **said)
        found = base.leave_out_known(found) if base else found
        refused = Counter(entry.reason for entry in found if isinstance(entry, Refused))
        return {"store": flags.out, "dry_run": True, **_planned(plan_store(found, config)), "refused": dict(refused)}
    out = _folder_of(flags)
    if flags.share:
        share = parse_share(flags.share)
        missing, finished = prepare_share(sources, config, out, share, workers=flags.workers, adds=flags.add, **said)
        if finished is None:
            return {"store": flags.out, "share": str(share), "shards_missing": missing}
        manifest = finished
    else:
        manifest = prepare_store(sources, config, out, runner=runner, adds=flags.add, **said)
    report = write_store_report(Store(out, manifest), config)
    if is_address(flags.out):
        publish_store(out, flags.out)
    account = {name: manifest["account"][name] for name in ("total_s", "kept_s", "rejected_s")}
    changed = config_words(arguments, without=["data.store"])
    say_next(
        python("tools/inspect_store.py", out),
        python("launch/run.py", *changed, f"--config.data.store={flags.out}"),
    )
    return {"store": flags.out, "hash": manifest["hash"], **manifest["counts"], **account, "report": str(report)}


def _folder_of(flags: argparse.Namespace) -> Path:
    """Return the folder in which the store is made, or is found finished."""
    if not is_address(flags.out):
        return Path(without_file(flags.out))
    if flags.add or flags.share or flags.runner != "local":
        remedy = "--add, --share and other runners want a folder that all workers see: name one, and copy it there"
        raise UserError(Fault("--out", flags.out, remedy))
    return fetch_store(flags.out, "--out") if check_free(flags.out) else staging_folder(flags.out)


def _parse_sources(texts: Sequence[str], assume_unit: str | None) -> list[Source]:
    sources: list[Source] = []
    faults: list[Fault] = []
    assumed: dict[str, str] = {}
    try:
        assumed = parse_assumed(assume_unit)
    except UserError as error:
        faults += error.faults
    for text in texts:
        try:
            sources.append(parse_source(text, assumed))
        except UserError as error:
            faults += error.faults
    if faults:
        raise UserError(*faults)
    return sources


def _planned(plan: Plan) -> dict:
    return {
        "recordings": len(
            {(block.recording.source, block.recording.recording) for shard in plan.shards for block in shard}
        ),
        "hours": round(plan.windows * plan.settings.segment_s / 3600, 3),
        "segments_at_most": plan.windows,
        "shards": len(plan.shards),
        "bytes_at_most": plan.windows * plan.settings.segment_bytes,
    }


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
