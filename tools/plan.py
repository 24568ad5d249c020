"""Whether a run fits a TPU slice, before you have one: the training step compiled for its topology, on any machine.

python tools/plan.py --config configs/qualityfm_large.py --topology v5e:16x16
python tools/plan.py --config configs/qualityfm_large.py:tpu,fsdp --topology v5e:4x4 --config.train.batch=1024
python tools/plan.py --config configs/qualityfm_base.py --topology cpu:8     # simulated devices, without libtpu
python tools/plan.py --config configs/qualityfm_large.py:tpu --topology v5e:16x16 --topology 2xv5e:16x16

The step is the one that `launch/run.py` runs. TPUs are compiled for by libtpu (pip install libtpu), which needs none
of them; a large model takes minutes. Bytes are those of one device. Hours and input are at --mfu of the peak; with
data.store named, its pairs are those of an epoch, and under data.cache=device its segments lie at the devices.

Exit 0: the plan was made, and "fits" in its last line says what came out; 2: a fault of yours, named.
"""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

from jaxbio.config.command_line import count, parse_command, share
from jaxbio.config.faults import Fault, UserError, run_command
from launch import environment

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> dict:
    """Compile the step of a recipe for topologies; return memory, FLOPs, collectives, times and verdict of each."""
    flags, config = parse_command(arguments, make_parser())
    environment.compile_only()
    import jax

    from jaxbio.export.frozen import read_networks
    from jaxbio.planning.plan import table
    from jaxbio.planning.topology import libtpu_version, parse_topology

    topologies = [parse_topology(text) for text in flags.topology]
    if len(topologies) > 1 and any(topology.version == "cpu" for topology in topologies):
        raise UserError(Fault("--topology", flags.topology, "one of cpu:N alone: simulated devices are set up once"))
    networks, data = read_networks(config), open_data(config)
    plans = {}
    for topology in topologies:
        plans[str(topology)] = plan_one(config, topology, networks, data, flags)
        log.info("%s: %s\n", topology, plans[str(topology)].account())
    versions = {"jax": jax.__version__, "libtpu": libtpu_version(topologies[0])}
    if len(plans) == 1:
        return next(iter(plans.values())).record() | {"topology": str(topologies[0])} | versions
    log.info("%s", table(plans))
    return {"plans": [plan.record() | {"topology": name} for name, plan in plans.items()]} | versions


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's own flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--topology",
        required=True,
        action="append",
        metavar="VERSION:SIDES",
        help="v5e:16x16, v4:2x2x4, 2xv5e:16x16 (two slices), cpu:8 ...; several times for a table",
    )
    parser.add_argument("--pairs", type=count, metavar="N", help="pairs of an epoch, where no store is named")
    parser.add_argument(
        "--mfu", type=share, default=0.35, metavar="SHARE", help="share of the peak that a run may reach"
    )
    parser.add_argument(
        "--loader_pairs_per_s", type=float, metavar="N", help="what tools/bench_loader.py gives on one host"
    )
    parser.add_argument(
        "--largest_batch", action="store_true", help="also look for the largest batch that fits; a compilation each"
    )
    return parser


def open_data(config):
    """Return the data of the run where the recipe names a store that is there.

    Raises UserError where they are to lie at the devices and no store is named.
    """
    from jaxbio.training.run_data import open_run_data

    if config.data.store is None or str(config.data.store).startswith("synthetic:"):
        if config.data.cache == "device" or config.data.batching != "pairs":
            remedy = "name the store with --config.data.store=STORE: the plan counts its segments and pairs"
            raise UserError(Fault("data.store", config.data.store, remedy))
        return None
    return open_run_data(config, config.data.store)


def plan_one(config, topology, networks, data, flags):
    """Return the plan for one topology."""
    from jaxbio.planning.demand import Asked
    from jaxbio.planning.plan import find_largest_batch, make_plan
    from jaxbio.planning.topology import open_topology

    devices = open_topology(topology)
    plan = make_plan(config, devices, networks, data, Asked(flags.pairs, flags.mfu, flags.loader_pairs_per_s))
    if not flags.largest_batch:
        return plan
    ways = plan.mesh["data"] * plan.mesh["fsdp"]

    def fits(changed) -> bool:
        if changed.train.batch == config.train.batch:
            return plan.fits
        try:
            its_data = open_data(changed)  # the rows that the devices hold are those of the batch
        except UserError as error:
            log.info("a batch of %d: %s", changed.train.batch, error)
            return False
        return make_plan(changed, devices, networks, its_data).fits

    return dataclasses.replace(plan, largest_batch=find_largest_batch(config, fits, ways))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
