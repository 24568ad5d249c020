"""A record that is read on: nothing twice, nothing torn, and anew where another took its place."""

import json
from pathlib import Path

import pytest

from jaxbio.report.series import Record, read_series


def append(workdir, text):
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(text)


def line(step, loss):
    return json.dumps({"step": step, "train/loss": loss}) + "\n"


@pytest.fixture
def parsed(monkeypatch):
    """How many lines have been parsed."""
    from jaxbio.report import series

    lines, loads = [], json.loads
    monkeypatch.setattr(series.json, "loads", lambda text: lines.append(text) or loads(text))
    return lines


def losses(series):
    steps, values = series["train/loss"]
    return dict(zip(steps.tolist(), values.tolist()))


def test_each_line_is_parsed_once(tmp_path: Path, parsed):
    record = Record(tmp_path)
    assert record.read() == {}
    append(tmp_path, line(1, 3.0) + line(2, 2.0))
    assert losses(record.read()) == {1: 3.0, 2: 2.0}
    append(tmp_path, line(3, 1.0))
    assert losses(record.read()) == {1: 3.0, 2: 2.0, 3: 1.0}
    assert losses(record.read()) == losses(read_series(tmp_path))
    assert len(parsed) == 3 + 3  # the last three are read_series's own


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path):
    record, second = Record(tmp_path), line(2, 2.0)
    append(tmp_path, line(1, 3.0) + second[:9])
    assert losses(record.read()) == {1: 3.0}
    append(tmp_path, second[9:])
    assert losses(record.read()) == {1: 3.0, 2: 2.0}


@pytest.mark.parametrize("kept", [line(1, 5.0), line(1, 5.0) + line(2, 4.0) + line(3, 3.0)])
def test_a_record_that_took_the_others_place_is_read_from_its_start(tmp_path, kept):
    record = Record(tmp_path)
    append(tmp_path, line(1, 3.0) + line(2, 2.0))
    record.read()
    (tmp_path / "new").write_text(kept)
    (tmp_path / "new").replace(tmp_path / "metrics.jsonl")
    assert losses(record.read()) == losses(read_series(tmp_path))
    assert losses(record.read())[1] == 5.0
