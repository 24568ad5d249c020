"""Draw one recording before anything is prepared: its channels, its scores, and what would be rejected and why.

python tools/look.py wfdb:archive/p10/p100020/3544749_0001.hea --out look.html
python tools/look.py 'csv:bidmc/bidmc_01_Signals.csv.gz?rate_hz=125' --out look.png
python tools/look.py synthetic:20 --recording seed0-000001 --config configs/qualityfm_base.py
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

from jaxbio.config import fields
from jaxbio.config.command_line import config_words, parse_command
from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.config.next_lines import python, say_next
from jaxbio.config.roles import UNITS
from jaxbio.data.recordings import Recording, Refused, list_recordings, parse_assumed, parse_source
from jaxbio.data.recordings.channels import name_missing
from jaxbio.data.recordings.missing import roles_read
from jaxbio.report.recording import write_recording_report


def main(arguments: Sequence[str]) -> dict:
    """Draw the recording; return what is known of it and where the drawing lies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FORMAT:FILE[?options]", help="a source line, as prepare_store.py takes it")
    parser.add_argument("--recording", metavar="NAME", help="which of the source's recordings; default: the first")
    parser.add_argument("--assume_unit", metavar="ROLE:UNIT", help="unit of signals that state none: ecg:uV,ppg:NU")
    parser.add_argument("--out", metavar="FILE", default="look.html", help="a page (.html) or one picture (.png)")
    flags, config = parse_command(arguments, parser, needs_config=False)
    out = Path(flags.out)
    if out.suffix not in (".html", ".png") or not out.parent.is_dir():
        raise UserError(Fault("--out", flags.out, "a file .html or .png in a folder that exists"))
    config = config or fields.defaults()
    # The recipe's roles, and ECG, PPG and pressure in any case: what a recording has shows which recipe suits it.
    wanted = roles_read((*UNITS, *config.data.channels), config.prepare.missing_channel)
    names = {role: config.prepare.channel_names[role] for role in wanted}
    recording = choose_recording(flags.source, flags.recording, names, parse_assumed(flags.assume_unit))
    missing = [role for role in config.data.channels if role not in recording.channels]
    if missing:
        logging.warning(name_missing(missing, recording.signals, names))
    summary = write_recording_report(recording, config, out)
    if not missing:  # else preparing it would keep nothing
        words = config_words(arguments) or ["--config", "configs/qualityfm_base.py"]
        assumed = ["--assume_unit", flags.assume_unit] if flags.assume_unit else []
        said = ["--source", flags.source, *assumed, "--out", "store", "--dry_run"]
        say_next(python("tools/prepare_store.py", *words, *said))
    return {**summary, "report": str(out)}


def choose_recording(source: str, name: str | None, channel_names: dict, assumed: dict[str, str]) -> Recording:
    """Return the source's recording `name`, or its first; raises UserError that says why there is none."""
    entries = list_recordings(parse_source(source, assumed), channel_names)
    if name is not None:
        entries = [entry for entry in entries if entry.recording == name]
    recordings = [entry for entry in entries if isinstance(entry, Recording)]
    if not recordings:
        refused = [entry for entry in entries if isinstance(entry, Refused)]
        reasons = "; ".join(f"{entry.reason}: {entry.detail}" for entry in refused[:5])
        raise UserError(Fault("source", source, reasons or f"holds no recording named {name!r}"))
    logging.info("%s: the first of %d recordings", recordings[0].recording, len(recordings))
    return recordings[0]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
