"""Tables that a user names (subjects, labels, exclusions, a monitor's rates): pipes and devices are named, not read."""

import os

import pytest
from array_store import random_segments, write_store

from jaxbio.config.faults import UserError
from jaxbio.data.exclusion import read_exclusion
from jaxbio.data.label_file import read_label_file
from jaxbio.data.listing import read_subjects
from jaxbio.data.seen import read_seen
from jaxbio.evaluation.tasks import read_monitor_rate


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("lists") / "store", random_segments(4))


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("/dev/tty")],
    ids=["pipe", "folder", "zero", "tty"],
)
@pytest.mark.parametrize("read", [read_exclusion, read_subjects, read_monitor_rate, read_seen, read_label_file])
def test_what_is_no_file_is_named_and_not_read(read, make, store, tmp_path):
    make(tmp_path / "list[1].csv")
    arguments = (store,) if read is read_label_file else ()
    with pytest.raises(UserError, match=r"list\[1\]\.csv"):
        read(tmp_path / "list[1].csv", *arguments)


def test_a_list_with_a_byte_order_mark_and_windows_line_ends_is_still_read(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbfsubject\r\nanna\r\n")
    assert read_exclusion(tmp_path / "x.csv").subjects == (("", "anna"),)
