"""The preparation commands of docs/data.md plan what they say, and its tools read labels, in JAXBIO_DATA."""

import csv
import os
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
from prepared import small_config

from jaxbio.data.labels import list_labels, open_labels
from jaxbio.data.prepare import prepare_store
from jaxbio.data.recordings import FORMATS, parse_source
from jaxbio.data.recordings.source import split_source
from jaxbio.data.store import open_store

GUIDE = Path(__file__).parent.parent.parent / "docs/data.md"
COMMANDS = [
    line for line in GUIDE.read_text(encoding="utf-8").splitlines() if line.startswith("python tools/prepare_store.py")
]


@pytest.fixture(scope="module")
def main(repository):
    return runpy.run_path(str(repository / "tools/prepare_store.py"))["main"]


def test_guide_has_a_command_for_every_format():
    formats = {"wfdb", "csv", "text", "synthetic"}
    assert formats <= set(re.findall(r"--source \"?(\w+):", "\n".join(COMMANDS)))


def test_sources_of_public_archives_are_lines_that_are_read(tmp_path, monkeypatch):
    """Their options are known and well written; what they read is shown by the tests of each format."""
    section = GUIDE.read_text("utf-8").partition("### Public archives")[2].partition("###")[0]
    lines = re.findall(r"^\|[^|]+\| `(\w+:[^`]+)`", section, re.M)
    assert len(lines) >= 10
    monkeypatch.chdir(tmp_path)
    for line in lines:
        kind, path, options = split_source(line)
        Path(path).mkdir(parents=True, exist_ok=True)
        assert parse_source(line).format == kind
        assert options or kind in ("vital", "wfdb")


def test_guide_lists_every_format():
    table = GUIDE.read_text("utf-8").partition("## Formats")[2].partition("###")[0]
    assert set(FORMATS) == set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]+) \|", table, re.M))))


@pytest.mark.parametrize("folder", ["cinc2021_12lead", "ptbxl_sample"])
def test_tools_of_the_guide_make_labels_of_the_diagnoses_in_headers(folder, data_dir, repository, tmp_path):
    """Every code of a header is a 1 in the store, and every other code of the archive a 0."""
    config = small_config(data__channels=("ecg",), data__segment_s=10.0, data__rate_hz=250.0)
    prepare_store([parse_source(f"wfdb:{data_dir / folder}")], config, tmp_path / "store", progress=False)
    store, table = open_store(tmp_path / "store"), str(tmp_path / "labels.csv")
    make, add = (runpy.run_path(str(repository / f"tools/{name}.py"))["main"] for name in ("make_labels", "add_labels"))
    make(["--headers", str(data_dir / folder), "--source", f"wfdb:{folder}", "--out", table])
    said = add(["--store", str(store.path), "--labels", table])
    names = [name for name in list_labels(store) if name not in ("age", "sex")]
    label_NK = np.stack([label.value_R for label in open_labels(store, names)], axis=-1)
    manifest = {row["record"]: row["label"] for row in csv.DictReader((data_dir / folder / "manifest.csv").open())}
    for recording, label_K in zip(store.column("recording"), label_NK):
        assert " ".join(np.array(names)[label_K == 1]) == " ".join(sorted(manifest[recording].split()))
        assert set(label_K.tolist()) <= {0, 1}
    assert {name: said["labels"][name]["unknown"] for name in names} == dict.fromkeys(names, 0)


@pytest.mark.parametrize("line", COMMANDS)
def test_command_of_the_guide_finds_its_recordings(line, main, data_dir, repository, monkeypatch):
    monkeypatch.chdir(repository)
    arguments = [os.path.expandvars(word) for word in shlex.split(line)[2:]]
    said = main([*arguments, "--dry_run"])
    assert said["segments_at_most"] > 5
    assert set(said["refused"]) <= {"missing_channel", "too_short"}
