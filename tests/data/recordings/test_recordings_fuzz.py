"""Mutated files of every format: always a named outcome, soon, in little memory (tools/fuzz_readers.py).

Run as a script, `python tests/data/recordings/test_recordings_fuzz.py DIR` writes the good recordings into DIR and
prints the source lines with which the tool takes them.
"""

import functools
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import test_arrow_files
import test_dicom_files
import test_ecg_xml_files
import test_edf_files
import test_hdf5_files
import test_mat_files
import test_pickle_files
import test_vital_files
from small_files import write_csv, write_frames, write_record


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
        ("d.csv", "rate_hz=50", {"PPG": columns["PPG"]}),
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
    return made + named_seeds(folder)


def named_seeds(folder: Path) -> list[tuple[str, list[Path]]]:
    """Write good files of the formats that have tests of their own, through their writers there."""
    made = []
    writers = {
        "a.edf": ("edf:", test_edf_files.write_edf),
        "plus.edf": ("edf:", functools.partial(test_edf_files.write_edf, plus=True)),
        "gaps.edf": ("edf:", write_interrupted),
        "a.bdf": ("edf:", functools.partial(test_edf_files.write_edf, bdf=True, plus=True)),
        "a.vital": ("vital:", functools.partial(test_vital_files.write_vital, packed=False, minutes=1)),
        "packed.vital": ("vital:", functools.partial(test_vital_files.write_vital, packed=True, minutes=1)),
        "a.h5": ("hdf5:", test_hdf5_files.write_h5),
        "packed.h5": ("hdf5:", functools.partial(test_hdf5_files.write_h5, chunks=(500,), compression="gzip")),
        "a.mat": (f"mat:{test_mat_files.EACH}", write_mat),
        "packed.mat": (f"mat:{test_mat_files.EACH}", functools.partial(write_mat, packed=True)),
        "p73.mat": ("mat:?each=data/*&columns=ppg:PPG_Raw,ecg:ECG_Raw", write_mat_73),
        "S2.pkl": ("pickle:?rates=ppg:64,ecg:700&columns=ppg:BVP", write_pickle),
        "a.parquet": ("parquet:?rate_hz=50", lambda path: test_arrow_files.write(path, test_arrow_files.table(20))),
        "a.arrow": ("arrow:?rate_hz=50", lambda path: test_arrow_files.write(path, test_arrow_files.table(20))),
        "a.dcm": ("dicom:", write_dicom),
        "aecg.xml": ("xml:", lambda path: path.write_text(test_ecg_xml_files.aecg())),
        "muse.xml": ("xml:", lambda path: path.write_text(test_ecg_xml_files.muse())),
    }
    for name, (line, write) in writers.items():
        home = folder / f"named_{name.replace('.', '_')}"
        home.mkdir()
        write(home / name)
        made.append((line, [home / name]))
    return made


def write_interrupted(path):
    test_edf_files.write_edf(path, plus=True)
    test_edf_files.interrupt(path, [0, 2, 10, 12, 14])


def write_mat(path, packed=False):
    subjects = np.array([test_mat_files.perform(number) for number in range(2)], object)
    scipy.io.savemat(path, {"data": subjects, "note": "x"}, do_compression=packed)


def write_mat_73(path):
    rng = np.random.default_rng(0)
    test_mat_files.write_73(path, [{field: rng.normal(size=1250) for field in ("PPG_Raw", "ECG_Raw")} for _ in "ab"])


def write_pickle(path):
    path.write_bytes(pickle.dumps(test_pickle_files.wesad(), 2))


def write_dicom(path):
    test_dicom_files.write_dicom(path, [test_dicom_files.group(test_dicom_files.raw(5000))])


def halves(values: np.ndarray, which: int) -> list[str]:
    """Return cells of which every other one is empty."""
    return [str(value) if number % 2 == which else "" for number, value in enumerate(values)]


@pytest.fixture(scope="module")
def tool(repository):
    sys.path.insert(0, str(repository / "tools"))
    import fuzz_readers

    return fuzz_readers


@pytest.mark.parametrize("cases", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_files_always_come_to_a_named_outcome(tmp_path, tool, cases):
    good = [tool.read_good(line) for line in lines_of(tmp_path)]
    counts, findings = tool.fuzz(good, range(cases), seed=cases)
    assert findings == {}
    assert sum(counts.values()) == cases
    # A fuzzer that always breaks the file, or never, tests nothing.
    read = sum(count for said, count in counts.items() if said.endswith(": read"))
    assert 0.05 * cases < read < 0.8 * cases
    assert len({said.split(": ")[1].split()[0] for said in counts}) >= 6


@pytest.mark.slow
def test_case_that_takes_more_memory_than_it_may_is_found(tmp_path, tool, monkeypatch):
    write_record(tmp_path, "r0", seconds=12.0)
    good = [tool.read_good(f"wfdb:{tmp_path}")]
    monkeypatch.setattr(tool, "LIMIT_BYTES", 2**20)  # less than any process has
    counts, findings = tool.fuzz(good, [7], seed=1)
    assert counts == {}
    assert "bytes of memory" in findings[7]


def lines_of(folder: Path) -> list[str]:
    """Write the good recordings below `folder` and return their source lines."""
    lines = []
    for line, paths in seeds(folder):
        kind, _, query = line.partition(":")
        lines.append(f"{kind}:{paths[0] if len(paths) == 1 else paths[0].parent}{query}")
    return lines


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    print(" ".join(f"--source '{line}'" for line in lines_of(Path(sys.argv[1]))))
