"""Train: the launch line, the same on a laptop, in a Slurm job and on every host of a pod.

python launch/run.py --config configs/quickstart.py --config.data.store=STORE
python launch/run.py --config configs/qualityfm_base.py:smoke                    # synthetic, two steps, on a laptop
python launch/run.py --config configs/X.py --workdir DIR --allow_change=train.steps --config.train.steps=90000
python launch/run.py --config configs/X.py --list_fields every_steps     # every field: default, unit, reason

A workdir that holds a checkpoint is resumed. Exit 0: done; 2: a fault of yours, named; 75: stopped by a signal, what
there was is saved, start the same line again.
"""

import argparse
import contextlib
import functools
import json
import logging
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin(75, (signal.SIGINT, signal.SIGTERM))

from ml_collections import ConfigDict
from tqdm.contrib.logging import logging_redirect_tqdm

from jaxbio.config import changes, fields, interrupt, listing, presets
from jaxbio.config.command_line import changes_of, free_text, parse_command, recipe_of
from jaxbio.config.faults import EXIT_PREEMPTED, Fault, UserError, run_command
from jaxbio.config.local_paths import is_address, without_file
from jaxbio.config.next_lines import python, say_next
from launch import environment

SYNTHETIC = "synthetic:"
log = logging.getLogger("jaxbio.launch")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the launch line's own flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workdir", metavar="DIR", help="folder of the run; default runs/<recipe>, runs/<recipe>-smoke ..."
    )
    parser.add_argument(
        "--allow_change", action="append", default=[], metavar="FIELD", help="a science field that may differ on resume"
    )
    parser.add_argument("--from_step", type=int, metavar="N", help="resume checkpoint N; newer ones are set aside")
    parser.add_argument(
        "--list_fields",
        nargs="?",
        const="",
        metavar="PATTERN",
        help="print the recipe's fields (no recipe: all)",
    )
    add_cluster_flags(parser)
    return parser


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name a cluster."""
    cluster = parser.add_argument_group("a cluster that JAX does not find by itself; all three, on every host")
    cluster.add_argument("--coordinator", type=free_text, metavar="HOST:PORT", help="address of process 0")
    cluster.add_argument("--processes", type=int, metavar="N", help="number of processes")
    cluster.add_argument("--process", type=int, metavar="I", help="number of this process")


def main(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Check everything, then train; return the summary of the run."""
    if any(word.partition("=")[0] == "--list_fields" for word in arguments):
        return print_fields(arguments)
    try:
        flags, config = parse_command(arguments, make_parser())
        assert config is not None
        check_store_named(config, arguments)
        workdir = Path(flags.workdir) if flags.workdir else default_workdir(arguments, config)
    except UserError as error:
        fail_together(arguments, error)
    settings = environment.configure(
        deterministic=config.precision.deterministic, compile_cache=config.train.compile_cache
    )
    log.info("settings: %s", settings)
    # JAX from here on, after its settings; and no device before everything has been checked and agreed upon.
    from jaxbio.training.devices import check_devices
    from jaxbio.training.distributed import join

    flags.on_the_line = tuple(changes_of(arguments))
    with join(flags.coordinator, flags.processes, flags.process) as peers, logging_redirect_tqdm():
        if peers.alone:
            check_devices(config.mesh.platform)  # before anything is written; several start their devices together
        result = run(config, flags, workdir, peers)
    announce(workdir, result)
    return result


