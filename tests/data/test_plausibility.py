"""A preparation says of each source what it came to, and what of it is doubtful."""

import logging

import pytest
from prepared import beating_signals, prepare, small_config, write_recording

from jaxbio.data.plausibility import judge_sources


def archive_at(folder, claimed_hz):
    """Four recordings of regular hearts of 60 to 96 beats a minute at 100 Hz, said to be at `claimed_hz`."""
    for number in range(4):
        write_recording(folder / f"r{number}.npz", beating_signals(number, 300.0), rate_hz=claimed_hz)
    return folder


def test_true_rates_raise_no_doubt_and_are_told(tmp_path):
    store = prepare(archive_at(tmp_path / "ward", 100.0), tmp_path / "store")
    ((line, doubt),) = judge_sources(store, "waveform")
    assert doubt is None
    assert line.startswith("numpy:ward: 40 segments, medians: score ")
    assert "heart rate " in line
    assert "pulse rate " in line


@pytest.mark.parametrize(("claimed_hz", "odd"), [(40.0, "heart rate"), (250.0, "pulse rate"), (400.0, "heart rate 26")])
def test_a_wrong_sampling_rate_is_doubted_while_preparing(tmp_path, caplog, claimed_hz, odd):
    with caplog.at_level(logging.INFO):
        prepare(archive_at(tmp_path / "ward", claimed_hz), tmp_path / "store")
    (doubt,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("doubtful")]
    assert odd in doubt
    assert "tools/look.py" in doubt


def test_an_index_without_training_pairs_says_what_makes_some(tmp_path, caplog):
    config = small_config(pairs__max_gap_s=1.0)
    prepare(archive_at(tmp_path / "ward", 100.0), tmp_path / "store", config)
    assert "class_edges_as=quantiles" in caplog.text
