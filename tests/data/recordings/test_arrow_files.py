"""Parquet and Arrow files: values as written, clocks of rates, columns and stamps, faults named."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_files import NAMES

from jaxbio.data.recordings import RecordingError, Refused, list_recordings, parse_source

RATE_HZ = 50.0


def table(seconds=60, **columns):
    rng = np.random.default_rng(4)
    rows = round(RATE_HZ * seconds)
    ecg = pa.array(rng.normal(size=rows), mask=np.arange(rows) % 100 == 7)
    return pa.table({"PLETH": rng.integers(0, 999, rows), "II [uV]": ecg, "note": ["x"] * rows, **columns})


def write(path, made, **how):
    if path.suffix == ".parquet":
        pq.write_table(made, path, row_group_size=700, **how)
    elif path.suffix == ".arrow":
        with pa.ipc.new_file(path, made.schema, options=pa.ipc.IpcWriteOptions(**how)) as writer:
            writer.write_table(made, max_chunksize=700)
    else:
        with pa.ipc.new_stream(path, made.schema) as writer:
            writer.write_table(made, max_chunksize=700)


def one(path, query=""):
    (entry,) = list_recordings(parse_source(f"parquet:{path}{query}"), NAMES)
    return entry


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.ipc"])
def test_values_are_those_written_and_nulls_are_missing(tmp_path, name):
    path, made = tmp_path / name, table()
    write(path, made)
    entry = pickle.loads(pickle.dumps(one(path, "?rate_hz=50")))
    assert (entry.duration_s, entry.channels["ecg"].unit, entry.signals) == (60.0, "mV", ("PLETH", "II"))
    ecg = made["II [uV]"].to_numpy() * 1e-3
    read = entry.read(1.3, 58.4, ["ppg", "ecg"])
    np.testing.assert_allclose(read["ecg"], ecg[65:2920], rtol=1e-6)
    assert np.isnan(read["ecg"]).sum() == np.isnan(ecg[65:2920]).sum() > 20
    np.testing.assert_array_equal(read["ppg"], made["PLETH"].to_numpy()[65:2920])


@pytest.mark.parametrize("how", [{"compression": "zstd"}, {"compression": "lz4"}])
def test_packed_files_are_read(tmp_path, how):
    for name in ("a.parquet", "a.arrow"):
        write(tmp_path / name, table(), **how)
        assert one(tmp_path / name, "?rate_hz=50").read(0.0, 60.0, ["ppg"])["ppg"].shape == (3000,)


def test_rate_is_that_of_a_column_of_the_metadata_or_of_the_line(tmp_path):
    path = tmp_path / "a.parquet"
    write(path, table(fs=np.full(3000, 25.0), other=np.full(3000, 100), mixed=np.arange(3000)))
    for query, rate_hz in (("", 25.0), ("?rates=ppg:other,ecg:100", 100.0), ("?rate_hz=20", 20.0)):
        assert {channel.rate_hz for channel in one(path, query).channels.values()} == {rate_hz}
    assert one(path, "?rates=ppg:mixed,ecg:100").reason == "bad_rate"
    assert one(path, "?rates=ppg:nowhere,ecg:100").reason == "bad_rate"
    assert one(path, "?rates=ppg:50,ecg:100").reason == "bad_rate"  # in one row
    write(path, table().replace_schema_metadata({"sampling_rate": "62.5"}))
    assert one(path).channels["ppg"].rate_hz == 62.5
    write(path, table())
    assert (one(path).reason, "rates=" in one(path).detail) == ("bad_rate", True)


@pytest.mark.parametrize("kind", ["datetime", "text", "s", "ms"])
def test_stamps_place_samples_and_leave_gaps(tmp_path, kind):
    path = tmp_path / "a.parquet"
    seconds = np.arange(3000) / RATE_HZ + np.where(np.arange(3000) >= 2000, 5.0, 0.0)
    dates = np.datetime64("2022-05-06T07:08:09", "us") + np.rint(seconds * 1e6).astype("m8[us]")
    stamps = {"datetime": dates, "text": [str(date) for date in dates], "s": seconds, "ms": seconds * 1e3}[kind]
    made = table(time=stamps)
    write(path, made)
    entry = one(path, f"?time=time:{'datetime' if kind == 'text' else kind}")
    assert (entry.duration_s, entry.channels["ppg"].rate_hz) == (65.0, 50.0)
    began = np.datetime64("2022-05-06T07:08:09").astype("M8[s]").astype(int) if kind in ("datetime", "text") else None
    assert entry.start_time == began
    ppg, written = entry.read(0.0, 65.0, ["ppg"])["ppg"], made["PLETH"].to_numpy()
    np.testing.assert_array_equal(ppg[:2000], written[:2000])
    np.testing.assert_array_equal(ppg[2250:], written[2000:])
    assert np.isnan(ppg[2000:2250]).all()
    assert one(path, "?time=note:s").reason in ("bad_time", "unreadable_file")
    assert one(path, "?time=when:s").reason == "bad_time"


def test_a_clock_that_is_set_back_is_accounted_and_one_set_back_far_or_forward_is_refused(tmp_path):
    path, row = tmp_path / "a.parquet", np.arange(3000)
    write(path, table(time=(row - np.where(row >= 2000, 100, 0)) / RATE_HZ))
    entry = one(path, "?time=time:s")
    assert entry.duration_s == 58.0
    assert np.isfinite(entry.read(0.0, 39.0, ["ppg"])["ppg"]).all()
    assert np.isfinite(entry.read(40.5, 58.0, ["ppg"])["ppg"]).all()
    # 99: the row behind them has the stamp of the one before the first
    with pytest.raises(RecordingError, match=r"row 2001, column 'time'.*98 more") as caught:
        entry.read(30.0, 58.0, ["ppg"])
    assert caught.value.reason == "bad_time"
    for change, said in ((-1900, "row 2001"), (280 * 86_400 * 50, "set forward")):
        write(path, table(time=(row + np.where(row >= 2000, change, 0)) / RATE_HZ))
        assert (one(path, "?time=time:s").reason, said in one(path, "?time=time:s").detail) == ("bad_time", True)


def test_a_missing_stamp_costs_the_span_of_a_sample_and_nothing_where_there_is_none(tmp_path):
    path, row = tmp_path / "a.parquet", np.arange(3000)
    seconds = pa.array(row / RATE_HZ, mask=row == 2000)
    write(path, table(time=seconds))
    with pytest.raises(RecordingError, match="no time"):
        one(path, "?time=time:s").read(30.0, 58.0, ["ppg"])
    write(path, table(time=seconds).set_column(0, "PLETH", pa.array(np.ones(3000), mask=row == 2000)))
    assert np.isfinite(one(path, "?time=time:s").read(30.0, 58.0, ["ppg"])["ppg"]).all()


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path):
    for name in ("a.parquet", "a.arrow", "a.ipc"):
        path = tmp_path / name
        write(path, table())
        whole = path.read_bytes()
        for content in (b"", b"PNG" + whole, whole[:10], whole[: len(whole) // 2]):
            path.write_bytes(content)
            entry = one(path, "?rate_hz=50")
            assert isinstance(entry, Refused), (name, len(content))
            assert (
                entry.reason in ("empty_file", "not_a_recording", "unreadable_file"),
                str(path) in entry.detail,
            ) == (
                True,
                True,
            )


def test_columns_that_unpack_into_far_more_than_their_bytes_are_refused_unread(tmp_path):
    zeros = pa.table({"PLETH": np.zeros(10_000_000)})
    pq.write_table(zeros, tmp_path / "a.parquet", row_group_size=2**30, use_dictionary=False, compression="zstd")
    with pa.ipc.new_file(
        tmp_path / "a.arrow", zeros.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as file:
        file.write_table(zeros)
    for path in (tmp_path / "a.parquet", tmp_path / "a.arrow"):
        assert path.stat().st_size < 200_000
        entry = one(path, "?rate_hz=50")
        assert (entry.reason, str(path) in entry.detail) == ("unreadable_file", True)
