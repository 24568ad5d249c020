"""What is advised fits the error: room only where room is wanted."""

import errno
import os
import subprocess
import sys

import pytest

from jaxbio.config.faults import EXIT_FAILURE, EXIT_USER_FAULT, report
from jaxbio.config.refusals import NO_ROOM, advise, error_number

ADVICE = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EMFILE: "ulimit -n",
    errno.ENFILE: "fs.file-max",
    errno.EACCES: "right",
    errno.EPERM: "right",
    errno.EROFS: "reading only",
    errno.EOPNOTSUPP: "file system cannot",
    errno.ENOSYS: "file system cannot",
    errno.ENAMETOOLONG: "shorter",
    errno.EFBIG: "ulimit -f",
    errno.EIO: "fails",
    errno.ESTALE: "fails",
    errno.ENOENT: "still there",
    errno.ENOMEM: "memory",
    errno.EDOM: "see to the disk",
}


def of(number):
    return OSError(number, os.strerror(number), "/data/x")


def caused(number):
    """As a library has it that turns one error into another."""
    try:
        try:
            raise of(number)
        except OSError as error:
            raise RuntimeError("could not write") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize("number", ADVICE, ids=errno.errorcode.get)
def test_each_error_has_its_advice_however_it_comes(number):
    said = [of(number), caused(number)]
    if number != errno.EDOM:
        said += [
            ValueError(f"RESOURCE_EXHAUSTED: Error writing 'x' [OS error {number}: {errno.errorcode[number]}]"),
            RuntimeError(f"worker failed: {of(number)}"),
            RuntimeError(f"write() failed: {os.strerror(number)}; writing x"),
        ]
    for error in said:
        assert ADVICE[number] in advise(error), error
        assert ("room" in advise(error)) == (number in NO_ROOM)


def test_an_error_without_a_number_asks_for_no_room():
    for error in (ValueError("no such leaf"), RuntimeError(""), OSError("no ink")):
        assert error_number(error) == 0
        assert "room" not in advise(error)


def test_a_chain_that_bites_its_tail_ends():
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert error_number(first) == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EROFS, errno.EACCES])
def test_what_the_system_refuses_a_command_is_a_line_with_its_advice(number, capsys):
    assert report(of(number)) == EXIT_USER_FAULT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: /data/x = {os.strerror(number)!r}: ")
    assert ADVICE[number] in line


def test_a_file_that_a_program_missed_keeps_its_traceback(capsys):
    assert report(of(errno.ENOENT)) == EXIT_FAILURE
    assert "FileNotFoundError" in capsys.readouterr().err


def test_a_command_on_a_full_disk_ends_in_a_line(repository, tmp_path):
    """/dev/full stands for the disk."""
    code = """
import sys
from jaxbio.config.faults import run_command
def main(arguments):
    with open("/dev/full", "w") as file:
        file.write("x")
run_command(main)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_USER_FAULT
    assert "make room" in done.stderr
    assert "Traceback" not in done.stderr
