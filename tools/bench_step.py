"""Time the training step of a recipe on synthetic arrays: pairs a second, MFU, compile time, memory, and how near the
step comes to its roofline where the rates of the device are known.

python tools/bench_step.py --config configs/qualityfm_base.py --config.train.batch=128
python tools/bench_step.py --config configs/qualityfm_large.py:gpu --config.train.batch=256 --repeats 20

python tools/bench_step.py --config configs/qualityfm_base.py --store STORE --config.data.batching=neighbourhoods
python tools/bench_step.py --config configs/qualityfm_base.py:gpu --profile DIR      # where a GPU's time goes

The step is the one that `launch/run.py` runs, under the same settings, without the norms that a logged step adds;
nothing is read from storage but, with --store, the batches of the first dispatch, which serve all; nothing is taken
from the cache of compiled programs, and the arrays lie on the device before the clock starts. Any field can be changed:
train.batch, precision.compute, model.tokenizer, model.dropout_bits, train.microbatches, train.steps_per_dispatch,
mesh.*.
"""

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import Fault, UserError, run_command
from launch import environment

PROFILED = 3
log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> dict:
    """Compile and time the step of a recipe; return medians over the repeats."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, metavar="N", help="dispatches timed; the median counts")
    parser.add_argument("--warmup", type=int, default=2, metavar="N", help="dispatches before, not timed")
    parser.add_argument("--store", metavar="DIR", help="a finished store: real batches, pairs of neighbourhoods")
    parser.add_argument("--profile", metavar="DIR", type=Path, help="profile three dispatches into this folder, after")
    flags, config = parse_command(arguments, parser)
    assert config is not None
    if flags.store is None and config.data.batching != "pairs":
        remedy = "how many pairs a step holds is the store's affair: add --store DIR"
        raise UserError(Fault("data.batching", config.data.batching, remedy))
    settings = environment.configure(deterministic=config.precision.deterministic)
    found = bench(config, flags.repeats, flags.warmup, flags.store, flags.profile)
    return found | {"allocator": settings["allocator"]}


def bench(config, repeats: int, warmup: int, store: str | None = None, profile: Path | None = None) -> dict:
    """Return what `repeats` dispatches of the step of `config` cost, after `warmup` that are not timed.

    They are of the first batches of `store`, or of noise. Three more go into a `profile`, whose kernels are named.
    """
    import jax

    from jaxbio.export.frozen import read_networks
    from jaxbio.objectives import make_objective
    from jaxbio.planning.flops import step_products
    from jaxbio.training import performance, sharding
    from jaxbio.training.devices import check_devices
    from jaxbio.training.program import first_batch, lay_out, lower_train_step
    from jaxbio.training.run_data import open_run_data
    from jaxbio.training.step import init_state, seeded

    check_devices(config.mesh.platform)
    networks = read_networks(config)
    objective = make_objective(config, networks)
    data = None if store is None else open_run_data(config, store)
    layout = lay_out(config, objective, plan_data=None if data is None else data.resident)
    mesh, shardings = layout.mesh, layout.placement.shardings
    if data is None:
        pairs_per_step = float(config.train.batch)
        batches = jax.device_put(synthetic_batches(config), sharding.dispatch_sharding(mesh))
    else:
        pairs_per_step = data.pairs_per_step
        with data.batches(mesh, 0) as dispatches:
            batches = dict(next(dispatches).arrays)
    first = first_batch(batches, mesh, layout.resident)
    frozen = {name: network.variables for name, network in networks.items()}
    state = jax.block_until_ready(init_state(config, objective, layout.optimizer, shardings, first, frozen))
    started = time.perf_counter()
    program = lower_train_step(config, objective, layout, logged=False).compile()
    compiled = seeded(program, config, mesh)
    compile_s = time.perf_counter() - started
    log.info("compiled in %.1f s", compile_s)

    seconds, cpu_seconds = [], []
    for index in range(warmup + repeats):
        started, cpu_started = time.perf_counter(), time.process_time()
        state, metrics = compiled(state, batches)
        loss = float(jax.device_get(metrics["train/loss"])[-1])
        jax.block_until_ready(state)
        if index >= warmup:
            seconds.append((time.perf_counter() - started) / config.train.steps_per_dispatch)
            cpu_seconds.append((time.process_time() - cpu_started) / config.train.steps_per_dispatch)
        log.info("dispatch %d: %.3f s, loss %.4f", index, time.perf_counter() - started, loss)

    device, step_s = mesh.devices.flat[0], statistics.median(seconds)
    kernels = {} if profile is None else profile_dispatches(compiled, state, batches, profile)
    count = step_products(config, networks)
    return {
        "pairs_per_s": pairs_per_step / step_s,
        "mfu": performance.mfu(count.total / step_s, mesh.devices.size, device.device_kind, config.precision.compute),
        "step_s": step_s,
        "step_s_min": min(seconds),
        "step_s_max": max(seconds),
        "cpu_s": statistics.median(cpu_seconds),  # of all threads: what to compare beside other work
        "repeats": repeats,
        "compile_s": compile_s,
        "gflop_per_pair": count.total / pairs_per_step / 1e9,
        "batch": config.train.batch,
        "batching": config.data.batching,
        "pairs_per_step": pairs_per_step,
        "compute": config.precision.compute,
        "devices": mesh.devices.size,
        "device_kind": device.device_kind,
        "state_bytes_per_device": layout.placement.bytes_per_device,
        **predict(config, layout, count, program, step_s),
        **performance.memory(),
        "jax": jax.__version__,
        **kernels,
    }


def predict(config, layout, count, program, step_s: float) -> dict:
    """Return the least seconds of a step by its roofline, what bounds it, and their share of the measured `step_s`.

    Nothing for devices whose rates are unknown.
    """
    from jaxbio.planning.collectives import count_collectives
    from jaxbio.planning.demand import step_roofline

    traffic = count_collectives(program.as_text())
    roofline = step_roofline(config, list(layout.mesh.devices.flat), count, layout.placement.bytes_by_part, traffic)
    if roofline is None:
        return {}
    return {
        "roofline_step_s": roofline.step_s,
        "roofline_share": roofline.step_s / step_s,
        "roofline_bound": roofline.bound,
    }


def profile_dispatches(compiled, state, batches, folder: Path) -> dict:
    """Run `PROFILED` dispatches under the profiler; return how a GPU's time of one divides among its kernels.

    Nothing for other devices, whose profile is written all the same.
    """
    import jax

    from jaxbio.training.gpu_profile import read_device_time

    with jax.profiler.trace(str(folder)):
        for _ in range(PROFILED):
            state, _ = jax.block_until_ready(compiled(state, batches))
    found = read_device_time(folder)
    if found is None:
        log.info("the profile in %s has no GPU's kernels to name", folder)
        return {}
    return {
        "busy_s": found.busy_s / PROFILED,
        "products_s": found.products_s / PROFILED,
        "kernels": [
            {"name": name[:80], "share": round(seconds / found.busy_s, 4), "calls": calls / PROFILED}
            for name, seconds, calls in found.kernels[:10]
        ],
    }


def synthetic_batches(config) -> dict:
    """Return seeded batches of one dispatch, (steps_per_dispatch, B, ...)."""
    import numpy as np

    from jaxbio.data.batch import random_batch

    rng = np.random.default_rng(0)
    batches = [random_batch(config, rng) for _ in range(config.train.steps_per_dispatch)]
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
