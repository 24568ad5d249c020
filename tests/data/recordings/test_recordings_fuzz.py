"""Mutated headers, data files, texts and arrays: always a named outcome, soon.

Named is: a Recording whose every sample was read, a Refused, a RecordingError, or a UserError. Anything else raised, a
wrong number of samples, or more than ten seconds fails, with the seed that makes the case again.
"""

import random
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
from small_files import NAMES, write_csv, write_frames, write_record

from jaxbio.config.faults import UserError
from jaxbio.data.recordings import REASONS, RecordingError, Refused, list_recordings, parse_source

LIMIT_S = 10
# What mutated headers and tables stumble over: numbers out of range, signs, separators, other files.
TOKENS = (
    *(
        "0",
        "-1",
        "1e308",
        "nan",
        "inf",
        "9" * 25,
        "16x0",
        "212",
        "8",
        "310",
        "516",
        "80",
        "~",
        "/",
        "../x",
        "/etc/passwd",
    ),
    *("", " ", "\n", "\r\n", "\t", ",", ";", '"', "#", "\0", "ÿ", "(", ")", "+24", ":9999999", "x4", "mV", "furlong"),
    *("r0/3", "s1 100", "~ 99999999999", "II", "PLETH", "2016-11-24 13:58:58", "1,2,3"),
    *(
        "2016-11-24T13:58:58.123456789+05:30",
        "13:5:0",
        "-512",
        "-0,5",
        "1.234,5",
        "#N/A",
        "-----",
        "sep=;",
        "'",
        "1e-320",
    ),
    *(
        "0:30.5",
        "1447333455.0",
        "64.0",
        "+0000000",
        "x999999",
        "(2147483647)",
        "~ 0",
        "524",
        "160",
        "24",
        ",,,,",
        "\ufeff",
    ),
)


def seeds(folder: Path) -> list[tuple[str, list[Path]]]:
    """Write good recordings of every kind and return (source line without its path, the files of one) each."""
    made: list[tuple[str, list[Path]]] = []
    for fmt in ("16", "212", "516", "311", "8", "24", "310", "160"):
        home = folder / f"wfdb{fmt}"
        home.mkdir(parents=True)
        write_record(home, "r0", seconds=12.0, fmt=fmt)
        made.append(("wfdb:", sorted(home.iterdir())))
    home = folder / "layout"
    home.mkdir()
    write_record(home, "s1", seconds=8.0)
    write_frames(home, "s2", ["s2.dat 16x2:3 200/mV 16 0 0 0 0 II"], [np.arange(2000).reshape(1000, 2)])
    (home / "s0.hea").write_text("s0 2 125 0\n~ 0 1/NU 0 0 0 0 0 PLETH\n~ 0 1/mV 0 0 0 0 0 II\n")
    (home / "r0.hea").write_text("r0/4 2 125 2125 08:00:00 01/02/2020\ns0 0\ns1 1000\n~ 125\ns2 1000\n")
    made.append(("wfdb:", sorted(home.iterdir())))
    rng = np.random.default_rng(0)
    columns = {"time": np.arange(900) * 20, "PPG": rng.integers(0, 999, 900), "II [mV]": rng.normal(size=900).round(3)}
    stamps = {**columns, "time": np.datetime64("2020-01-01T00:00:00") + np.arange(900) * np.timedelta64(20, "ms")}
    for name, query, table in (
        ("a.csv", "rate_hz=50", columns),
        ("a.csv.gz", "rate_hz=50", columns),
        ("b.csv", "time=time:ms", columns),
        ("c.txt", "time=time:datetime", stamps),
        ("d.csv", "rate_hz=50&columns=ppg:1", {"PPG": columns["PPG"]}),
        ("e.csv", "time=t:datetime", {"t": np.repeat(stamps["time"][::50], 50), "PPG": columns["PPG"]}),
        (
            "f.csv",
            "time=t:s&missing=x,-999",
            {"t": np.arange(900) / 50, "PPG": halves(columns["PPG"], 0), "II": halves(columns["PPG"], 1)},
        ),
        ("g.csv", "columns=ppg:1", {"1447333455.0": ["64.0", *columns["PPG"]]}),
    ):
        made.append((f"csv:?{query}", [write_csv(folder / name.replace(".", "_") / name, table)]))
    for name, text in (
        (
            "h.txt",
            "   PPG   II\n  (NU)  (mV)\n"
            + "".join(f"{a:>9} {b:>9}\n" for a, b in zip(columns["PPG"], columns["II [mV]"])),
        ),
        ("i.csv", "".join(f"{a};{b}\n".replace(".", ",") for a, b in zip(columns["II [mV]"], columns["PPG"]))),
    ):
        home = folder / name.replace(".", "_")
        home.mkdir()
        (home / name).write_bytes(text.encode("utf-16") if name == "i.csv" else text.encode())
        made.append((f"csv:?rate_hz=50&columns={'ppg:1' if name == 'i.csv' else 'ppg:PPG,ecg:II'}", [home / name]))
    home = folder / "numpy"
    home.mkdir()
    np.save(home / "a.npy", rng.normal(size=(2, 900)))
    np.savez(
        home / "b.npz", PLETH=rng.normal(size=900), ii=np.arange(900), rate_hz=50.0, name="p7", mask=np.ones(9, bool)
    )
    made += [("numpy:?rate_hz=50&columns=ppg:1,ecg:2", [home / "a.npy"]), ("numpy:", [home / "b.npz"])]
    return made


