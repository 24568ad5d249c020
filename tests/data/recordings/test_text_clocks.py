"""Clocks of text: time stamps of every kind, coarse ones, two rates in one table, preambles."""

import tracemalloc
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from small_files import NAMES, write_csv

from jaxbio.data.recordings import Recording, RecordingError, list_recordings, parse_source

START = datetime(2020, 1, 1, tzinfo=UTC)
RATE_HZ = 25.0
SIGNAL = np.round(np.sin(2 * np.pi * 1.2 * np.arange(775) / RATE_HZ), 4)  # 31 s, 72 a minute


def one(path, query) -> Recording:
    (entry,) = list_recordings(parse_source(f"csv:{path}?{query}"), NAMES)
    assert isinstance(entry, Recording), entry
    return entry


def stamps(write) -> list[str]:
    return [write(START + timedelta(seconds=n / RATE_HZ)) for n in range(775)]


EAST = timezone(timedelta(hours=5, minutes=30))
DATETIMES = {
    "ISO": lambda t: t.replace(tzinfo=None).isoformat(),
    "ISO with a blank": lambda t: t.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds"),
    "Z": lambda t: t.replace(tzinfo=None).isoformat() + "Z",
    "offset": lambda t: t.astimezone(EAST).isoformat(),
    "offset without a colon": lambda t: t.astimezone(EAST).isoformat().replace("+05:30", "+0530"),
    "offset behind a blank": lambda t: t.astimezone(EAST).isoformat().replace("+05:30", " +05:30"),
    "UTC in words": lambda t: t.replace(tzinfo=None).isoformat(sep=" ") + " UTC",
    "nanoseconds": lambda t: t.replace(tzinfo=None).isoformat(timespec="microseconds") + "000",
    "nanoseconds and Z": lambda t: t.replace(tzinfo=None).isoformat(timespec="microseconds") + "000Z",
    "slashes": lambda t: t.strftime("%Y/%m/%d %H:%M:%S.%f"),
    "zones that change": lambda t: t.astimezone(EAST if t.microsecond else UTC).isoformat(),
}


@pytest.mark.parametrize("case", DATETIMES)
def test_datetimes_of_every_kind_give_the_same_start_rate_and_samples(tmp_path, case):
    write_csv(tmp_path / "a.csv", {"t": stamps(DATETIMES[case]), "PPG": SIGNAL})
    recording = one(tmp_path, "time=t:datetime")
    assert (recording.start_time, recording.duration_s) == (START.timestamp(), 31.0)
    assert recording.channels["ppg"].rate_hz == RATE_HZ
    np.testing.assert_allclose(recording.read(0.0, 31.0, ["ppg"])["ppg"], SIGNAL, atol=2e-5)


def test_a_clock_of_decimal_commas_reads_like_one_of_points(tmp_path):
    lines = [f"{n / RATE_HZ:.2f};{value:.4f}\n".replace(".", ",") for n, value in enumerate(SIGNAL)]
    (tmp_path / "a.csv").write_text("t;PPG\n" + "".join(lines))
    np.testing.assert_allclose(one(tmp_path, "time=t:s").read(0.0, 31.0, ["ppg"])["ppg"], SIGNAL, atol=2e-5)


def test_elapsed_time_may_be_written_as_a_clock(tmp_path):
    lines = [f"'{n // 1500}:{n / RATE_HZ % 60:06.3f}',{value}\r\n" for n, value in enumerate(np.tile(SIGNAL, 4))]
    (tmp_path / "a.csv").write_text("'Elapsed time','PPG'\r\n'hh:mm:ss.mmm','NU'\r\n" + "".join(lines))
    recording = one(tmp_path, "time=Elapsed time:s")
    assert recording.duration_s == 124.0
    np.testing.assert_allclose(recording.read(0.0, 124.0, ["ppg"])["ppg"], np.tile(SIGNAL, 4), atol=2e-4)


