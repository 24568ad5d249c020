"""Whoever writes the shards, and however often it is ended, a store has the same bytes."""

import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import pytest
from prepared import bytes_of, prepare, small_config, write_archive

from jaxbio.config.faults import UserError
from jaxbio.data import listing, plan_file
from jaxbio.data import prepare as prepare_module
from jaxbio.data.folder_lock import hold
from jaxbio.data.own_pickles import dump, load
from jaxbio.data.prepare import prepare_share, prepare_store
from jaxbio.data.recordings import parse_source
from jaxbio.data.runners import LocalProcesses, Runner, dask_cluster, parse_runner
from jaxbio.data.shares import Share, parse_share
from jaxbio.data.store import open_store
from jaxbio.data.store_files import PARTS


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Six folders of three recordings."""
    root = tmp_path_factory.mktemp("source") / "archive"
    for number in range(6):
        write_archive(root / f"ward{number}", 3, minutes=1.2, first=3 * number)
    return root


@pytest.fixture(scope="module")
def config():
    return small_config(prepare__shard_bytes=36_000 * 4)


@pytest.fixture(scope="module")
def reference(archive, config, tmp_path_factory) -> Path:
    store = prepare(archive, tmp_path_factory.mktemp("reference") / "store", config)
    assert len(store.shards) >= 9
    return store.path


def source_of(archive: Path):
    return [parse_source(f"numpy:{archive}")]


# ---- shares


def write_share(archive, config, out, share: str):
    return prepare_share(source_of(archive), config, out, parse_share(share), progress=False)


def test_shares_in_any_order_make_the_same_store_and_the_last_assembles(archive, config, reference, tmp_path):
    out = tmp_path / "store"
    assert write_share(archive, config, out, "2/3")[1] is None
    missing, manifest = write_share(archive, config, out, "0/3")
    assert (missing, manifest) == (len(range(1, len(open_store(reference).shards), 3)), None)
    assert write_share(archive, config, out, "0/3") == (missing, None)  # again: nothing is written twice
    missing, manifest = write_share(archive, config, out, "1/3")
    assert (missing, manifest) == (0, open_store(reference).manifest)
    assert bytes_of(out) == bytes_of(reference)
    assert write_share(archive, config, out, "1/3") == (0, manifest)  # a finished store is left as it is


def test_a_last_call_finishes_shares_that_never_came(archive, config, reference, tmp_path):
    write_share(archive, config, tmp_path / "store", "1/3")
    prepare(archive, tmp_path / "store", config)
    assert bytes_of(tmp_path / "store") == bytes_of(reference)


def test_a_share_that_is_half_written_is_gone_on_with(archive, config, reference, tmp_path, monkeypatch):
    write, written = plan_file.write_shard, []

    def stop_at_second(folder, name, *rest):
        if written:
            raise KeyboardInterrupt
        written.append(name)
        return write(folder, name, *rest)

    monkeypatch.setattr(plan_file, "write_shard", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        write_share(archive, config, tmp_path / "store", "0/2")
    monkeypatch.setattr(plan_file, "write_shard", write)
    before = (tmp_path / "store" / written[0]).stat().st_mtime_ns
    for share in ("0/2", "1/2"):
        write_share(archive, config, tmp_path / "store", share)
    assert (tmp_path / "store" / written[0]).stat().st_mtime_ns == before
    assert bytes_of(tmp_path / "store") == bytes_of(reference)


def test_two_jobs_with_one_share_are_told_and_a_whole_preparation_waits_for_none(archive, config, tmp_path):
    out = tmp_path / "store"
    write_share(archive, config, out, "0/2")
    with hold(out / PARTS / "shares" / "0-of-2"):
        with pytest.raises(UserError, match=r"--share = '0/2': held by process"):
            write_share(archive, config, out, "0/2")
        with pytest.raises(UserError, match=r"share 0/2 is written by process"):
            prepare(archive, out, config)
    with hold(out / PARTS), pytest.raises(UserError, match="nothing is left for a share"):
        write_share(archive, config, out, "1/2")


def test_a_share_of_another_plan_is_refused(archive, config, tmp_path):
    write_share(archive, config, tmp_path / "store", "0/2")
    other = small_config(prepare__shard_bytes=36_000 * 4, data__rate_hz=125.0)
    with pytest.raises(UserError, match="was begun there"):
        write_share(archive, other, tmp_path / "store", "1/2")
    with pytest.raises(UserError, match="another plan has taken the place"):
        plan_file.write_planned(tmp_path / "store", 0, "0" * 32)


@pytest.mark.parametrize("text", ["3/3", "1", "a/b", "-1/3", "0/0", ""])
def test_a_share_is_counted_from_0(text):
    with pytest.raises(UserError, match="--share"):
        parse_share(text)
    assert parse_share("2/3").of(range(9)) == [2, 5, 8]
    assert str(Share(2, 3)) == "2/3"


# ---- the plan


def test_a_preparation_that_was_begun_lists_nothing_again(archive, config, reference, tmp_path, monkeypatch):
    write_share(archive, config, tmp_path / "store", "0/2")

    def list_again(*_):
        raise AssertionError("listed again")

    monkeypatch.setattr(prepare_module, "find_recordings", list_again)
    prepare(archive, tmp_path / "store", config)
    assert bytes_of(tmp_path / "store") == bytes_of(reference)


@pytest.mark.parametrize("lost", ["plan.zip", "plan.json"])
def test_a_plan_that_was_written_by_half_is_made_again(lost, archive, config, reference, tmp_path):
    write_share(archive, config, tmp_path / "store", "0/2")
    (tmp_path / "store" / PARTS / lost).unlink()
    if lost == "plan.json":  # as when it is killed before the first shard
        for path in (tmp_path / "store").glob("*.array_record"):
            path.unlink()
    prepare(archive, tmp_path / "store", config)
    assert bytes_of(tmp_path / "store") == bytes_of(reference)


def test_the_others_wait_for_the_one_that_makes_the_plan(archive, config, reference, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    planning = tmp_path / "store" / PARTS / "planning"
    planning.mkdir(parents=True)
    sleeper = subprocess.Popen([sys.executable, "-c", HOLD, str(planning)], stdout=subprocess.PIPE, env=environment())
    assert sleeper.stdout is not None
    assert sleeper.stdout.readline() == b"held\n"
    prepare(archive, tmp_path / "store", config)
    sleeper.communicate()
    assert f"process {sleeper.pid} on" in caplog.text
    assert "waiting" in caplog.text
    assert bytes_of(tmp_path / "store") == bytes_of(reference)


HOLD = """
import sys, time
from pathlib import Path
from jaxbio.data.folder_lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1.0)
"""


def test_what_begins_wrongly_leaves_no_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no file"):
        prepare(tmp_path / "empty", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_plan_names_nothing_that_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch /tmp/never",)

    with pytest.raises(Exception, match="no part of a recording"):
        load(dump([Evil()]))
    with pytest.raises(Exception, match="no part of a recording"):
        load(dump(plan_file.write_planned))  # a function of ours


# ---- listing in groups


@pytest.fixture
def in_small_groups(monkeypatch):
    monkeypatch.setattr(listing, "FILES_A_GROUP", 8)


def test_groups_of_folders_list_what_one_walk_lists(archive, config, reference, tmp_path, in_small_groups):
    groups = listing.Groups(tmp_path, LocalProcesses(1), progress=False)
    found = listing.find_recordings(source_of(archive), config)
    assert listing.find_recordings(source_of(archive), config, read=groups.read) == found
    assert len(list(tmp_path.glob("*"))) == 3
    prepare(archive, tmp_path / "store", config)
    assert bytes_of(tmp_path / "store") == bytes_of(reference)


def test_an_ended_listing_goes_on_where_it_was(archive, config, tmp_path, in_small_groups, monkeypatch):
    read, seen = listing.list_found, []

    def end_at_third(source, names):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(source.folders)
        return read(source, names)

    monkeypatch.setattr(listing, "list_found", end_at_third)
    with pytest.raises(KeyboardInterrupt):
        prepare(archive, tmp_path / "store", config)
    monkeypatch.setattr(listing, "list_found", lambda source, names: seen.append(source.folders) or read(source, names))
    prepare(archive, tmp_path / "store", config)
    assert len(seen) == len(set(seen)) == 3  # no group twice


# ---- clusters


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent.parent)}


@pytest.mark.slow
def test_a_dask_cluster_makes_the_same_bytes_though_a_worker_is_killed(archive, config, reference, soak, tmp_path):
    pytest.importorskip("distributed")
    out = tmp_path / "store"
    with soak["cluster"](tmp_path / "cluster") as workers:
        runner = KillingRunner(parse_runner(f"dask:{workers.address}"), workers.processes[0])
        prepare_store(source_of(archive), config, out, runner=runner, progress=False)
    assert workers.processes[0].poll() is not None
    assert bytes_of(out) == bytes_of(reference)


@dataclass(frozen=True)
class KillingRunner:
    """Another runner, whose worker is killed when the first piece is done."""

    runner: Runner
    worker: subprocess.Popen

    def run(self, pieces):
        for number in self.runner.run(pieces):
            self.worker.kill()
            yield number


def test_a_cluster_that_is_not_there_is_named(archive, config, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask_cluster, "_ANSWERS_WITHIN_S", 0.5)
    with pytest.raises(UserError, match=r"--runner = 'tcp://127\.0\.0\.1:9': no scheduler answers"):
        prepare_store(
            source_of(archive), config, tmp_path, runner=parse_runner("dask:tcp://127.0.0.1:9"), progress=False
        )


@pytest.fixture
def job_server(tmp_path) -> Iterator[str]:
    """Address of a Beam job server, as Flink's and Spark's are: pipelines come through its port."""
    port = tmp_path / "port"
    words = ["apache_beam.runners.portability.local_job_service_main", "--port", "0", "--port_file", str(port)]
    said = (tmp_path / "job_server.log").open("w")
    with said, subprocess.Popen([sys.executable, "-m", *words], stdout=said, stderr=said, env=environment()) as server:
        until = time.monotonic() + 60
        while not port.exists() and time.monotonic() < until:
            time.sleep(0.05)
        yield f"localhost:{port.read_text()}"
        server.terminate()


@pytest.mark.slow
@pytest.mark.parametrize("portable", [False, True])
def test_beam_makes_the_same_bytes_in_two_processes(archive, config, reference, tmp_path, request, portable):
    pytest.importorskip("apache_beam")
    options = "--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2"
    if portable:
        options = f"--runner=PortableRunner --job_endpoint={request.getfixturevalue('job_server')}"
        options += " --environment_type=LOOPBACK"
    runner = parse_runner(f"beam:{options}")
    prepare_store(source_of(archive), config, tmp_path / "store", runner=runner, progress=False)
    assert bytes_of(tmp_path / "store") == bytes_of(reference)


def test_a_job_server_that_cannot_be_fetched_is_the_runners_fault(archive, config, tmp_path, monkeypatch):
    beam = pytest.importorskip("apache_beam")

    def unreachable(**_):
        try:
            raise URLError("Name or service not known")
        except URLError as error:
            raise RuntimeError("Unable to fetch remote job server jar") from error

    monkeypatch.setattr(beam, "Pipeline", unreachable)
    runner = parse_runner("beam:--runner=FlinkRunner --flink_master=[local]")
    with pytest.raises(UserError, match=r"--runner = 'beam:--runner=FlinkRunner .*Unable to fetch .*--job_endpoint"):
        prepare_store(source_of(archive), config, tmp_path / "store", runner=runner, progress=False)


def test_what_a_disk_refuses_a_beam_worker_is_the_users_fault(archive, config, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam")

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(plan_file, "write_shard", refuse)
    runner = parse_runner("beam:--runner=DirectRunner")
    with pytest.raises(UserError, match="make room"):
        prepare_store(source_of(archive), config, tmp_path / "store", runner=runner, progress=False)


@pytest.mark.parametrize("text", ["", "dask", "dask:", "spark:x", "locally"])
def test_runners_are_named(text):
    with pytest.raises(UserError, match="--runner"):
        parse_runner(text)
