"""Sources and stores in object storage: what is prepared from and to a bucket is what is prepared on a disk."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from prepared import beating_signals, bytes_of, prepare, small_config, write_archive
from simulated import xla_flags

from jaxbio.config.faults import UserError
from jaxbio.data.host_folder import host_folder
from jaxbio.data.listing import find_recordings
from jaxbio.data.object_storage import Storage
from jaxbio.data.prepare import prepare_store
from jaxbio.data.recordings import parse_source
from jaxbio.data.store import open_store
from jaxbio.data.stored_elsewhere import fetch_store, publish_store

pytest.importorskip("s3fs")
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def server():
    """A server of S3 on this machine; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    """A new bucket, and a host whose temporary folder is this test's."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TMPDIR": str(tmp_path / "tmp"),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"b{time.monotonic_ns()}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}"


def upload(folder: Path, address: str) -> None:
    storage = Storage(address, "--source")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            storage.copy_out(path, str(path.relative_to(folder)))


def write_wfdb(folder: Path, number: int) -> None:
    folder.mkdir(parents=True)
    signals = beating_signals(number, 65)
    name = f"p{number:06d}"
    np.stack([1000 * signals["II"], 1000 * signals["PLETH"]], axis=1).astype("<i2").tofile(folder / f"{name}.dat")
    lines = "".join(f"{name}.dat 16 1000/mV 16 0 0 0 0 {signal}\n" for signal in ("II", "PLETH"))
    (folder / f"{name}.hea").write_text(f"{name} 2 100 6500\n{lines}")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["numpy", "wfdb"])
def test_a_source_in_a_bucket_gives_the_bytes_of_one_on_a_disk(form, bucket, tmp_path):
    for number in range(3):
        if form == "numpy":
            write_archive(tmp_path / "archive" / f"ward{number}", 2, minutes=1.2, first=2 * number)
        else:
            write_wfdb(tmp_path / "archive" / f"p0{number}", number)
    upload(tmp_path / "archive", f"{bucket}/archive")
    local, remote = (parse_source(f"{form}:{place}") for place in (tmp_path / "archive", f"{bucket}/archive"))
    assert local.name == remote.name
    for source, out in ((local, "local"), (remote, "remote")):
        prepare_store([source], small_config(), tmp_path / out, workers=2 if form == "wfdb" else 1, progress=False)
    assert bytes_of(tmp_path / "remote") == bytes_of(tmp_path / "local")
    kept = [path.name for path in (host_folder() / "sources").rglob("*") if path.suffix in (".npz", ".dat")]
    assert kept == []  # nothing of the archive stays on the host


@pytest.mark.slow
def test_of_a_bucket_listing_takes_headers_and_starts_alone(bucket, tmp_path):
    write_wfdb(tmp_path / "archive/p00", 0)
    with (tmp_path / "archive/p00/p000000.dat").open("ab") as file:
        file.write(bytes(40_000_000))
    upload(tmp_path / "archive", f"{bucket}/archive")
    source = parse_source(f"wfdb:{bucket}/archive")
    (found,) = find_recordings([source], small_config())
    assert found.duration_s == 65
    (data,) = (host_folder() / "sources").rglob("*.dat")
    assert data.stat().st_size == 40_026_000
    assert data.stat().st_blocks * 512 < 1_000_000


@pytest.mark.slow
def test_a_store_in_a_bucket_is_prepared_trained_from_and_resumed(bucket, tmp_path, repository):
    write_archive(tmp_path / "archive", 12, minutes=3.2)
    store = f"{bucket}/stores/ward"
    recipe = ["--config", str(repository / "tests/launch/tiny_recipe.py"), "--config.prepare.split=(0.5, 0.3, 0.2)"]
    line = ["tools/prepare_store.py", *recipe, "--source", f"numpy:{tmp_path / 'archive'}", "--out", store]
    said = run(line, repository)
    assert said["store"] == store
    assert run(line, repository)["hash"] == said["hash"]  # finished: nothing is prepared
    shutil.rmtree(host_folder())  # another host
    train = ["launch/run.py", *recipe, f"--config.data.store={store}", "--workdir", str(tmp_path / "run")]
    run([*train, "--config.train.steps=4"], repository)
    shutil.rmtree(host_folder())
    run([*train, "--config.train.steps=8", "--allow_change=train.steps"], repository)
    steps = [json.loads(line)["step"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 8
    assert "SHA-256" in refusal(lambda: fetch_damaged(store))


def run(words: list[str], repository: Path) -> dict:
    line = [sys.executable, str(repository / words[0]), *words[1:]]
    environment = os.environ | {"PYTHONPATH": str(repository), "XLA_FLAGS": xla_flags(1)}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=repository, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}


def refusal(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


def fetch_damaged(store: str) -> None:
    """Change a byte of a shard in the bucket, and open the store on a host that has no copy."""
    storage = Storage(store, "data.store")
    name = next(name for name in storage.files() if name.endswith(".array_record"))
    content = bytearray(storage.read(name) or b"")
    content[100] ^= 1
    path = host_folder() / "damaged"
    path.write_bytes(content)
    storage.copy_out(path, name)
    shutil.rmtree(host_folder() / "stores")
    fetch_store(store)


@pytest.mark.slow
def test_an_upload_that_was_ended_goes_on_and_nothing_else_is_written_over(bucket, tmp_path, monkeypatch):
    store = prepare(write_archive(tmp_path / "archive", 4, minutes=1.2), tmp_path / "store")
    address, copied = f"{bucket}/store", []
    copy_out = Storage.copy_out

    def end_at_third(self, path, name):
        if len(copied) == 2:
            raise KeyboardInterrupt
        copied.append(name)
        copy_out(self, path, name)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "copy_out", end_at_third)
        with pytest.raises(KeyboardInterrupt):
            publish_store(store.path, address)
    assert "no segment store" in refusal(lambda: open_store(address))
    monkeypatch.setattr(Storage, "copy_out", lambda self, path, name: (copied.append(name), copy_out(self, path, name)))
    publish_store(store.path, address)
    assert len(copied) == len(set(copied))
    assert open_store(address).manifest == store.manifest
    other = prepare(tmp_path / "archive", tmp_path / "other", small_config(data__rate_hz=125.0))
    assert "another store" in refusal(lambda: publish_store(other.path, address))


def test_a_manifest_that_names_files_elsewhere_is_refused(monkeypatch):
    manifest = {"shards": [{"name": "../../x", "sha256": "0", "bytes": 1}], "tables": []}
    monkeypatch.setattr(Storage, "read", lambda *_: json.dumps(manifest).encode())
    assert "outside its folder" in refusal(lambda: fetch_store("s3://b/store"))


def test_an_address_of_this_machine_is_its_path(tmp_path):
    archive = write_archive(tmp_path / "archive", 4, minutes=1.2)
    source = parse_source(f"numpy:file://{archive}")
    assert source.path == str(archive)
    prepare_store([source], small_config(), tmp_path / "store", progress=False)
    assert open_store(f"file://{tmp_path / 'store'}").path == tmp_path / "store"
