"""A simulated pod whose hosts train a linear model: nothing is compiled for long, so that many of them can be killed.

    python tests/launch/linear_pod.py --out DIR --hosts 4,8 --devices 8 --kills 50 --config.train.steps=200 \\
        --config.checkpoint.every_steps=20 --config.eval.every_steps=50

The flags are those of tools/simulate_pod.py; store and runs lie in DIR. All but the model is the launch line's.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent.parent))

from jaxbio.config.command_line import load_recipe  # noqa: E402
from jaxbio.config.faults import run_command  # noqa: E402
from jaxbio.data.prepare import prepare_store  # noqa: E402
from jaxbio.data.recordings import parse_source  # noqa: E402
from tools import simulate_pod  # noqa: E402

RECIPE = str(HERE / "tiny_recipe.py")
HOST = (sys.executable, str(HERE / "faulty_process.py"), "none", simulate_pod.AS_HOST)


def make_linear_pod(arguments: Sequence[str]) -> dict[str, Any]:
    """Make a store, then the runs that `arguments` of tools/simulate_pod.py ask for; return what was done."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--out", type=Path, required=True)
    flags, others = parser.parse_known_args(arguments)
    store, runs = flags.out / "store", flags.out / "runs"
    prepare_store([parse_source("synthetic:96")], load_recipe(RECIPE), store, progress=False)
    simulate_pod.HOST = HOST
    line = ["--config", RECIPE, f"--config.data.store={store}", "--out", str(runs)]
    return simulate_pod.main([*line, *others])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("absl").setLevel(logging.WARNING)
    run_command(make_linear_pod)
