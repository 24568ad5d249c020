"""Preparation: the same bytes however it is run, and every second accounted for."""

import errno
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from prepared import beating_signals, bytes_of, prepare, small_config, write_archive, write_recording

from jaxbio.config.faults import UserError
from jaxbio.data import plan_file, workers
from jaxbio.data import prepare as prepare_module
from jaxbio.data.listing import find_recordings
from jaxbio.data.prepare import prepare_recordings, prepare_store
from jaxbio.data.recordings import RecordingError, parse_source
from jaxbio.data.shard_plan import plan_store
from jaxbio.data.store import open_store
from jaxbio.data.store_files import MANIFEST, PARTS, RECORDINGS

RECORDINGS_MADE = 24


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return write_archive(tmp_path_factory.mktemp("source") / "archive", RECORDINGS_MADE)


@pytest.fixture(scope="module")
def reference(archive, tmp_path_factory) -> Path:
    """The store that one worker makes without interruption: at least 12 shards."""
    out = tmp_path_factory.mktemp("reference") / "store"
    store = prepare(archive, out)
    assert len(store.shards) >= 12
    return out


def command(repository: Path, archive: Path, out: Path, workers: int) -> list[str]:
    """The line that prepares the reference's store in its own process."""
    shard_bytes = small_config().prepare.shard_bytes
    changes = [f"--config.prepare.shard_bytes={shard_bytes}", "--config.prepare.split=(0.5, 0.3, 0.2)"]
    recipe = ["--config", str(repository / "configs/qualityfm_base.py"), *changes]
    where = ["--source", f"numpy:{archive}", "--out", str(out), "--workers", str(workers)]
    return [sys.executable, str(repository / "tools/prepare_store.py"), *recipe, *where]


def environment(repository: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(repository)}


def run(line: list[str], repository: Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run(line, env=environment(repository), capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_change_no_byte(archive, reference, tmp_path, workers):
    prepare(archive, tmp_path / "store", workers=workers)
    assert bytes_of(tmp_path / "store") == bytes_of(reference)


def test_command_prints_the_account_and_makes_the_same_store(archive, reference, tmp_path, repository):
    done = run(command(repository, archive, tmp_path / "store", 1), repository)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["total_s"] == pytest.approx(said["kept_s"] + sum(said["rejected_s"].values()))
    assert said["segments"] == open_store(reference).rows
    assert "segments/s" in done.stderr  # progress, with time left
    assert (tmp_path / "store/store_report.html").is_file()
    assert bytes_of(tmp_path / "store") == bytes_of(reference)


def start_working(line: list[str], repository: Path) -> subprocess.Popen:
    """Start the command and return it when it begins with the shards."""
    process = subprocess.Popen(line, env=environment(repository), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    said = b""
    while b"prepare:" not in said:
        piece = os.read(process.stderr.fileno(), 4096)
        assert piece, said
        said += piece
    return process


def shards_in(out: Path) -> int:
    return len(list(out.glob("segments-*.array_record")))  # not what a killed process has left unfinished


def kill_often(archive: Path, reference: Path, out: Path, repository: Path, moments: int, seed: int) -> list[int]:
    """Kill the command, of one or two workers, at random moments of its work; return the shards there were at each.

    In the end, and whenever it is done before the moment comes, its store must have the reference's bytes.
    """
    chance, shards, total = random.Random(seed), [], shards_in(reference)
    while len(shards) < moments:
        finished = (out / MANIFEST).exists()
        if finished:
            assert bytes_of(out) == bytes_of(reference)
        # Begin anew now and then, else every later moment would lie in the end.
        if finished or (shards_in(out) == total and chance.random() < 0.7):
            shutil.rmtree(out)
        until = chance.randint(shards_in(out), total)
        process = start_working(command(repository, archive, out, chance.choice((1, 2))), repository)
        while shards_in(out) < until and process.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.05))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            shards.append(shards_in(out))
        process.communicate()
    done = run(command(repository, archive, out, 2), repository)
    assert done.returncode == 0, done.stderr
    assert bytes_of(out) == bytes_of(reference)
    return shards


def test_killed_in_the_middle_and_started_again_makes_the_same_bytes(archive, reference, tmp_path, repository):
    out = tmp_path / "store"
    line = command(repository, archive, out, 2)
    process = start_working(line, repository)
    while shards_in(out) < 3 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / MANIFEST).exists()
    done = run(line, repository)
    assert done.returncode == 0, done.stderr
    assert bytes_of(out) == bytes_of(reference)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_makes_the_same_bytes(archive, reference, tmp_path, repository):
    shards = kill_often(archive, reference, tmp_path / "store", repository, moments=20, seed=1)
    assert len(set(shards)) > 3, shards  # early, in the middle and late


