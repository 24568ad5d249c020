"""Addresses of buckets and of the web are refused wherever a file or folder is named."""

import argparse
from pathlib import Path

import pytest

from jaxbio.config import fields
from jaxbio.config.command_line import free_text, parse_command
from jaxbio.config.faults import UserError
from jaxbio.config.local_paths import address_faults, check_local, is_address, without_file
from jaxbio.config.resolve import resolve

BUCKETS = [
    "gs://b/run",
    "s3://b",
    "S3://B/x",
    "az://c/x",
    "abfss://c@a.dfs.core.windows.net/x",
    "hdfs://node:9000/x",
    "hf://org/name",
    "gcs://b",
    "r2://b/[1]",
    "oss://b/x",
    "memory://x",
    "dbfs:/mnt/x",
]
LOCAL = [
    "runs/x",
    "/data/gs/b",
    "gs",
    "gs:",
    "s3/b",
    "a:b",
    "C:\\runs",
    "lr=1e-3",
    "a//b",
    "x/gs://b",
    "~/x",
    "run#3",
    "a[1]*?",
    "synthetic:400",
    "csv:/archive/x?time=Time:s&columns=ppg:G,ecg:II",
]


@pytest.mark.parametrize("text", BUCKETS)
def test_a_bucket_is_refused_with_what_to_do(text):
    (fault,) = address_faults("data.store", text)
    assert (fault.field, fault.value) == ("data.store", text)
    assert "mount the bucket" in fault.remedy
    assert [fault.value for fault in address_faults("--source", f" wfdb:{text}?glob=*")]


@pytest.mark.parametrize("text", ["gs://b/run", "s3://b", "dbfs:/x"])
def test_a_bucket_that_became_a_path_is_still_one(text):
    assert list(address_faults("out", Path(text)))


def test_an_address_of_the_web_or_of_a_local_file_has_its_own_remedy():
    (web,) = address_faults("--data", "csv:https://physionet.org/files/x.csv")
    assert "download" in web.remedy
    for text in ("file:///data/run", "file:/data/run", "FILE:///data/run", "csv:file:///data/run"):
        (local,) = address_faults("--workdir", text)
        assert local.remedy.endswith("write the path alone, /data/run")


@pytest.mark.parametrize("text", LOCAL)
def test_a_local_name_is_none(text):
    check_local("--workdir", text)
    check_local("--workdir", Path(text))
    check_local("--workdir", "./gs://b")  # for whoever has such a folder


def test_every_address_in_a_nested_value_is_named():
    value = (("gs://a", 0.5), ["B", {"x": "s3://c"}], 3, None)
    assert [fault.value for fault in address_faults("data.store", value)] == ["gs://a", "s3://c"]
    assert list(address_faults("--train_subjects", "(('A', 0.3), ('gs://b', 0.7))"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data.store", "hf://b/s"),
        ("data.store", (("A", 0.5), ("https://b/s", 0.5))),
        ("data.exclude_subjects", "https://host/withdrawn.csv"),
        ("train.init_from", "gs://b/export"),
        ("train.init_from", (("student", "gs://b/export"),)),
        ("train.compile_cache", "gs://b/cache"),
    ],
)
def test_an_address_in_any_field_is_a_fault_of_that_field(name, value):
    with pytest.raises(UserError) as caught:
        resolve(fields.change(fields.defaults(), {name: value}))
    assert {fault.field for fault in caught.value.faults} == {name}


@pytest.mark.parametrize(
    "text", ["gs://b/s", "s3://b/s", "file:///data/s", "wfdb:s3://b/x?glob=*", "ward=csv:gs://b/x"]
)
def test_what_is_opened_is_no_fault_where_it_may_stand_and_a_fault_elsewhere(text):
    assert not list(address_faults("data.store", text, opened=True))
    assert list(address_faults("--workdir", text.removeprefix("ward=")))


def test_a_store_in_object_storage_resolves():
    resolve(fields.change(fields.defaults(), {"data.store": (("A", 0.5), ("s3://b/s", 0.5))}))


def test_addresses_that_are_opened_are_told_from_paths():
    assert [is_address(text) for text in ("s3://b", "gs://b/x", "S3://b", "file:///x", "/x", "./s3://b")] == [
        *([True] * 3),
        *([False] * 3),
    ]
    assert [without_file(text) for text in ("file:///x/y", "file:/x/y", "/x/y", "x")] == ["/x/y", "/x/y", "/x/y", "x"]


def make_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--out")
    parser.add_argument("--source", action="append")
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--licence", type=free_text)
    return parser


def test_addresses_in_flags_come_with_all_other_faults(repository):
    line = ["gs://b/s", "--out=s3://b", "--source", "csv:gs://b", "--source", "csv:here", "--workdir", "gs://b/w"]
    line += ["--licence", "https://creativecommons.org/licenses/by/4.0"]
    line += [
        "--config",
        str(repository / "configs/quickstart.py"),
        "--config.data.store=hf://b",
        "--config.train.steps=0",
    ]
    with pytest.raises(UserError) as caught:
        parse_command(line, make_parser())
    named = [fault.field for fault in caught.value.faults]
    assert named == ["store", "--out", "--source", "--workdir", "train.steps", "data.store"]


def test_a_recipe_in_a_bucket_is_refused():
    with pytest.raises(UserError, match=r"--config = 'gs://b/x\.py'"):
        parse_command(["store", "--config", "gs://b/x.py"], make_parser())