def halves(values: np.ndarray, which: int) -> list[str]:
    """Return cells of which every other one is empty."""
    return [str(value) if number % 2 == which else "" for number, value in enumerate(values)]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Return `content` with one to three changes: bits, cuts, insertions, tokens, whole lines, or nothing left."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        # Most harm is done at the beginning, where headers are.
        reach = len(data) if rng.random() < 0.5 else min(len(data), 200)
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
            token = rng.choice(TOKENS).encode()
            stop = at + rng.choice((0, len(token), 6))
            data[at:stop] = token
        elif kind == 6:
            lines = bytes(data).split(b"\n")
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))
            del lines[rng.randrange(len(lines))]
            data = bytearray(b"\n".join(lines))
        elif rng.random() < 0.1:
            data.clear()
    return bytes(data)


def outcome(line: str) -> str:
    """List and read all of a source; return the name of what came of it."""
    try:
        entries = list_recordings(parse_source(line), NAMES)
    except UserError:
        return "user_error"
    named = "read"
    for entry in entries:
        if isinstance(entry, Refused):
            assert entry.reason in REASONS
            assert entry.detail
            named = entry.reason
            continue
        try:
            # Beginning and end: a mutated gap may make a year of nothing, read by blocks like any year.
            for start_s in {0.0, max(0.0, entry.duration_s - 60.0)}:
                stop_s = min(start_s + 60.0, entry.duration_s)
                for role, samples in entry.read(start_s, stop_s, list(entry.channels)).items():
                    rate_hz = entry.channels[role].rate_hz
                    assert samples.dtype == np.float32
                    assert samples.shape == (round(stop_s * rate_hz) - round(start_s * rate_hz),)
        except RecordingError as error:
            named = error.reason if error.file else "no file named"
    return named


def fuzz(folder: Path, cases: int, seed: int) -> dict[str, int]:
    """Run `cases` mutations and return how often each outcome came."""

    def too_slow(signum, frame):
        raise TimeoutError(f"no outcome within {LIMIT_S} s")

    made = [(line, [(path, path.read_bytes()) for path in paths]) for line, paths in seeds(folder)]
    counts: dict[str, int] = {}
    before = signal.signal(signal.SIGALRM, too_slow)
    try:
        for case in range(cases):
            rng = random.Random(f"{seed}-{case}")
            line, files = made[case % len(made)]
            path, content = rng.choice(files)
            path.write_bytes(mutate(content, rng))
            kind, _, query = line.partition(":")
            signal.alarm(LIMIT_S)
            try:
                named = outcome(f"{kind}:{path.parent}{query}")
            except Exception as error:
                raise AssertionError(f"case {seed}-{case} ({path}): {type(error).__name__}: {error}") from error
            finally:
                signal.alarm(0)
            counts[named] = counts.get(named, 0) + 1
            path.write_bytes(content)
    finally:
        signal.signal(signal.SIGALRM, before)
    return counts


@pytest.mark.parametrize("cases", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_files_always_come_to_a_named_outcome(tmp_path, cases):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy and wfdb warn about what they read; the outcome is what counts
        counts = fuzz(tmp_path, cases, seed=1)
    assert sum(counts.values()) == cases
    # A fuzzer that always breaks the file, or never, tests nothing.
    assert 0.05 * cases < counts["read"] < 0.8 * cases
    assert len(counts) >= 6
    assert "no file named" not in counts
