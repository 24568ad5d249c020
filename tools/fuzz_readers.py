"""Feed mutated recordings to the readers: each must come to a named outcome, within 10 s and 1 GiB, and crash nothing.

python tools/fuzz_readers.py --source edf:good/night.edf --source 'mat:good/a.mat?rate_hz=125' --cases 10000
python tools/fuzz_readers.py --source wfdb:good/folder --cases 1 --first 4711    # one case again

A source is a good recording: a file, or a folder of the files of one. They are copied, one is changed in one to three
places, and the copy is listed and read. Named is: every sample read, or a rejection with a reason that names the file.
Anything else is printed with the number that makes the case again, and the command ends with 1. Each process of cases
is watched from outside, so that one that hangs or dies is a finding too.
"""

import argparse
import collections
import gzip
import logging
import multiprocessing
import random
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone runs without being installed

if __name__ == "__main__":
    from launch.begin import begin

    begin()

import numpy as np
import psutil
from tqdm import tqdm

from jaxbio.config.faults import Fault, UserError, run_command
from jaxbio.config.peak_memory import peak_bytes
from jaxbio.config.roles import ROLES
from jaxbio.data.recordings import REASONS, Recording, RecordingError, Refused, list_recordings, parse_source
from jaxbio.data.recordings.source import split_source

LIMIT_S, LIMIT_BYTES = 10, 2**30
FINDING = "FINDING"
_LONGEST_WAIT_S = 120.0
_NAMES = {role: ROLES[role].names for role in ("ppg", "ecg", "abp")}
_READ_S = 60.0  # of the beginning and of the end
# What headers, tables and binary fields stumble over: numbers out of range, signs, separators, other files, lengths.
_TEXTS = (
    *("0", "-1", "1e308", "nan", "inf", "9" * 25, "16x0", "212", "8", "310", "516", "80", "~", "/", "../x"),
    *("/etc/passwd", "", " ", "\n", "\r\n", "\t", ",", ";", '"', "#", "\0", "ÿ", "(", ")", "+24", ":9999999", "x4"),
    *("mV", "furlong", "r0/3", "s1 100", "~ 99999999999", "II", "PLETH", "2016-11-24 13:58:58", "1,2,3", "-512"),
    *("2016-11-24T13:58:58.123456789+05:30", "13:5:0", "-0,5", "1.234,5", "#N/A", "-----", "sep=;", "'", "1e-320"),
    *("0:30.5", "1447333455.0", "64.0", "+0000000", "x999999", "(2147483647)", "~ 0", "524", "160", "24", ",,,,"),
    *("\ufeff", "EDF+D", "99999999", "-1      ", "+1e9\x14\x14\0", "cposix\nsystem\n", "<!ENTITY a 'b'>"),
)
TOKENS = (
    *(text.encode() for text in _TEXTS),
    *(number.to_bytes(size, order) for size in (2, 4, 8) for order in ("little", "big") for number in (0, 1, 2**15)),
    *(b"\xff" * size for size in (1, 2, 4, 8)),
    *(b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\0\0\0\x40", b"\0\0\xf0\x7f", b"\0\0\0\0\0\0\xf0\x7f"),
)


class Good(NamedTuple):
    """A good recording: its format, the options of its source line, and what its files hold by name."""

    format: str
    query: str
    files: dict[str, bytes]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Return `content` with one to three changes: bits, cuts, insertions, tokens, whole lines, or nothing left.

    What is packed by gzip is mostly changed before it is packed.
    """
    if content[:2] == b"\x1f\x8b" and rng.random() < 0.7:
        return gzip.compress(mutate(gzip.decompress(content), rng), 1)
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        # Most harm is done at the beginning, where headers are.
        reach = len(data) if rng.random() < 0.5 else min(len(data), rng.choice((200, 4000)))
        at = rng.randrange(reach) if reach else 0
        kind = rng.randrange(8)
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + rng.randint(1, 40)]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randint(1, 40))
        elif kind in (4, 5):
            token = rng.choice(TOKENS)
            stop = at + rng.choice((0, len(token), len(token), 6))
            data[at:stop] = token
        elif kind == 6:
            lines = bytes(data).split(b"\n")
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))
            del lines[rng.randrange(len(lines))]
            data = bytearray(b"\n".join(lines))
        elif rng.random() < 0.1:
            data.clear()
    return bytes(data)


def run_case(good: Sequence[Good], seed: int, case: int) -> str:
    """Mutate a file of a good recording, list it and read it; return the name of what came of it.

    Raises what no reader may raise, and AssertionError for samples of another number, or a rejection without a file.
    """
    rng = random.Random(f"{seed}-{case}")
    chosen = good[case % len(good)]
    with tempfile.TemporaryDirectory() as folder:
        for name, content in chosen.files.items():
            Path(folder, name).write_bytes(content)
        name = rng.choice(sorted(chosen.files))
        Path(folder, name).write_bytes(mutate(chosen.files[name], rng))
        return outcome(f"{chosen.format}:{folder}{chosen.query}", folder)


def outcome(line: str, folder: str) -> str:
    """List and read all of a source that lies in `folder`; return what came of it, by the reasons' names."""
    try:
        entries = list_recordings(parse_source(line), _NAMES)
    except UserError:
        return "user_error"
    named = "read"
    for entry in entries[:50]:
        if isinstance(entry, Refused):
            assert entry.reason in REASONS, entry.reason
            assert folder in entry.detail or entry.recording in entry.detail, f"names no file: {entry.detail}"
            named = _said(entry.reason, entry.detail)
            continue
        try:
            # Beginning and end: a mutated gap may make a year of nothing, read by blocks like any year.
            for start_s in {0.0, max(0.0, entry.duration_s - _READ_S)}:
                stop_s = min(start_s + _READ_S, entry.duration_s)
                for role, samples in entry.read(start_s, stop_s, list(entry.channels)).items():
                    rate_hz = entry.channels[role].rate_hz
                    assert samples.dtype == np.float32, samples.dtype
                    assert samples.shape == (round(stop_s * rate_hz) - round(start_s * rate_hz),), samples.shape
        except RecordingError as error:
            named = _said(error.reason, error.detail) if error.file else f"{FINDING} a failure names no file"
    return named


def _said(reason: str, detail: str) -> str:
    """Return a reason, with what was raised where a reader did not expect it."""
    raised = re.search(r"\b(\w+(?:Error|Exception|Iteration)): ", detail)
    return f"{reason} ({raised[1]})" if raised and reason == "unreadable_file" else reason


class Worker:
    """A process that runs cases one by one, watched from here."""

    def __init__(self, good: Sequence[Good], seed: int):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, good, seed), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # its imports take their time

    def run(self, case: int) -> str:
        """Return what came of a case; where it begins with FINDING, the process is of no more use."""
        began_s, before_s = time.monotonic(), self._spent_s()
        self._pipe.send(case)
        try:
            while not self._pipe.poll(1.0):
                # Of its own processor time: on a busy machine a case may wait long for its turn.
                if self._spent_s() - before_s > LIMIT_S or time.monotonic() - began_s > _LONGEST_WAIT_S:
                    return f"{FINDING} more than {LIMIT_S} s"
            said, peak_bytes = self._pipe.recv()
        except EOFError:
            self._process.join()
            return f"{FINDING} the process ended with {self._process.exitcode}"
        return said if peak_bytes <= LIMIT_BYTES else f"{FINDING} {peak_bytes:,} bytes of memory ({said})"

    def _spent_s(self) -> float:
        """Return the processor time of the process so far; of one that has ended 0."""
        try:
            return sum(psutil.Process(self._process.pid).cpu_times()[:2])
        except psutil.Error:
            return 0.0

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()