@pytest.mark.parametrize("rate_hz", [25, 32, 50, 100, 125, 250])
@pytest.mark.parametrize("begin_s", [0.0, 0.4])
def test_whole_seconds_give_the_right_rate_and_evenly_spread_samples(tmp_path, rate_hz, begin_s):
    at_s = begin_s + np.arange(31 * rate_hz) / rate_hz
    signal = np.sin(2 * np.pi * 1.2 * at_s)
    seconds = [(START + timedelta(seconds=int(t + 1e-9))).strftime("%Y-%m-%d %H:%M:%S") for t in at_s]
    write_csv(tmp_path / "a.csv", {"t": seconds, "PPG": signal.round(5)})
    recording = one(tmp_path, "time=t:datetime")
    assert recording.channels["ppg"].rate_hz == rate_hz
    assert recording.start_time == START.timestamp()
    assert recording.duration_s == pytest.approx(31.0, abs=2 / rate_hz)
    ppg = recording.read(0.0, 31.0 - 2 / rate_hz, ["ppg"])["ppg"]
    np.testing.assert_allclose(ppg, signal[: len(ppg)], atol=0.02)


def test_a_gap_in_a_clock_of_whole_seconds_is_nan(tmp_path):
    at_s = np.concatenate([np.arange(500), np.arange(750, 1500)]) / 25
    write_csv(tmp_path / "a.csv", {"t": at_s.astype(int), "PPG": np.sin(at_s)})
    recording = one(tmp_path, "time=t:s")
    ppg = recording.read(0.0, recording.duration_s, ["ppg"])["ppg"]
    assert (recording.duration_s, len(ppg)) == (60.0, 1500)
    lost = np.arange(500, 749)
    assert np.isnan(ppg[lost]).all()
    rest = np.delete(np.arange(1500), np.append(lost, 749))
    np.testing.assert_allclose(ppg[rest], np.sin(rest / 25), atol=0.01)


def test_packets_of_samples_with_one_stamp_are_spread(tmp_path):
    """A radio link's packets: ten samples at 64 Hz share a stamp that jitters by some milliseconds."""
    rng = np.random.default_rng(0)
    at_s = np.arange(64 * 40) / 64
    sent_s = np.repeat(at_s[9::10] + 0.02 + rng.uniform(0, 0.012, 256), 10)
    write_csv(tmp_path / "a.csv", {"t": (sent_s * 1000).round().astype(int), "PPG": np.sin(2 * np.pi * at_s)})
    recording = one(tmp_path, "time=t:ms")
    assert recording.channels["ppg"].rate_hz == pytest.approx(64.0, rel=0.01)
    ppg = recording.read(1.0, 39.0, ["ppg"])["ppg"]
    assert np.isfinite(ppg).all()
    phase = np.unwrap(np.angle(np.exp(2j * np.pi * np.arange(len(ppg)) / recording.channels["ppg"].rate_hz)))
    assert np.corrcoef(ppg, np.sin(phase + np.arctan2(ppg @ np.cos(phase), ppg @ np.sin(phase))))[0, 1] > 0.99


def test_two_equal_stamps_among_many_are_one_sample_their_mean(tmp_path):
    at_ms, values = np.arange(600) * 20, np.arange(600.0)
    at_ms, values = np.insert(at_ms, 100, at_ms[99]), np.insert(values, 100, 101.0)
    write_csv(tmp_path / "a.csv", {"t": at_ms, "PPG": values})
    ppg = one(tmp_path, "time=t:ms").read(0.0, 12.0, ["ppg"])["ppg"]
    np.testing.assert_array_equal(ppg, np.where(np.arange(600) == 99, 100.0, np.arange(600.0)))


@pytest.mark.parametrize("query", ["time=t:s", "time=t:s&rate_hz=100"])
def test_two_rates_in_one_table_are_read_each_on_its_own_stamps(tmp_path, query):
    ecg_s, ppg_s = np.arange(3100) / 100, np.arange(992) / 32 + 0.0013
    ecg, ppg = np.sin(2 * np.pi * 3 * ecg_s), np.sin(2 * np.pi * 1.2 * ppg_s)
    lines = [(t, f"{t:.4f},{v:.5f},") for t, v in zip(ecg_s, ecg)] + [
        (t, f"{t:.4f},,{v:.5f}") for t, v in zip(ppg_s, ppg)
    ]
    (tmp_path / "t.csv").write_text("t,ECG,PPG\n" + "\n".join(line for _, line in sorted(lines)) + "\n")
    recording = one(tmp_path, query)
    rates = {role: channel.rate_hz for role, channel in recording.channels.items()}
    assert rates == ({"ecg": 100.0, "ppg": 100.0} if "rate_hz" in query else {"ecg": 100.0, "ppg": 32.0})
    read = recording.read(0.0, 30.9, ["ecg", "ppg"])
    for role, frequency in (("ecg", 3), ("ppg", 1.2)):
        grid_s = np.arange(len(read[role])) / rates[role]
        expected = np.sin(2 * np.pi * frequency * grid_s)
        assert np.isnan(read[role]).sum() <= 2  # before a signal's first stamp
        np.testing.assert_allclose(np.nan_to_num(read[role], nan=0.0), expected, atol=0.03)


