"""Files appear whole or not at all, and what killed writers leave goes."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from jaxbio.data.seen import NOTHING
from jaxbio.data.whole_files import remove_unfinished, to_disk, unfinished_path, whole_file, whole_folder
from jaxbio.report.examples import Examples, write_examples
from jaxbio.report.page import write_page

# Ends itself in the middle of writing: nothing of Python's runs any more.
KILLED = """
import os, pathlib, signal, sys
from jaxbio.data.whole_files import whole_file, whole_folder
path = pathlib.Path(sys.argv[1])
with (whole_folder if sys.argv[2] == "folder" else whole_file)(path) as unfinished:
    (unfinished / "part" if sys.argv[2] == "folder" else unfinished).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(path, kind="file"):
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), kind], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL


@pytest.fixture(autouse=True)
def _library(monkeypatch, repository):
    monkeypatch.setenv("PYTHONPATH", str(repository))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_stays_as_it_was_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with contextlib.suppress(RuntimeError), whole_file(path) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with whole_file(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["x"]


def test_a_folder_takes_the_place_of_an_old_one(tmp_path):
    for content in ("old", "new"):
        with whole_folder(tmp_path / "index" / "x") as unfinished:
            (unfinished / content).touch()
    assert names(tmp_path / "index" / "x") == ["new"]
    with contextlib.suppress(RuntimeError), whole_folder(tmp_path / "index" / "x"):
        raise RuntimeError
    assert names(tmp_path / "index") == ["x"]


def write_seen(path):
    NOTHING.write(path.with_name("seen.npz"))


def write_run_examples(path):
    write_examples(path.parent, Examples(np.zeros((1, 2, 1, 4), np.int16), 4.0, ("ppg",), {}, 0.1))


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize(
    "write",
    [lambda path: write_page(path, "<p>"), write_seen, write_run_examples],
    ids=["page", "seen", "examples"],
)
def test_whoever_writes_next_removes_what_a_killed_process_left(write, kind, tmp_path):
    kill_while_writing(tmp_path / "report.html", kind)
    assert names(tmp_path)[0].startswith(".unfinished-")
    write(tmp_path / "report.html")
    assert len(names(tmp_path)) == 1
    assert not names(tmp_path)[0].startswith(".")


def test_what_others_are_writing_is_left_alone_but_not_for_ever(tmp_path):
    mine = tmp_path / f".unfinished-{socket.gethostname()}-{os.getppid()}-x"
    theirs, forgotten = tmp_path / ".unfinished-elsewhere-1-x", tmp_path / ".unfinished-elsewhere-2-x"
    for path in (mine, theirs, forgotten, tmp_path / ".hidden"):
        path.touch()
    os.utime(forgotten, (0, 0))
    with whole_file(tmp_path / "x") as unfinished:
        unfinished.touch()
    assert names(tmp_path) == sorted([mine.name, theirs.name, ".hidden", "x"])
    remove_unfinished(tmp_path, alone=True)
    assert names(tmp_path) == [".hidden", "x"]


@pytest.mark.parametrize("name", ["a[1]", "a*b?", "#", "50%", "-x", "é 中", "a|b", "x" * 180])
def test_any_name_of_folder_and_file_is_written_and_cleared(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    (folder / unfinished_path(folder / name).name.replace(str(os.getpid()), "99999999")).touch()
    with whole_file(folder / name) as unfinished:
        unfinished.write_text("x")
    assert names(folder) == [name]


def test_a_link_among_the_leftovers_is_not_followed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / ".unfinished-here-1-x").symlink_to(tmp_path / "kept")
    remove_unfinished(tmp_path, alone=True)
    assert names(tmp_path) == ["kept"]
    assert names(tmp_path / "kept") == ["file"]


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.ENOSYS, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_sync_is_no_fault_but_a_failing_disk_is(number, fails, tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with (tmp_path / "x").open("w") as file:
        if fails:
            with pytest.raises(OSError, match=os.strerror(number)):
                to_disk(file)
        else:
            to_disk(file)