def _work(pipe: Connection, good: Sequence[Good], seed: int) -> None:
    """Run the cases that come through `pipe`, and send back what came of each, with the peak of memory."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    pipe.send("ready")
    while True:
        case = pipe.recv()
        try:
            said = run_case(good, seed, case)
        except Exception as error:
            said = f"{FINDING} {type(error).__name__}: {error}"
        pipe.send((said, peak_bytes()))


def fuzz(good: Sequence[Good], cases: Sequence[int], seed: int) -> tuple[dict[str, int], dict[int, str]]:
    """Run `cases` in a process of their own; return how often each outcome came, and the findings by case."""
    counts: collections.Counter[str] = collections.Counter()
    findings: dict[int, str] = {}
    worker = Worker(good, seed)
    for case in tqdm(cases, unit=" cases", disable=not sys.stderr.isatty()):
        said = worker.run(case)
        if said.startswith(FINDING):
            findings[case] = f"{good[case % len(good)].format}: {said}"
            logging.warning("case %d: %s", case, findings[case])
            worker.end()
            worker = Worker(good, seed)
        else:
            counts[f"{good[case % len(good)].format}: {said}"] += 1
    worker.end()
    return dict(counts.most_common()), findings


def read_good(line: str) -> Good:
    """Return the good recording of a source line; raises UserError where it cannot be read."""
    source = parse_source(line)
    _, path, options = split_source(line)
    query = "?" + "&".join(f"{key}={value}" for key, value in options) if options else ""
    files = sorted(Path(path).iterdir()) if Path(path).is_dir() else [Path(path)]
    if not any(isinstance(entry, Recording) for entry in list_recordings(source, _NAMES)):
        raise UserError(Fault("--source", line, "holds no recording: look at it with tools/look.py"))
    return Good(source.format, query, {file.name: file.read_bytes() for file in files if file.is_file()})


def main(arguments: Sequence[str]) -> dict:
    """Run the cases; return counts by format and outcome, and the findings, of which there should be none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", action="append", required=True, metavar="FORMAT:PATH", help="a good recording")
    parser.add_argument("--cases", type=int, default=1000, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the number of the first case")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    flags = parser.parse_args(arguments)
    good = [read_good(line) for line in flags.source]
    began_s = time.monotonic()
    counts, findings = fuzz(good, range(flags.first, flags.first + flags.cases), flags.seed)
    said = {"cases": flags.cases, "seconds": round(time.monotonic() - began_s), "outcomes": counts}
    if findings:
        raise UserError(*(Fault(f"case {case}", found, "mend the reader") for case, found in findings.items()))
    return said


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(main)