def test_a_sensor_that_is_off_for_long_stays_missing(tmp_path):
    cells = [f"{value}" for value in SIGNAL]
    cells[100:400] = [""] * 300
    write_csv(tmp_path / "a.csv", {"t": np.arange(775) / 25, "PPG": cells, "II": SIGNAL})
    ppg = one(tmp_path, "time=t:s").read(0.0, 31.0, ["ppg"])["ppg"]
    assert np.flatnonzero(np.isnan(ppg)).tolist() == list(range(100, 400))


@pytest.mark.parametrize("query", ["columns=ppg:1", "rate_hz=64&columns=ppg:1"])
@pytest.mark.parametrize("columns", [1, 3])
def test_a_preamble_of_start_and_rate_is_the_clock(tmp_path, query, columns):
    """Empatica E4: POSIX start, then the rate, then samples; several columns repeat both."""
    values = np.round(100 * np.sin(np.arange(64 * 31) / 9), 2)
    top = [", ".join(["1447333455.000000"] * columns), ", ".join(["64.000000"] * columns)]
    (tmp_path / "BVP.csv").write_text("\n".join(top + [", ".join([f"{v:.2f}"] * columns) for v in values]) + "\n")
    recording = one(tmp_path, query)
    assert (recording.start_time, recording.duration_s) == (1447333455.0, 31.0)
    assert recording.channels["ppg"].rate_hz == 64.0
    np.testing.assert_allclose(recording.read(0.0, 31.0, ["ppg"])["ppg"], values, rtol=1e-6)


def test_files_without_a_preamble_beside_those_with_one_are_refused_singly(tmp_path):
    (tmp_path / "BVP.csv").write_text("1447333455.0\n64.0\n" + "".join(f"{n % 60}.5\n" for n in range(2000)))
    (tmp_path / "tags.csv").write_text("1447333460.11\n1447333470.25\n1447333480.5\n")
    found = list_recordings(parse_source(f"csv:{tmp_path}?columns=ppg:1"), NAMES)
    assert [getattr(entry, "reason", "read") for entry in found] == ["read", "bad_rate"]


@pytest.mark.parametrize("cell", ["", "soon", "-1", "1e300", "inf"])
def test_a_wrong_stamp_costs_its_span_and_is_named(tmp_path, cell):
    times = [str(n / 50) for n in range(1500)]
    times[1200] = cell
    write_csv(tmp_path / "a.csv", {"t": times, "PPG": np.arange(1500)})
    recording = one(tmp_path, "time=t:s")
    np.testing.assert_allclose(recording.read(0.0, 23.5, ["ppg"])["ppg"], np.arange(1175))
    np.testing.assert_allclose(recording.read(24.5, 30.0, ["ppg"])["ppg"], np.arange(1225, 1500))
    with pytest.raises(RecordingError) as caught:
        recording.read(23.5, 24.5, ["ppg"])
    assert (caught.value.reason, "line 1202" in caught.value.detail) == ("bad_time", True)


def test_a_last_line_that_is_cut_off_costs_its_span(tmp_path):
    path = write_csv(tmp_path / "a.csv", {"t": np.arange(1500) / 50, "PPG": np.arange(1500)})
    path.write_text(path.read_text()[: -len("9.98,1499\n")])  # "2" remains of "29.98,1499"
    recording = one(tmp_path, "time=t:s")
    assert recording.duration_s == pytest.approx(29.98)
    np.testing.assert_allclose(recording.read(0.0, 29.0, ["ppg"])["ppg"], np.arange(1450))


def test_a_clock_that_is_set_back_keeps_what_came_before(tmp_path):
    times = np.concatenate([np.arange(1000), np.arange(950, 2050)]) / 50
    write_csv(tmp_path / "a.csv", {"t": times, "PPG": np.arange(2100)})
    recording = one(tmp_path, "time=t:s")
    np.testing.assert_allclose(recording.read(0.0, 19.0, ["ppg"])["ppg"], np.arange(950))
    with pytest.raises(RecordingError, match="earlier than the one before"):
        recording.read(19.0, 21.0, ["ppg"])