def print_fields(arguments: Sequence[str]) -> None:
    """Print the fields that --list_fields asks for, with the values of the recipe where one is named."""
    flags, config = parse_command(arguments, make_parser(), needs_config=False)
    table = listing.every_table() if config is None else fields.table(config.model.name, config.objective.name)
    values = {} if config is None else fields.flatten(config)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` has read enough
    print(listing.list_fields(table, values, flags.list_fields))


def fail_together(arguments: Sequence[str], error: UserError) -> NoReturn:
    """Raise `error` of this command line; where it names a cluster, or JAX finds one, in all processes of it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_cluster_flags(parser)
    try:
        cluster, _ = parser.parse_known_args(arguments)
    except argparse.ArgumentError:  # one of the faults of this line: nobody can be told
        raise error from None
    environment.configure()
    from jaxbio.training.distributed import join

    with join(cluster.coordinator, cluster.processes, cluster.process):
        raise error


def run(config: ConfigDict, flags: argparse.Namespace, workdir: Path, peers: Any) -> dict[str, Any]:
    """Hold the workdir, see that all processes start from the same, and train what is left of the run."""
    from jaxbio.data.seen import SEEN, read_seen
    from jaxbio.evaluation.in_run import choose_questions
    from jaxbio.export.frozen import check_same_networks, read_networks, recall_networks
    from jaxbio.export.initial import seen_before, weights_before
    from jaxbio.training import run_data
    from jaxbio.training import workdir as folders
    from jaxbio.training.resume import check_same_data, find_resume, owes_evaluation
    from jaxbio.training.same_start import check_same_start
    from jaxbio.training.trackers import check_installed

    check_installed(config.log.trackers)
    folders.check_writable(workdir)
    peers.agree("every process has tried the workdir", {})  # process 0 clears it, and would clear what they try it with
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(folders.hold(workdir)) if peers.process == 0 else None
        if lock is not None:
            peers.before_end(lock.release)
            folders.remove_leftovers(workdir)
        words = f"no step was done, what was in {workdir} before is kept; start the same line again"
        stack.enter_context(interrupt.keeping(words, lock.release if lock else None))
        peers.agree("the workdir is held", {})  # before that another run may still be saving in it
        resume = find_resume(workdir, config, flags.allow_change, flags.from_step, flags.on_the_line)
        if resume is not None:
            check_same_networks(resume.frozen, config)
        networks = read_networks(config) if resume is None else recall_networks(resume.frozen)
        synthetic = is_synthetic(config.data.store)
        store = make_synthetic_store(config, workdir, peers) if synthetic else config.data.store
        data = run_data.open_run_data(config, store)
        fill_scales(config, data)
        if resume is not None:
            check_same_data(resume, data.store_hash, data.index_hash, data.label_hashes, flags.allow_change)
        if not peers.alone:
            weights = weights_before(config) if resume is None else []
            check_same_start(peers, config, workdir, resume, data, weights)
        log.info("%s", data.summary())
        questions = choose_questions(data.store, config, data.left_out_R)
        before = seen_before(config) if resume is None else read_seen(workdir / SEEN)
        data.check_unseen(before, resumed=resume is not None)
        if peers.process == 0:
            write_config(workdir, config)
            data.seen().unite(before).write(workdir / SEEN)
        if resume is not None and resume.step >= config.train.steps and not owes_evaluation(workdir, resume):
            log.info(
                "all %d steps were done before; more with --config.train.steps=%d --allow_change=train.steps",
                resume.step,
                2 * resume.step,
            )
            return {"workdir": str(workdir), "step": resume.step, "resumed_from": resume.step}
        return start(config, data, workdir, resume, peers, questions, networks, checks=[lock.check] if lock else [])


def fill_scales(config: ConfigDict, data: Any) -> None:
    """State how features are scaled where the recipe leaves it open: as those of the export that the run starts from,
    else as the subjects say that it trains on.
    """
    from jaxbio.data.feature_scales import fit_scales
    from jaxbio.export.initial import scales_before

    names = tuple(config.data.features)
    if names and not config.data.feature_scales:
        scales = scales_before(config) or fit_scales(data.store, names, data.train.rows_NM)
        fields.change(config, {"data.feature_scales": scales})
        said = ", ".join(f"{name} ({a:.4g}, {b:.4g})" for name, (a, b) in zip(names, scales, strict=True))
        log.info("features are scaled by (centre, spread): %s", said)


def start(
    config: ConfigDict,
    data: Any,
    workdir: Path,
    resume: Any,
    peers: Any,
    questions: Any,
    networks: Any,
    checks: Sequence[Any] = (),
) -> dict[str, Any]:
    """Compile the program and train; the first to touch a device."""
    import jax

    from jaxbio.evaluation.in_run import make_probe
    from jaxbio.export.initial import check_start, start_from
    from jaxbio.objectives import make_objective
    from jaxbio.planning import flops
    from jaxbio.report.run import write_run_report
    from jaxbio.report.series import Record
    from jaxbio.training import checkpoint
    from jaxbio.training.compile_cache import use_cache_together
    from jaxbio.training.devices import check_devices, check_same_devices, check_slices
    from jaxbio.training.examples import make_examples_probe
    from jaxbio.training.loop import listen, train
    from jaxbio.training.program import build_program

    if not peers.alone:
        check_devices(config.mesh.platform)
        check_same_devices(peers)
    check_slices(jax.devices())
    use_cache_together(peers)
    # A signal ends the process at once until a step is done, and from then on in a saved state; in both cases with 75.
    leave = functools.partial(interrupt.leave, code=EXIT_PREEMPTED) if peers.alone else peers.interrupt
    with listen(leave) as stop:
        objective = make_objective(config, networks)
        if resume is None and config.train.init_from is not None:
            check_start(config, objective)  # before minutes of compiling
        step_flops = flops.model_flops(config, config.train.batch, networks).total
        program = build_program(config, objective, networks=networks, flops=step_flops, plan_data=data.resident)
        initial = None
        if resume is not None:
            log.info("resuming from %s", workdir / "checkpoints" / str(resume.step))
            aside = checkpoint.set_aside_after(workdir / "checkpoints", resume.step) if peers.process == 0 else []
            if aside:
                log.warning("checkpoints %s were moved to %s", aside, workdir / "checkpoints_set_aside")
        elif config.train.init_from is not None:
            log.info("starting from the weights of %s", config.train.init_from)

            def initial(params: Any, state: Any) -> tuple[Any, Any]:
                return start_from(config.train.init_from, objective, params, state)

        else:
            log.info("starting from scratch, seed %d", config.train.seed)
        probes = [make_examples_probe(program, data, workdir)]
        if questions.by_task:
            probes.append(make_probe(program, data.store, questions))
        return train(
            program,
            data,
            workdir,
            resume=resume,
            initial=initial,
            probes=probes,
            report=functools.partial(write_run_report, record=Record(workdir)),
            stop=stop,
            peers=peers,
            checks=checks,
        )


def recipe_name(arguments: Sequence[str]) -> str:
    """Return the name of the recipe's file: runs/<recipe> is the default workdir."""
    words = [word.removeprefix("--config=") for word in arguments if word.startswith("--config=")]
    words += [arguments[place + 1] for place, word in enumerate(arguments[:-1]) if word == "--config"]
    return Path(words[-1].partition(":")[0]).stem


def default_workdir(arguments: Sequence[str], config: ConfigDict) -> Path:
    """Return runs/<recipe>; with the presets that make another run of it behind a hyphen.

    Raises UserError for a recipe whose name gives no folder there (".py", "...py").
    """
    name = recipe_name(arguments)
    if name.startswith("."):
        remedy = "its name gives none to the run's folder: name one with --workdir"
        raise UserError(Fault("--config", f"{name}.py", remedy))
    _, _, argument = (recipe_of(arguments) or "").partition(":")
    return Path("runs") / "-".join(filter(None, [name, presets.variant(config.model.name, argument)]))


def is_synthetic(store: Any) -> bool:
    """Whether `data.store` asks for a synthetic store in the workdir."""
    return isinstance(store, str) and store.startswith(SYNTHETIC)


def check_store_named(config: ConfigDict, arguments: Sequence[str]) -> None:
    """Raise UserError, with the command that makes a store, when none is named or a named one is not there."""
    store = config.data.store
    if is_synthetic(store):
        return
    recipe = shlex.quote((recipe_of(arguments) or "configs/X.py").partition(":")[0])
    make = f"python tools/prepare_store.py --config {recipe} --source 'FORMAT:PATH' --out"
    if store is None:
        remedy = (
            f"no store is named; make one with\n    {make} STORE\nand add --config.data.store=STORE; or train on "
            "synthetic signals with --config.data.store=synthetic:400"
        )
        raise UserError(Fault("data.store", store, remedy))
    folders = [store] if isinstance(store, str) else [folder for folder, _ in store]
    missing = [folder for folder in folders if not is_address(folder) and not Path(without_file(folder)).exists()]
    if missing:
        remedy = f"no such folder; make it with\n    {make} "
        raise UserError(*(Fault("data.store", folder, remedy + folder) for folder in missing))


def make_synthetic_store(config: ConfigDict, workdir: Path, peers: Any) -> Path:
    """Make the store of data.store=synthetic:<segments> in the workdir, on process 0, and say so; return its folder."""
    from jaxbio.data.prepare import prepare_store
    from jaxbio.data.recordings import parse_source

    folder = workdir / "store"
    if peers.process == 0:
        log.warning("data.store = %s: training on SYNTHETIC signals; their store is %s", config.data.store, folder)
        prepare_store([parse_source(config.data.store)], config, folder)
    peers.agree("the synthetic store is made", {}, limit_s=3600)
    return folder


def write_config(workdir: Path, config: ConfigDict) -> None:
    """Write the resolved configuration as the workdir's config.json."""
    from jaxbio.data.whole_files import whole_file

    with whole_file(workdir / "config.json") as unfinished:
        unfinished.write_text(json.dumps(changes.to_plain(config), indent=1) + "\n")


def announce(workdir: Path, result: dict[str, Any]) -> None:
    """Say what was made and what to type next."""
    print(
        f"\nMade:   {workdir}/checkpoints/{result['step']}\n"
        f"        {workdir}/metrics.jsonl   {workdir}/report.html: open it in a browser",
        file=sys.stderr,
    )
    say_next(python("tools/export_params.py", "--workdir", workdir, "--out", workdir / "export"))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax tells every barrier
    run_command(main)
