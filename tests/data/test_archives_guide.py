"""docs/archives.md names tools and flags that there are, and sources that are read as they stand."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from jaxbio.data.recordings import FORMATS
from jaxbio.data.recordings.source import parse_options, split_name, split_source

GUIDE = (Path(__file__).parent.parent.parent / "docs/archives.md").read_text(encoding="utf-8")
LINES = re.findall(r"^python tools/.*$", GUIDE, re.M) + re.findall(r"`(python tools/[^`]*)`", GUIDE)


@pytest.mark.parametrize("tool", sorted({shlex.split(line)[1] for line in LINES}))
def test_every_flag_of_the_guide_exists(tool, repository, capsys):
    with pytest.raises(SystemExit):
        runpy.run_path(str(repository / tool))["main"](["--help"])
    known = capsys.readouterr().out
    named = {word for line in LINES if tool in line for word in shlex.split(line) if word.startswith("--")}
    if tool == "tools/prepare_store.py":
        named |= set(re.findall(r"`(--\w+)", GUIDE)) - {"--allow_change"}  # which is launch/run.py's
    assert named
    for flag in {word.partition("=")[0] for word in named}:
        assert flag in known or flag.startswith("--config"), flag


def test_the_guide_has_a_command_for_every_archive_and_its_sources_are_read():
    sources = [
        words[place + 1] for words in map(shlex.split, LINES) for place, word in enumerate(words) if word == "--source"
    ]
    names = set()
    for text in sources:
        name, line = split_name(text)
        form, _, pairs = split_source(line)
        parse_options(pairs, FORMATS[form].options, text)
        names.add(name)
    assert names >= {"mimic3", "mimic4", "vitaldb", "vtac", "pulsedb", "icu"}
