"""Draw the README's picture of segments: synthetic signals with the scores that jaxbio gives them.

python tools/draw_pictures.py --out docs
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

import numpy as np

import jaxbio
from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import run_command
from jaxbio.report import figures
from jaxbio.signals.synthetic import Artefact, Synthetic, recording

_RATE_HZ, _SEGMENT_S, _SHOWN_S = 125.0, 30.0, (8.0, 18.0)


def main(arguments: Sequence[str]) -> dict:
    """Write segments.svg into the folder; return its path and the scores drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write segments.svg into")
    flags, _ = parse_command(arguments, parser, needs_config=False)
    cases = {
        "Sinus rhythm": _segment("sinus"),
        "Atrial fibrillation: irregular, and just as good": _segment("af"),
        "Sinus rhythm with muscle noise": _segment("sinus", ("ecg", "emg", 3.0), ("ppg", "white", 8.0)),
        "The patient moves": _segment("sinus", ("ppg", "motion", -10.0), ("ecg", "motion", -6.0)),
        "Lost": _segment("sinus", ("ecg", "motion", -14.0), ("ppg", "white", -14.0)),
    }
    fig, axes = figures.new_figure(2 * len(cases), height_in=1.5 * len(cases), width_in=4.8, sharex=True)
    scores = {}
    for number, (name, made) in enumerate(cases.items()):
        scores[name] = jaxbio.signals.score(ppg=made.ppg, ecg=made.ecg, rate_hz=_RATE_HZ)["quality_waveform"]
        first, last = (round(edge_s * _RATE_HZ) for edge_s in _SHOWN_S)
        for row, signal, role in zip((0, 1), (made.ppg, made.ecg), ("PPG", "ECG")):
            panel = axes[2 * number + row]
            panel.plot(np.arange(first, last) / _RATE_HZ, signal[first:last], color=figures.COLOURS[row], linewidth=0.9)
            panel.set(ylabel=role, yticks=[])
            panel.grid(visible=False)
        axes[2 * number].set_title(f"{name}: score {scores[name]:.2f}", loc="left", fontsize=9)
    axes[-1].set(xlabel="time, s")
    path = Path(flags.out) / "segments.svg"
    path.write_text(figures.to_picture(fig), encoding="utf-8")
    return {"picture": str(path), "scores": {name: round(score, 3) for name, score in scores.items()}}


def _segment(rhythm: str, *disturbances: tuple[str, str, float]) -> Synthetic:
    """Return half a minute of `rhythm`, disturbed by (channel, kind, SNR in dB) all the time."""
    artefacts = [Artefact(kind, channel, 0.0, _SEGMENT_S, snr_db) for channel, kind, snr_db in disturbances]
    return recording(3, duration_s=_SEGMENT_S, rate_hz=_RATE_HZ, rhythm=rhythm, artefacts=artefacts)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