def test_finished_shards_are_not_written_again(archive, reference, tmp_path, monkeypatch):
    out = tmp_path / "store"
    write, stop_after = plan_file.write_shard, 5

    def write_until(folder, name, shard, *rest):
        if shard == stop_after:
            raise KeyboardInterrupt
        return write(folder, name, shard, *rest)

    monkeypatch.setattr(plan_file, "write_shard", write_until)
    with pytest.raises(KeyboardInterrupt):
        prepare(archive, out)
    monkeypatch.setattr(plan_file, "write_shard", write)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record")}
    assert len(before) == stop_after
    prepare(archive, out)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert bytes_of(out) == bytes_of(reference)


def test_what_a_kill_left_half_written_is_cleared_away(archive, reference, tmp_path, monkeypatch):
    out = tmp_path / "store"

    def die(*_):
        for place in (out, out / PARTS, out / "index"):
            place.mkdir(exist_ok=True)
            (place / ".unfinished-1-x").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "make_pairs", die)
        with pytest.raises(KeyboardInterrupt):
            prepare(archive, out)
    prepare(archive, out)
    assert bytes_of(out) == bytes_of(reference)
    (out / PARTS).mkdir()  # killed after the manifest was written
    prepare(archive, out)
    assert not (out / PARTS).exists()


def test_shard_without_a_kept_segment_is_part_of_the_store(tmp_path):
    folder = write_archive(tmp_path / "archive", 2)
    flat = {name: np.zeros(13_200, np.float32) for name in ("PLETH", "II")}
    write_recording(folder / "r000a.npz", flat)
    store = prepare(folder, tmp_path / "store", small_config(prepare__shard_bytes=36_000 * 4))
    assert [shard["records"] for shard in store.shards] == [4, 0, 4]
    np.testing.assert_array_equal(store.column("shard"), [0] * 4 + [2] * 4)
    assert store.read([3, 4]).shape == (2, 2, 9000)
    assert [store.take(row)["recording"] for row in (3, 4)] == ["r000", "r001"]
    store.verify()


def test_store_does_not_depend_on_where_its_source_lies(tmp_path):
    hashes = []
    for place in ("here", "there"):
        folder = write_archive(tmp_path / place / "archive", 2)
        (folder / "torn.npz").write_bytes(b"PK nothing")  # named with its path in the account
        hashes.append(prepare(folder, tmp_path / place / "store").hash)
    assert hashes[0] == hashes[1]


def test_disk_full_is_named_and_room_lets_it_finish(archive, reference, tmp_path, repository):
    """A limit on the size of files stands for a full disk: the first shard that exceeds it cannot be written."""
    out = tmp_path / "store"
    line = command(repository, archive, out, 1)

    full = run(["bash", "-c", "trap '' XFSZ; ulimit -f 300; exec \"$@\"", "limited", *line], repository)
    assert full.returncode == 2, full.stderr
    assert str(out) in full.stderr
    assert "File too large" in full.stderr
    assert "start again" in full.stderr
    assert not (out / MANIFEST).exists()
    assert not list(out.glob(".unfinished*"))
    done = run(line, repository)
    assert done.returncode == 0, done.stderr
    assert bytes_of(out) == bytes_of(reference)


