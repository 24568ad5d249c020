"""Whether a run fits a TPU slice, before you have one: the training step compiled for its topology, on any machine.

python tools/plan.py --config configs/qualityfm_large.py --topology v5e:16x16
python tools/plan.py --config configs/qualityfm_large.py:tpu,fsdp --topology v5e:4x4 --config.train.batch=1024
python tools/plan.py --config configs/qualityfm_base.py --topology cpu:8     # simulated devices, without libtpu

The step is the one that `launch/run.py` runs. TPUs are compiled for by libtpu (pip install libtpu), which needs none
of them; a large model takes minutes. Bytes are those of one device.

Exit 0: the plan was made, and "fits" in its last line says what came out; 2: a fault of yours, named.
"""

import argparse
import logging
import sys
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
    """Compile the step of a recipe for a topology; return memory, FLOPs, collectives and verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", required=True, metavar="VERSION:SIDES", help="v5e:16x16, v4:2x2x4, cpu:8 ...")
    flags, config = parse_command(arguments, parser)
    environment.configure(deterministic=config.precision.deterministic)
    environment.compile_only()
    import jax

    from jaxbio.export.frozen import read_networks
    from jaxbio.planning.plan import make_plan
    from jaxbio.planning.topology import libtpu_version, open_topology, parse_topology

    topology = parse_topology(flags.topology)
    plan = make_plan(config, open_topology(topology), read_networks(config))
    log.info("%s", plan.account())
    return plan.record() | {"topology": str(topology), "jax": jax.__version__, "libtpu": libtpu_version(topology)}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
