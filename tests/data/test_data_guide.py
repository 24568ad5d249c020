"""Every preparation command of docs/data.md plans what it says, on the recordings in JAXBIO_DATA."""

import os
import re
import runpy
import shlex
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("line", COMMANDS)
def test_command_of_the_guide_finds_its_recordings(line, main, data_dir, repository, monkeypatch):
    monkeypatch.chdir(repository)
    arguments = [os.path.expandvars(word) for word in shlex.split(line)[2:]]
    said = main([*arguments, "--dry_run"])
    assert said["segments_at_most"] > 5
    assert set(said["refused"]) <= {"missing_channel", "too_short"}