def test_ended_worker_is_named_not_waited_for(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_leave_with_parent", _die)
    with pytest.raises(UserError, match="--workers"):
        prepare(archive, tmp_path / "store", workers=2)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_folder_of_something_else_is_left_alone(archive, reference, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        prepare(archive, tmp_path)
    with pytest.raises(UserError, match="another folder"):
        prepare(archive, reference, small_config(prepare__max_missing_frac=0.1))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_begun_preparation_of_other_settings_is_not_mixed(archive, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(plan_file, "write_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(archive, tmp_path / "store")
    with pytest.raises(UserError, match="was begun there"):
        prepare(archive, tmp_path / "store", small_config(data__rate_hz=125.0))


def test_finished_store_is_a_quick_success(archive, reference):
    before = bytes_of(reference)
    prepare(archive, reference)
    assert bytes_of(reference) == before


def test_second_preparation_at_work_in_the_folder_is_refused(archive, tmp_path):
    with prepare_module._locked(tmp_path / "store"), pytest.raises(UserError, match="wait for it"):
        prepare(archive, tmp_path / "store")


# ---- the account


def test_every_second_of_every_recording_is_kept_or_rejected_with_a_reason(tmp_path):
    folder = write_archive(tmp_path / "archive", 3)
    signals = beating_signals(9, 130)
    flat = {name: np.where(np.arange(x.size) < 3000, np.float32(1), x) for name, x in signals.items()}
    gappy = {name: np.where(np.arange(x.size) % 3000 < 1000, np.float32(np.nan), x) for name, x in signals.items()}
    wild = {"PLETH": signals["PLETH"], "II": np.where(np.arange(13000) == 5000, np.float32(np.inf), signals["II"])}
    write_recording(folder / "flat.npz", flat)
    write_recording(folder / "gappy.npz", gappy)
    write_recording(folder / "wild.npz", wild)
    write_recording(folder / "lonely.npz", {"II": signals["II"]})
    write_recording(folder / "short.npz", beating_signals(1, 20))
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    store = prepare(folder, tmp_path / "store")
    account = store.manifest["account"]
    total_s = 3 * 132 + 4 * 130 + 20
    assert account["total_s"] == pytest.approx(total_s, abs=1e-6)
    assert account["kept_s"] == store.rows * 30
    assert account["kept_s"] + sum(account["rejected_s"].values()) == pytest.approx(total_s, abs=1e-6)
    rows = pq.read_table(store.path / RECORDINGS).to_pylist()
    by_recording: dict[str, dict[str, float]] = {}
    for row in rows:
        by_recording.setdefault(row["recording"], {})[row["outcome"]] = row["seconds"]
    assert by_recording["flat"]["constant"] == 30
    assert by_recording["gappy"] == {"missing": 120, "remainder": 10}
    assert by_recording["wild"] == {"infinite": 30, "kept": 90, "remainder": 10}
    assert by_recording["lonely"] == {"missing_channel": 130}
    assert by_recording["short"] == {"too_short": 20}
    (reason,) = by_recording["broken"]
    assert reason in {"unreadable_file", "truncated_file", "not_a_recording", "bad_header"}
    assert next(row["detail"] for row in rows if row["recording"] == "broken").count("broken.npz")


def outcomes_of(store) -> dict[str, float]:
    """Seconds by outcome."""
    account = store.manifest["account"]
    return {"kept": account["kept_s"], **account["rejected_s"]}


def prepared_from(line: str, out: Path, **assumed: str):
    prepare_store([parse_source(line, assumed)], small_config(), out, progress=False)
    return open_store(out)


def test_a_segment_that_is_not_there_costs_its_windows_and_not_one_that_it_hardly_touches(tmp_path):
    signals = beating_signals(3, 61)
    digital = np.stack([1000 * signals["II"], 1000 * signals["PLETH"]], axis=1).astype("<i2")
    (tmp_path / "wfdb").mkdir()
    digital.tofile(tmp_path / "wfdb/r_2.dat")
    lines = "".join(f"r_2.dat 16 1000/mV 16 0 0 0 0 {name}\n" for name in ("II", "PLETH"))
    (tmp_path / "wfdb/r_2.hea").write_text(f"r_2 2 100 6100\n{lines}")
    (tmp_path / "wfdb/r.hea").write_text("r/2 2 100 9200\ngone 3100\nr_2 6100\n")
    store = prepared_from(f"wfdb:{tmp_path / 'wfdb'}", tmp_path / "store")
    assert outcomes_of(store) == {"kept": 60, "missing_file": 30, "remainder": 2}
    # The window from 30 s on lacks its first second.
    np.testing.assert_allclose(store.column("ecg_missing_frac"), [1 / 30, 0], atol=1e-3)


def test_a_cell_that_is_no_number_costs_its_window_and_is_named(tmp_path):
    signals = beating_signals(4, 95)
    lines = [f"{ppg:.4f},{ecg:.4f}" for ppg, ecg in zip(signals["PLETH"], signals["II"], strict=True)]
    lines[4000] = "spilt coffee,0.1"
    (tmp_path / "a.csv").write_text("PLETH,II\n" + "\n".join(lines) + "\n")
    store = prepared_from(f"csv:{tmp_path}?rate_hz=100", tmp_path / "store")
    assert outcomes_of(store) == {"kept": 60, "unreadable_file": 30, "remainder": 5}
    details = pq.read_table(store.path / RECORDINGS)["detail"].to_pylist()
    assert any("line 4002, column 'PLETH': 'spilt coffee' is no number" in detail for detail in details)


def test_a_store_of_other_assumed_units_is_another_store(tmp_path):
    folder = write_archive(tmp_path / "archive", 2)
    store = prepared_from(f"numpy:{folder}", tmp_path / "store", ecg="mV")
    assert store.manifest["units"]["ecg"] == ["mV"]
    assert prepared_from(f"numpy:{folder}", tmp_path / "store", ecg="mV").hash == store.hash
    with pytest.raises(UserError, match="other recordings or settings"):
        prepared_from(f"numpy:{folder}", tmp_path / "store", ecg="uV")


@dataclass(frozen=True)
class TornReader:
    """A reader whose file ends after `whole_s` seconds, whatever its header says."""

    inner: object
    whole_s: float

    def read(self, channels, start_s, stop_s):
        if stop_s > self.whole_s:
            raise RecordingError("truncated_file", "r000.npz", f"ends at {self.whole_s} s")
        return self.inner.read(channels, start_s, stop_s)


def test_file_torn_in_the_middle_gives_its_readable_part(tmp_path):
    archive = write_archive(tmp_path / "archive", 2, minutes=10)
    found = find_recordings([parse_source(f"numpy:{archive}")], small_config())
    torn = replace(found[0], reader=TornReader(found[0].reader, 400.0))
    manifest = prepare_recordings([torn, found[1]], small_config(), tmp_path / "store", progress=False)
    assert manifest["account"]["rejected_s"] == {"truncated_file": 600 - 390}
    store = open_store(tmp_path / "store")
    kept_s = store.column("start_s")[store.column("recording") == "r000"]
    np.testing.assert_array_equal(kept_s, np.arange(13) * 30.0)


def test_nothing_kept_says_why(tmp_path):
    flat = {"PLETH": np.zeros(6000, np.float32), "II": np.zeros(6000, np.float32)}
    write_recording(tmp_path / "archive/flat.npz", flat)
    with pytest.raises(UserError, match="constant 60 s"):
        prepare(tmp_path / "archive", tmp_path / "store")


def test_two_sources_of_one_name_whose_recordings_collide_are_refused(tmp_path):
    folders = [write_archive(tmp_path / ward / "night", 1) for ward in ("a", "b")]
    sources = [parse_source(f"numpy:{folder}") for folder in folders]
    with pytest.raises(UserError, match="night: r000"):
        prepare_store(sources, small_config(), tmp_path / "store", progress=False)


def test_two_folders_of_one_name_are_refused_though_no_recording_collides_unless_one_is_named(tmp_path):
    folders = [write_archive(tmp_path / ward / "night", 1, first=first) for ward, first in (("a", 0), ("b", 1))]
    with pytest.raises(UserError, match=r"numpy:night: r00.*one name.*\?name=NAME"):
        prepare_store([parse_source(f"numpy:{folder}") for folder in folders], small_config(), tmp_path / "store")
    lines = [f"numpy:{folders[0]}", f"numpy:{folders[1]}?name=ward b%2C night"]
    prepare_store([parse_source(line) for line in lines], small_config(), tmp_path / "store", progress=False)
    assert set(open_store(tmp_path / "store").codes("source")[1]) == {"numpy:night", "numpy:ward b, night"}


def test_two_lines_of_one_folder_are_one_source(tmp_path):
    archive = write_archive(tmp_path / "night", 2)
    lines = [f"numpy:{archive}?glob=r000*", f"numpy:{archive / 'r001.npz'}"]
    prepare_store([parse_source(line) for line in lines], small_config(), tmp_path / "store", progress=False)
    assert open_store(tmp_path / "store").codes("source")[1] == ["numpy:night"]


@pytest.mark.parametrize("name", ["", "%0A", "a%00b"])
def test_a_source_takes_no_name_that_nobody_could_read(name, tmp_path):
    with pytest.raises(UserError, match="name"):
        parse_source(f"numpy:{tmp_path}?name={name}")


# ---- the folder


@pytest.mark.parametrize("place", ["plan.json", "lock"])
def test_a_pipe_among_the_parts_is_named_and_not_waited_for(place, archive, tmp_path):
    (tmp_path / "store" / PARTS).mkdir(parents=True)
    os.mkfifo(tmp_path / "store" / PARTS / place)
    with pytest.raises(UserError, match=r"--out.*no regular file"):
        prepare(archive, tmp_path / "store")


@pytest.mark.parametrize("out", ["gs://bucket/store", "S3://b", os.fsdecode(b"caf\xe9")])
def test_a_name_that_no_store_can_have_is_refused_and_not_made(out, archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--out"):
        prepare(archive, out)
    assert list(tmp_path.iterdir()) == []


def test_a_preparation_needs_no_locks_and_no_hard_links(archive, reference, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(os, "link", refuse)
    prepare(archive, tmp_path / "store")
    assert bytes_of(tmp_path / "store") == bytes_of(reference)


# ---- the plan


def test_shards_are_filled_to_their_size_and_long_recordings_cut_into_blocks(tmp_path):
    archive = write_archive(tmp_path / "archive", 3, minutes=31)
    config = small_config(prepare__shard_bytes=36_000 * 100, prepare__block_h=0.25)
    plan = plan_store(find_recordings([parse_source(f"numpy:{archive}")], config), config)
    assert [[block.windows for block in shard] for shard in plan.shards] == [[30, 30, 2, 30], [30, 2, 30, 30, 2]]
    small = small_config(prepare__shard_bytes=36_000 * 8)
    plan = plan_store(find_recordings([parse_source(f"numpy:{archive}")], small), small)
    assert max(sum(block.windows for block in shard) for shard in plan.shards) == 8


@pytest.mark.slow
def test_three_days_of_eight_channels_stay_within_a_gibibyte(tmp_path, repository):
    hours, rate_hz, names = 72, 125.0, ("PLETH", "II", "V", "AVR", "RESP", "ABP", "III", "AVL")
    piece = beating_signals(0, 3600, rate_hz)
    frames = np.stack([piece["PLETH" if name == "PLETH" else "II"] for name in names], axis=1)
    hour = np.clip(frames * 1000, -32_000, 32_000).astype("<i2").tobytes()
    folder = tmp_path / "icu"
    folder.mkdir()
    with (folder / "icu.dat").open("wb") as file:
        for _ in range(hours):
            file.write(hour)
    units = {"ABP": "mmHg"}
    lines = [f"icu.dat 16 1000(0)/{units.get(name, 'mV')} 16 0 0 0 0 {name}" for name in names]
    header = f"icu 8 {rate_hz:g} {round(hours * 3600 * rate_hz)}"
    (folder / "icu.hea").write_text("\n".join([header, *lines, ""]))
    recipe = ["--config", str(repository / "configs/qualityfm_base.py")]
    where = ["--source", f"wfdb:{folder}", "--out", str(tmp_path / "store"), "--workers", "1"]
    # VmHWM, because ru_maxrss starts from the process that forked.
    code = (
        "import re, runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr)"
    )
    done = run([sys.executable, "-c", code, str(repository / "tools/prepare_store.py"), *recipe, *where], repository)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["kept_s"] == pytest.approx(hours * 3600 - sum(said["rejected_s"].values()))
    assert said["segments"] > 50  # an hour repeats: the rest are duplicates
    assert int(done.stderr.splitlines()[-1]) * 1024 < 2**30, done.stderr.splitlines()[-1]