def test_a_clock_that_is_set_back_and_never_comes_up_again_shortens_nothing(tmp_path):
    times = np.concatenate([np.arange(15_000), np.arange(10_000, 11_000)]) / 50
    write_csv(tmp_path / "a.csv", {"t": times, "PPG": np.arange(16_000)})
    recording = one(tmp_path, "time=t:s")
    assert recording.duration_s == 300.0
    np.testing.assert_allclose(recording.read(0.0, 299.0, ["ppg"])["ppg"], np.arange(14_950))
    with pytest.raises(RecordingError, match=r"line 15002.*999 more"):
        recording.read(270.0, 300.0, ["ppg"])


def test_a_clock_that_is_set_back_for_more_than_a_tenth_of_the_file_is_refused_by_line(tmp_path):
    times = np.concatenate([np.arange(15_000), np.arange(5_000, 10_000)]) / 50
    write_csv(tmp_path / "a.csv", {"t": times, "PPG": np.arange(20_000)})
    (entry,) = list_recordings(parse_source(f"csv:{tmp_path}?time=t:s"), NAMES)
    assert (entry.reason, "line 15002" in entry.detail) == ("bad_time", True)
    assert "5000 of 20000" in entry.detail


def test_a_clock_that_is_set_forward_by_months_is_refused(tmp_path):
    times = np.concatenate([np.arange(3000), 280 * 86_400 * 50 + np.arange(3000)]) / 50
    write_csv(tmp_path / "a.csv", {"t": times, "PPG": np.zeros(6000)})
    (entry,) = list_recordings(parse_source(f"csv:{tmp_path}?time=t:s"), NAMES)
    assert (entry.reason, "set forward" in entry.detail) == ("bad_time", True)


def test_a_long_gap_takes_no_memory(tmp_path):
    at = np.concatenate([np.arange(3000), 5_000_000 + np.arange(3000)])
    write_csv(tmp_path / "a.csv", {"t": at / 50, "PPG": np.arange(6000)})
    recording = one(tmp_path, "time=t:s")
    tracemalloc.start()
    ppg = recording.read(99_990.0, 100_060.0, ["ppg"])["ppg"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6  # the grid of the file has 20 MB
    np.testing.assert_array_equal(ppg, [*[np.nan] * 500, *range(3000, 6000)])


@pytest.mark.parametrize("query", ["rate_hz=100", "time=t:s", "time=t:s&rate_hz=100"])
def test_a_slow_signal_in_every_fourth_row_of_a_fast_one_is_read_at_its_own_rate(tmp_path, query):
    t = np.arange(3100) / 100
    ppg = [f"{np.sin(2 * np.pi * 1.2 * at):.5f}" if n % 4 == 1 else "" for n, at in enumerate(t)]
    write_csv(tmp_path / "a.csv", {"t": t, "II": np.cos(t).round(5), "PPG": ppg})
    recording = one(tmp_path, query)
    rates = {role: channel.rate_hz for role, channel in recording.channels.items()}
    assert rates == {"ecg": 100.0, "ppg": 100.0 if query == "time=t:s&rate_hz=100" else 25.0}
    read = recording.read(0.0, 31.0, ["ecg", "ppg"])
    np.testing.assert_allclose(read["ecg"], np.cos(t), atol=1e-5)
    grid_s = np.arange(len(read["ppg"])) / rates["ppg"]
    assert np.isnan(read["ppg"]).sum() <= 4
    np.testing.assert_allclose(np.nan_to_num(read["ppg"])[2:-4], np.sin(2 * np.pi * 1.2 * grid_s)[2:-4], atol=0.03)


@pytest.mark.parametrize("other", ["there", "lost too"])
def test_samples_lost_at_random_are_no_other_rate(tmp_path, other):
    rng = np.random.default_rng(0)
    lost, also_lost = rng.random((2, 3100)) < 0.2
    ppg = ["" if gone else f"{n}" for n, gone in enumerate(lost)]
    ecg = ["" if gone and other != "there" else "1" for gone in also_lost]
    write_csv(tmp_path / "a.csv", {"t": np.arange(3100) / 100, "II": ecg, "PPG": ppg})
    recording = one(tmp_path, "time=t:s")
    assert recording.channels["ppg"].rate_hz == 100.0
    np.testing.assert_array_equal(np.isnan(recording.read(0.0, 31.0, ["ppg"])["ppg"]), lost)
