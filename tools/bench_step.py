"""Time the training step of a recipe on synthetic arrays: pairs a second, MFU, compile time, memory.

python tools/bench_step.py --config configs/qualityfm_base.py --config.train.batch=128
python tools/bench_step.py --config configs/qualityfm_large.py:gpu --config.train.batch=256 --repeats 20

The step is the one that `launch/run.py` runs, under the same settings, without the norms that a logged step adds;
nothing is read from storage, nothing taken from the cache of compiled programs, and the arrays lie on the device before
the clock starts. Any field can be changed: train.batch, precision.compute, model.tokenizer,
precision.dropout_bits, train.microbatches, train.steps_per_dispatch, mesh.*.
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
from jaxbio.config.faults import run_command
from launch import environment

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> dict:
    """Compile and time the step of a recipe; return medians over the repeats."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, metavar="N", help="dispatches timed; the median counts")
    parser.add_argument("--warmup", type=int, default=2, metavar="N", help="dispatches before, not timed")
    flags, config = parse_command(arguments, parser)
    settings = environment.configure(deterministic=config.precision.deterministic)
    return bench(config, flags.repeats, flags.warmup) | {"allocator": settings["allocator"]}


def bench(config, repeats: int, warmup: int) -> dict:
    """Return what `repeats` dispatches of the step of `config` cost, after `warmup` that are not timed."""
    import jax

    from jaxbio.export.frozen import read_networks
    from jaxbio.objectives import make_objective
    from jaxbio.planning.flops import model_flops
    from jaxbio.training import performance, sharding
    from jaxbio.training.devices import check_devices
    from jaxbio.training.program import lay_out, lower_train_step
    from jaxbio.training.step import init_state

    check_devices(config.mesh.platform)
    networks = read_networks(config)
    objective = make_objective(config, networks)
    layout = lay_out(config, objective)
    mesh, shardings = layout.mesh, layout.placement.shardings
    batches = synthetic_batches(config)
    first = jax.device_put({name: array[0] for name, array in batches.items()}, sharding.batch_sharding(mesh))
    frozen = {name: network.variables for name, network in networks.items()}
    state = jax.block_until_ready(init_state(config, objective, layout.optimizer, shardings, first, frozen))
    batches = jax.device_put(batches, sharding.dispatch_sharding(mesh))
    started = time.perf_counter()
    compiled = lower_train_step(config, objective, layout, logged=False).compile()
    compile_s = time.perf_counter() - started
    log.info("compiled in %.1f s", compile_s)

    seconds = []
    for index in range(warmup + repeats):
        started = time.perf_counter()
        state, metrics = compiled(state, batches)
        loss = float(jax.device_get(metrics["train/loss"])[-1])
        jax.block_until_ready(state)
        if index >= warmup:
            seconds.append((time.perf_counter() - started) / config.train.steps_per_dispatch)
        log.info("dispatch %d: %.3f s, loss %.4f", index, time.perf_counter() - started, loss)

    device, step_s = mesh.devices.flat[0], statistics.median(seconds)
    flops = model_flops(config, config.train.batch, networks).total
    return {
        "pairs_per_s": config.train.batch / step_s,
        "mfu": performance.mfu(flops / step_s, mesh.devices.size, device.device_kind, config.precision.compute),
        "step_s": step_s,
        "step_s_min": min(seconds),
        "step_s_max": max(seconds),
        "repeats": repeats,
        "compile_s": compile_s,
        "gflop_per_pair": flops / config.train.batch / 1e9,
        "batch": config.train.batch,
        "compute": config.precision.compute,
        "devices": mesh.devices.size,
        "device_kind": device.device_kind,
        "state_bytes_per_device": layout.placement.bytes_per_device,
        **performance.memory(),
        "jax": jax.__version__,
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
