"""look.py: one recording drawn as preparation would take it, and its faults named."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.data.listing import find_recordings
from jaxbio.data.recordings import parse_source
from jaxbio.report.recording import examine
from jaxbio.signals.synthetic import recording
from tools import look


@pytest.fixture(scope="module")
def csv_file(tmp_path_factory) -> Path:
    """Two and a half minutes of synthetic signals whose second window is lost and whose third is constant."""
    made = recording(0, duration_s=150.0, rate_hz=125.0)
    rows = np.stack([made.ppg, made.ecg], axis=1)
    rows[3750:7500, 1] = np.nan
    rows[7500:11250, 0] = 1.0
    path = tmp_path_factory.mktemp("look") / "bed 7.csv"
    np.savetxt(path, rows, fmt="%.5f", delimiter=",", header="PLETH,II", comments="")
    return path


def test_page_and_line_say_what_preparation_would_do(csv_file, tmp_path, capsys):
    out = tmp_path / "look.html"
    line = look.main([f"csv:{csv_file}?rate_hz=125", "--out", str(out)])
    assert json.loads(json.dumps(line)) == line
    assert (line["recording"], line["segments"], line["kept"]) == ("bed 7", 5, 3)
    assert line["rejected"] == {"missing": 1, "constant": 1}
    assert line["channels"]["ecg"] == {"name": "II", "unit": "NU", "rate_hz": 125.0}
    assert line["signals"] == ["PLETH", "II"]
    html = out.read_text()
    assert html.count("<svg") >= 3 + 4  # two channels, their scores, and examples
    for text in ("bed 7", "rejected: missing", "rejected: constant", "3 of 5", "PLETH, NU"):
        assert text in html
    assert "http" not in html.replace("http://www.w3.org", "")  # nothing is fetched
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Next:")]
    words = shlex.split(said)[3:]
    assert words[:4] == ["--config", "configs/qualityfm_base.py", "--source", f"csv:{csv_file}?rate_hz=125"]
    assert words[-1] == "--dry_run"


def test_rates_in_doubt_and_signals_upside_down_are_said(tmp_path):
    made = recording(0, duration_s=90.0, rate_hz=125.0, heart_rate_bpm=72.0)
    rows = np.stack([-made.ppg, made.ecg], axis=1)
    rows[3750:7500] = np.random.default_rng(0).standard_normal((3750, 2))
    path = tmp_path / "bed 8.csv"
    np.savetxt(path, rows, fmt="%.5f", delimiter=",", header="PLETH,II", comments="")
    out = tmp_path / "look.html"
    line = look.main([f"csv:{path}?rate_hz=125", "--out", str(out)])
    assert line["rate_in_doubt"] == {"ppg": 1, "ecg": 1}
    html = out.read_text()
    assert "in doubt in 1 of 3 segments, upside down in 2" in html
    assert html.count("in doubt in 1 of 3 segments") == 2


def test_examined_windows_are_those_that_preparation_keeps(csv_file):
    config = fields.defaults()
    (found,) = find_recordings([parse_source(f"csv:{csv_file}?rate_hz=125")], config)
    examined = examine(found, config)
    assert examined.outcome_N == ["kept", "missing", "constant", "kept", "kept"]
    assert np.isnan(examined.low_NF["ecg"][1]).all()
    assert (examined.high_NF["ppg"][2] == 1.0).all()
    signal = found.read(0.0, 30.0, ["ecg"])["ecg"]
    assert examined.low_NF["ecg"][0].min() == signal.min()
    assert examined.high_NF["ecg"][0].max() == signal.max()


def test_picture_alone_is_drawn_as_png(csv_file, tmp_path):
    out = tmp_path / "look.png"
    assert look.main([f"csv:{csv_file}?rate_hz=125", "--out", str(out)])["report"] == str(out)
    assert out.read_bytes().startswith(b"\x89PNG")


def test_recording_without_a_channel_is_drawn_and_that_is_said(tmp_path):
    np.savez(tmp_path / "a.npz", II=np.sin(np.arange(8000) / 9), rate_hz=125.0)
    line = look.main([f"numpy:{tmp_path / 'a.npz'}", "--out", str(tmp_path / "a.html")])
    assert line["missing_channels"] == ["ppg"]
    assert "would refuse this recording: it has no ppg" in (tmp_path / "a.html").read_text()


def test_truncated_data_are_shown_as_not_read(tmp_path):
    np.save(tmp_path / "a.npy", np.sin(np.arange(8000) / 9))
    config = fields.defaults()
    source = parse_source(f"numpy:{tmp_path}?rate_hz=125&columns=ppg:1,ecg:1")
    (found,) = find_recordings([source], config)
    np.save(tmp_path / "a.npy", np.sin(np.arange(4000) / 9))
    examined = examine(found, config)
    assert examined.outcome_N == ["kept", "unread"]
    assert "a.npy" in examined.failures[0]


def test_recording_shorter_than_a_segment_is_a_fault_that_says_what_helps(tmp_path, repository):
    np.savez(tmp_path / "a.npz", II=np.sin(np.arange(2000) / 9), rate_hz=125.0)
    line = [f"numpy:{tmp_path / 'a.npz'}", "--out", str(tmp_path / "a.html")]
    with pytest.raises(UserError, match=r"16 s, a segment takes 30.*data\.segment_s"):
        look.main(line)
    recipe = ["--config", str(repository / "configs" / "siamquality_resnet50.py"), "--config.data.segment_s=8.0"]
    assert look.main([*line, *recipe])["segments"] == 2


def test_recording_of_which_nothing_can_be_read_is_a_fault(tmp_path):
    (tmp_path / "a.csv").write_text("PLETH,II\n" + "1,2\n" * 2000 + "lead,off\n" + "1,2\n" * 2100)
    with pytest.raises(UserError, match=r"none of it can be read.*a\.csv"):
        look.main([f"csv:{tmp_path}?rate_hz=125", "--out", str(tmp_path / "a.html")])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["csv:{file}?rate_hz=125", "--out", "look.pdf"], ".html or .png"),
        (["csv:{file}?rate_hz=125", "--recording", "bed 8"], "no recording named 'bed 8'"),
        (["csv:{file}"], "rate_hz"),
        (["csv:{file}?rate_hz=125&columns=ppg:x,ecg:y"], "missing_channel"),
        (["synthetic:none"], "number of 30-s segments"),
    ],
)
def test_faults_are_named(csv_file, arguments, said):
    with pytest.raises(UserError) as caught:
        look.main([argument.replace("{file}", str(csv_file)) for argument in arguments])
    assert said in str(caught.value)


def test_names_of_the_file_are_listed_where_a_channel_is_missing(csv_file, tmp_path, caplog):
    path = tmp_path / "a.csv"
    path.write_text(csv_file.read_text().replace("PLETH,II", "PLETHISMO,II", 1))
    look.main([f"csv:{path}?rate_hz=125", "--out", str(tmp_path / "look.png")])
    assert "no signal for ppg; the file has 'PLETHISMO', 'II'; nearest: columns=ppg:PLETHISMO" in caplog.text
    path.write_text(csv_file.read_text().replace("PLETH,II", "PLETHISMO,RESP", 1))
    with pytest.raises(UserError, match="'PLETHISMO', 'RESP'"):
        look.main([f"csv:{path}?rate_hz=125", "--out", str(tmp_path / "look.png")])


def test_an_assumed_unit_is_used(csv_file, tmp_path):
    line = look.main([f"csv:{csv_file}?rate_hz=125", "--assume_unit", "ecg:uV", "--out", str(tmp_path / "look.png")])
    assert line["channels"]["ecg"]["unit"] == "mV"
    with pytest.raises(UserError, match="--assume_unit"):
        look.main([f"csv:{csv_file}?rate_hz=125", "--assume_unit", "ecg:miles", "--out", str(tmp_path / "look.png")])
