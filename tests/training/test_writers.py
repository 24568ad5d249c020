"""The record of a run, its repair, and the console's line."""

import json
import resource

import pytest

from jaxbio.config.faults import UserError
from jaxbio.training.writers import Console, MetricsFile, read_metrics


def write_lines(path, steps, tail=b""):
    path.write_bytes(b"".join(json.dumps({"step": step}).encode() + b"\n" for step in steps) + tail)


def steps_of(path):
    return [record["step"] for record in read_metrics(path)]


def test_records_after_the_restored_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_lines(path, [1, 2, 3, 4, 5])
    file = MetricsFile(path, restored_step=3)
    file.write(4, {"train/loss": 0.5})
    file.close()
    assert steps_of(path) == [1, 2, 3, 4]
    assert read_metrics(path)[-1] == {"step": 4, "train/loss": 0.5}


@pytest.mark.parametrize("torn", [b'{"step": 3, "train/lo', b"\x00\x00", b'{"step": 3}'])
def test_torn_last_line_is_repaired_even_within_the_restored_steps(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    write_lines(path, [1, 2], torn)
    assert steps_of(path) == [1, 2]  # as a report reads it while the run writes
    MetricsFile(path, restored_step=9).close()
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'


def test_fresh_run_in_an_old_folder_starts_an_empty_record(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_lines(path, [1, 2])
    MetricsFile(path, restored_step=0).close()
    assert path.read_bytes() == b""


def test_line_in_the_middle_that_is_no_record_is_the_users_to_see(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\nhello\n{"step": 2}\n')
    with pytest.raises(UserError, match="line 2"):
        MetricsFile(path, restored_step=2)


def test_every_line_is_json_and_floats_survive_exactly(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    value = 0.1 + 0.2
    file.write(1, {"train/loss": value, "perf/mfu": None, "train/grad_norm": float("inf"), "train/nan": float("nan")})
    file.close()
    (record,) = read_metrics(tmp_path / "metrics.jsonl")
    assert record == {"step": 1, "train/loss": value, "perf/mfu": None, "train/grad_norm": None, "train/nan": None}


def test_console_line_shows_steps_loss_rate_and_time_left(monkeypatch):
    console = Console(steps=100, start=10, batch=32)
    console.write(20, {"train/loss": 1.25, "perf/mfu": None})
    console._first = (10, 0.0)
    assert console.describe(20, now=5.0) == "step 20/100  train/loss 1.25  64.0 pairs/s  00:40 left"
    console.close()


def test_console_names_the_step_of_a_value_that_is_not_of_this_one():
    console = Console(steps=100, start=0, batch=32)
    console.write(0, {"eval/loss": 6.0})
    assert console.describe(0, now=0.0) == "step 0/100  eval/loss 6"
    console.write(20, {"train/loss": 1.25})
    assert console.describe(20, now=0.0) == "step 20/100  eval/loss 6 (step 0)  train/loss 1.25"
    console.close()


def test_full_disk_is_the_users_fault_and_leaves_a_record_that_can_be_repaired(tmp_path):
    """The limit on file sizes stands in for the disk: it too takes the first half of a line."""
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.write(1, {"train/loss": 0.5})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, limits[1]))
    try:
        for _ in range(2):
            with pytest.raises(UserError, match=r"metrics.jsonl = 'not written'"):
                file.write(2, {"train/loss": 0.25})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    file.close()
    assert path.read_bytes()[-5:] == b'{"ste'
    MetricsFile(path, restored_step=2).close()
    assert steps_of(path) == [1]
