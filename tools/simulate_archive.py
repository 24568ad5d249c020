"""Make an archive of WFDB recordings as large as wanted on little disk, to measure how preparation scales.

python tools/simulate_archive.py --subjects 100 --hours 24 --out DIR
python tools/simulate_archive.py --subjects 200000 --hours 0.01 --out DIR       # for listing

Headers are real, one recording a subject, in folders as MIMIC has them. Signals are synthetic, made once: all
recordings are links to one file. So segments are duplicates of each other: good for measuring, not for learning.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

import numpy as np

from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.data.recordings import list_recordings, parse_source

RATE_HZ = 125  # MIMIC's
_MADE_SEGMENTS = 120  # an hour, repeated
_MOST_LINKS = 30_000  # of one file, where file systems allow as few as 65,000


def main(arguments: Sequence[str]) -> dict:
    """Write the archive and return what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=100, metavar="N", help="how many, with a recording each")
    parser.add_argument("--hours", type=float, default=24.0, metavar="H", help="length of each recording")
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder")
    flags, _ = parse_command(arguments, parser, needs_config=False)
    out = Path(flags.out)
    if out.exists():
        raise UserError(Fault("--out", str(out), "exists; name a new folder"))
    samples = round(flags.hours * 3600 * RATE_HZ)
    signal = make_signal(samples)
    shared = out
    for number in range(flags.subjects):
        name = f"p{number:06d}"
        folder = out / f"p{number // 1000:03d}" / name
        folder.mkdir(parents=True)
        if number % _MOST_LINKS == 0:
            shared = folder / f"{name}.dat"
            shared.write_bytes(signal)
        else:
            os.link(shared, folder / f"{name}.dat")
        signals = f"{name}.dat 16 8000/NU 16 0 0 0 0 PLETH\n{name}.dat 16 8000/mV 16 0 0 0 0 II\n"
        (folder / f"{name}.hea").write_text(f"{name} 2 {RATE_HZ} {samples}\n{signals}")
    return {"out": str(out), "recordings": flags.subjects, "hours": flags.subjects * flags.hours}


def make_signal(samples: int) -> bytes:
    """Return so many frames of PPG and ECG as format 16 has them."""
    source = parse_source(f"synthetic:{_MADE_SEGMENTS}")
    parts = []
    for recording in list_recordings(source, {"ppg": ("PLETH",), "ecg": ("II",)}):
        read = recording.read(0.0, recording.duration_s, ("ppg", "ecg"))  # type: ignore[union-attr]
        parts.append(np.stack([read["ppg"], read["ecg"]], axis=1))
    hour_TC = np.concatenate(parts)
    frames_TC = np.take(hour_TC, np.arange(samples), axis=0, mode="wrap")
    stored_TC = np.clip(np.rint(8000 * frames_TC), -32767, 32767)
    return np.where(np.isnan(stored_TC), -32768, stored_TC).astype("<i2").tobytes()  # signal(5): what is missing


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
