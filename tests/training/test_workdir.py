"""The run folder: what a run needs of its file system, and what killed runs leave."""

import errno
import os
from pathlib import Path

import psutil
import pytest

from jaxbio.config.faults import UserError
from jaxbio.training import workdir


def test_workdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="--workdir"):
        workdir.check_writable(tmp_path / "file" / "run")
    if psutil.Process().uids().effective:  # root writes anywhere
        (tmp_path / "sealed").mkdir(mode=0o500)
        with pytest.raises(UserError, match="Permission denied"):
            workdir.check_writable(tmp_path / "sealed")


def test_a_workdir_is_made_and_left_empty(tmp_path):
    workdir.check_writable(tmp_path / "new" / "run")
    assert list((tmp_path / "new" / "run").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_system_that_cannot_rename_is_named_before_anything_runs(what, number, tmp_path, monkeypatch):
    replace = os.replace

    def refuse(source, target):
        if Path(source).is_dir() == (what == "folder"):
            raise OSError(number, os.strerror(number), str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match=r"its file system cannot do that") as caught:
        workdir.check_writable(tmp_path)
    assert os.strerror(number) in str(caught.value)
    assert "make room" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["gs://bucket/run", Path("s3://bucket/run"), os.fsdecode(b"caf\xe9")])
def test_a_name_that_no_folder_of_a_run_can_have_is_refused_and_not_made(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--workdir"):
        workdir.check_writable(Path(name))
    assert list(tmp_path.iterdir()) == []


def test_what_killed_runs_were_writing_goes_and_the_rest_stays(tmp_path):
    left = [
        ".unfinished-elsewhere-601-report.html",
        f".unfinished-here-{os.getpid()}-metrics.jsonl",
        "nonfinite/.unfinished-pod-1-12.json",
        "checkpoints/6/.unfinished-pod-1-files.json",
    ]
    kept = ["report.html", "nonfinite/12.json", "checkpoints/6/files.json", ".hidden", "export/.unfinished-pod-1-card"]
    for name in left + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    workdir.remove_leftovers(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
