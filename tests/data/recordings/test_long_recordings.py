"""Long recordings are read by spans: memory stays that of a span, and a span costs the same anywhere."""

import subprocess
import sys

import numpy as np
import pytest

DAYS, SIGNALS, RATE_HZ = 3, 8, 125

PROGRAM = r"""
import re, sys
from jaxbio.data.recordings import list_recordings, parse_source
(recording,) = list_recordings(parse_source(sys.argv[1]), {"ppg": ("PLETH",), "ecg": ("II",)})
samples, total = 0, 0.0
for start in range(0, int(recording.duration_s), 3600):
    read = recording.read(start, min(start + 3600, recording.duration_s), ["ppg", "ecg"])
    samples += read["ecg"].size
    total += float(read["ppg"].sum())
# ru_maxrss would carry over the peak of the process that started this one
print(samples, total, re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
"""


def read_in_own_process(source: str, repository) -> tuple[int, float, float]:
    """Return samples read, their sum, and the peak memory of the reading process in MiB."""
    command = [sys.executable, "-c", PROGRAM, source]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=repository)
    samples, total, peak_kib = done.stdout.split()
    return int(samples), float(total), int(peak_kib) / 1024


@pytest.mark.slow
@pytest.mark.parametrize("fmt", ["16", "212"])
def test_three_days_of_eight_signals_stay_far_below_a_gibibyte(tmp_path, repository, fmt):
    frames = DAYS * 86_400 * RATE_HZ
    block = np.tile(np.arange(SIGNALS, dtype="<i2") + 1, 125 * 3600)
    if fmt == "212":  # two samples of 12 bits in three bytes
        low, high = block[0::2], block[1::2]
        block = np.stack([low, high << 4, high], axis=1)
        block[:, 1] = 0
        block = block.astype("u1")
    with open(tmp_path / "long.dat", "wb") as file:
        for _ in range(DAYS * 24):
            block.tofile(file)
    names = ["II", "V", "PLETH", "ABP", "RESP", "I", "III", "CVP"]
    lines = [f"long.dat {fmt} 1/mV 16 0 0 0 0 {name}" for name in names]
    (tmp_path / "long.hea").write_text("\n".join([f"long {SIGNALS} {RATE_HZ} {frames}", *lines]) + "\n")
    samples, total, peak_mib = read_in_own_process(f"wfdb:{tmp_path}", repository)
    assert (samples, total) == (frames, 3.0 * frames)
    assert peak_mib < 512
