"""The report of a store: self-contained, complete, readable, and drawn from any store."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "data"))
from prepared import beating_signals, prepare, small_config, write_archive, write_recording

from jaxbio.report.store import draw_segment, write_store_report

VOID = {"meta", "br", "path", "use", "rect", "img", "line", "circle"}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, object]:
    folder = tmp_path_factory.mktemp("made")
    archive = write_archive(folder / "archive", 6)
    write_recording(archive / "<b>&.npz", {"II": beating_signals(0, 60)["II"]})
    (archive / "torn.npz").write_bytes(b"PK nothing")
    store = prepare(archive, folder / "store")
    return write_store_report(store, small_config()), store


class Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def test_page_needs_no_network_and_is_well_formed(made):
    text = made[0].read_text()
    assert made[0] == made[1].path / "store_report.html"
    assert not re.search(r'(src|href)="(?!#)(?!data:)', text)
    assert "url(http" not in text
    assert "<script" not in text
    assert 'name="viewport"' in text
    assert len(text) < 2_000_000
    parser = Balance()
    parser.feed(text)
    assert not parser.open


def test_page_tells_hours_reasons_classes_pairs_and_examples(made):
    text, store = made[0].read_text(), made[1]
    kept_h = store.manifest["account"]["kept_s"] / 3600
    for expected in (
        f"{kept_h:,.2f} of",
        "missing channel",
        "remainder",
        "Excellent",
        "lower edges",
        "better \\ worse",
    ):
        assert expected in text
    for label in ("time gap, s", "quality score", "segments, %", "time, s", "ECG, NU", "PPG, NU"):
        assert label in text, label
    classes = np.unique(store.column("quality_waveform") // 0.1).size
    assert text.count("its worst") == text.count("its best") > 1 <= classes
    assert "torn.npz" in text


def test_names_of_files_are_shown_as_they_are(made):
    text = made[0].read_text()
    assert "&lt;b&gt;&amp;" in text
    assert "<b>&" not in text


def test_report_of_single_segments_and_of_another_variant(made, tmp_path):
    said = {
        "all_segments": "the rule makes no pairs",
        "same_segment": "each paired with itself",
        "good_bad": "pairs by the rule good_bad",
    }
    for rule, words in said.items():
        config = small_config(pairs__rule=rule, quality__variant="author" if rule == "all_segments" else "waveform")
        text = write_store_report(made[1], config, tmp_path / "r.html").read_text()
        assert "Examples" in text
        assert words in text


def test_drawing_loses_no_peak():
    x_CT = np.zeros((1, 9000), np.float32)
    x_CT[0, 4321] = 5.0
    fig = draw_segment(x_CT, 300.0, [("ecg", "mV")])
    line = fig.axes[0].lines[0]
    assert line.get_ydata().max() == 5.0
    assert line.get_xdata()[np.argmax(line.get_ydata())] == pytest.approx(4321 / 300, abs=0.05)
