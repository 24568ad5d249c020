"""Measure how fast an export embeds raw signals here: loading, the first call with its compilation, later calls.

python tools/bench_embed.py --export runs/quickstart/export
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

import numpy as np

from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import Fault, UserError, run_command


def main(arguments: Sequence[str]) -> dict:
    """Embed random segments several times; return seconds and segments a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", required=True, metavar="DIR", help="an export folder")
    parser.add_argument("--segments", type=int, default=100, metavar="N", help="segments a call")
    parser.add_argument("--rate_hz", type=float, default=125.0, metavar="HZ", help="rate of the signals, Hz")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="calls after the first; the median counts")
    flags, _ = parse_command(arguments, parser, needs_config=False)
    if flags.segments < 1 or flags.rounds < 1:
        raise UserError(Fault("--segments", flags.segments, "at least 1, and at least 1 of --rounds"))
    from jaxbio.export.pretrained import load_pretrained
    from jaxbio.training.devices import check_devices

    check_devices()
    load_s, model = _timed(lambda: load_pretrained(flags.export))
    samples = round(flags.segments * model.card.length / model.card.rate_hz * flags.rate_hz)
    rng = np.random.default_rng(0)
    signals = {role: rng.normal(size=samples) for role in model.card.channels}
    seconds = [_timed(lambda: model.embed(**signals, rate_hz=flags.rate_hz))[0] for _ in range(flags.rounds + 1)]
    median_s = statistics.median(seconds[1:])
    return {
        "export": flags.export,
        "parameters": model.card.parameters,
        "load_s": round(load_s, 3),
        "first_s": round(seconds[0], 3),
        "median_s": round(median_s, 3),
        "segments_per_s": round(flags.segments / median_s, 1),
    }


def _timed(call):
    start_s = time.monotonic()
    result = call()
    return time.monotonic() - start_s, result


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
