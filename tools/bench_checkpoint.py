"""Time the checkpoints of a recipe on a file system: what a save holds up, how long until it is whole, and restoring.

python tools/bench_checkpoint.py --config configs/qualityfm_base.py --out runs
python tools/bench_checkpoint.py --config configs/qualityfm_large.py:gpu --out /mnt/shared --repeats 5

The state is the one that `launch/run.py` saves, on all devices of this machine, its sums of bits and the files' hashes
included. What was just written is read from the page cache where the file system has one. Nothing is left behind.
"""

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.config.interrupt import temporary_folder
from launch import environment

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> dict:
    """Save and restore the state of a recipe in a folder of `--out`; return medians over the repeats."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="a folder of the file system to be measured")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="checkpoints saved; the median counts")
    flags, config = parse_command(arguments, parser)
    if flags.repeats < 1:
        raise UserError(Fault("--repeats", flags.repeats, "at least 1"))
    environment.configure(deterministic=config.precision.deterministic)
    from jaxbio.training.devices import check_devices

    check_devices(config.mesh.platform)
    try:
        Path(flags.out).mkdir(parents=True, exist_ok=True)
        with temporary_folder(prefix="bench_checkpoint-", within=flags.out) as folder:
            return {"out": flags.out, **bench(config, folder, flags.repeats)}
    except OSError as error:
        raise UserError(Fault("--out", flags.out, f"{error}; name a folder that can be written")) from None


def bench(config, folder: Path, repeats: int) -> dict:
    """Return what `repeats` checkpoints of the state of `config` in `folder` cost, and restoring each of them."""
    import jax
    import numpy as np

    from jaxbio.config.changes import to_plain
    from jaxbio.data.batch import random_batch
    from jaxbio.export.frozen import read_networks
    from jaxbio.objectives import make_objective
    from jaxbio.training.checkpoint import Checkpoints, Meta
    from jaxbio.training.program import lay_out
    from jaxbio.training.step import init_state

    networks = read_networks(config)
    objective = make_objective(config, networks)
    layout = lay_out(config, objective)
    batch = random_batch(config, np.random.default_rng(0))
    frozen = {name: network.variables for name, network in networks.items()}
    state = init_state(config, objective, layout.optimizer, layout.placement.shardings, batch, frozen)
    state = jax.block_until_ready(fill_moments(state, layout.placement.shardings))
    checkpoints = Checkpoints(folder, keep=1)
    seconds: dict[str, list[float]] = {"blocked_s": [], "saved_s": [], "restored_s": []}
    for step in range(1, repeats + 1):
        started = time.perf_counter()
        checkpoints.save(state, Meta(step, to_plain(config), "", "", {}, {}))
        seconds["blocked_s"].append(time.perf_counter() - started)
        checkpoints.wait()
        seconds["saved_s"].append(time.perf_counter() - started)
        started = time.perf_counter()
        jax.block_until_ready(checkpoints.restore(layout.abstract, step))
        seconds["restored_s"].append(time.perf_counter() - started)
        log.info("checkpoint %d: %s", step, {name: round(values[-1], 2) for name, values in seconds.items()})
    size = sum(path.stat().st_size for path in (folder / str(repeats)).rglob("*") if path.is_file())
    checkpoints.close()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        **medians,
        "bytes": size,
        "saved_gb_per_s": size / medians["saved_s"] / 1e9,
        "restored_gb_per_s": size / medians["restored_s"] / 1e9,
        "repeats": repeats,
        "devices": layout.mesh.devices.size,
        "device_kind": layout.mesh.devices.flat[0].device_kind,
        "jax": jax.__version__,
    }


def fill_moments(state, shardings):
    """Return `state` with noise for moments: the zeros they start from would be compressed to nothing."""
    import jax

    def noise(number: int, leaf):
        if not jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating):
            return leaf
        return jax.random.normal(jax.random.key(number), leaf.shape, leaf.dtype)

    def fill(opt_state):
        leaves, structure = jax.tree.flatten(opt_state)
        return jax.tree.unflatten(structure, [noise(number, leaf) for number, leaf in enumerate(leaves)])

    return replace(state, opt_state=jax.jit(fill, out_shardings=shardings.opt_state)(state.opt_state))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax tells every barrier
    run_command(main)
