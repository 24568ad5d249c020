import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from run_folder import examples as make_examples
from run_folder import records, write_run

from jaxbio.config import changes, fields
from jaxbio.config.faults import UserError
from jaxbio.report import curves, figures, page, panels, run
from jaxbio.report import examples as pairs_shown
from jaxbio.report.series import read_series


class Elements(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "path", "use", "br", "image", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, text):
        if text.strip() and "style" not in self.open:
            self.texts.append(text.strip())


@pytest.fixture(scope="module")
def examples():
    return make_examples()


@pytest.fixture(scope="module")
def html(tmp_path_factory, examples):
    workdir = write_run(tmp_path_factory.mktemp("runs") / "run", records())
    pairs_shown.write_examples(workdir, examples)
    path = run.write_run_report(workdir)
    assert path == workdir / "report.html"
    return path.read_text()


def test_the_page_is_self_contained_and_without_script(html):
    tags = Elements(html).tags
    assert not [tag for tag, _ in tags if tag in ("script", "link", "iframe", "object")]
    loaded = [value for _, attributes in tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(value.startswith(("#", "data:")) for value in loaded)
    assert "url(http" not in html
    assert "@import" not in html


def test_the_page_fits_a_phone(html):
    tags = Elements(html).tags
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags
    svgs = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(svgs) > 10
    assert all("viewbox" in attributes and "width" not in attributes for attributes in svgs)
    assert html.count('<div class="scroll"><table') == html.count("<table")


def test_ids_are_unique_and_every_reference_is_to_one(html):
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert wanted
    assert wanted <= set(ids)


@pytest.mark.parametrize(
    "said",
    [
        "700 of 1,000",
        "held-out loss",
        "pairs/s",
        "loader wait, s",
        "step",
        "frequency, Hz",
        "time, s",
        "learning rate",
        "learning rate group 1",
    ],
)
def test_the_page_says(html, said):
    assert said in Elements(html).texts


def test_each_area_has_its_section(html):
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings == [
        "Now",
        "Does it collapse?",
        "Losses",
        "Schedules",
        "Norms",
        "Speed",
        "Where the time went",
        "Memory",
        "Pairs",
        "Reconstruction beside the target",
        "Last values",
        "Settings",
    ]


def test_the_page_says_what_a_device_holds_by_part(tmp_path):
    held = {"memory/params_bytes": 2**30, "memory/temporaries_bytes": 3 * 2**29}
    written = run.write_run_report(write_run(tmp_path / "run", [{"step": 0, **held}, *records(3)]))
    texts = Elements(written.read_text()).texts
    assert texts[texts.index("parameters, GiB") + 1] == "1"
    assert texts[texts.index("temporaries, GiB") + 1] == "1.5"
    assert "optimiser, GiB" not in texts


def test_settings_list_what_differs_from_the_defaults(html):
    texts = Elements(html).texts
    assert "train.batch" in texts
    assert "optimizer.b1" not in texts


def test_channels_that_a_small_network_does_not_reconstruct_are_left_out(tmp_path, examples):
    workdir = write_run(tmp_path / "run", [])
    target_BCS, output_BCS = examples.curves["phase"]
    curves = {"phase": (target_BCS, output_BCS[:, :1])}
    pairs_shown.write_examples(
        workdir, pairs_shown.Examples(examples.segment_BMCT, 300.0, ("ppg", "ecg"), curves, 1 / 30)
    )
    captions = re.findall(r"Pair \d, \w+: phase", run.write_run_report(workdir).read_text())
    assert captions == ["Pair 1, PPG: phase", "Pair 2, PPG: phase"]


def test_a_run_that_has_logged_nothing_has_a_page(tmp_path):
    workdir = write_run(tmp_path / "run", [])
    assert "No step has been logged yet." in run.write_run_report(workdir).read_text()
    (workdir / "metrics.jsonl").unlink()
    run.write_run_report(workdir)


def test_a_torn_last_line_is_left_out(tmp_path):
    workdir = write_run(tmp_path / "run", [{"step": 1, "train/loss": 2.0}])
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "train/lo')
    steps, values = read_series(workdir)["train/loss"]
    assert (steps.tolist(), values.tolist()) == ([1], [2.0])
    run.write_run_report(workdir)


def test_nulls_and_infinite_losses_are_drawn_around(tmp_path):
    values = [None, float("nan"), float("-inf"), 1.0]
    keys = ("train/loss", "train/grad_norm", "eval/batch_spread")
    rows = [{"step": step, **dict.fromkeys(keys, value)} for step, value in enumerate(values)]
    workdir = write_run(tmp_path / "run", rows)
    assert read_series(workdir)["train/loss"][0].tolist() == [3]
    run.write_run_report(workdir)


def test_a_foreign_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="name the folder of a run"):
        run.write_run_report(tmp_path)


def test_a_reader_never_sees_half_a_page(tmp_path, monkeypatch):
    path = page.write_page(tmp_path / "report.html", "whole")

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        page.write_page(path, "half")
    assert path.read_text() == "whole"


def test_text_is_shown_as_it_is():
    assert "<b>" not in page.page("<b>", "<b>", page.section("<b>", page.table([["<b>"]], ["<b>"]), note="<b>"))


def test_a_long_curve_keeps_its_range():
    _, (axes,) = figures.new_figure()
    steps = np.arange(100_000)
    values = np.zeros(100_000)
    values[54_321] = 7.0
    curves._draw(axes, (steps, values), None, "red")
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == 7.0
    assert len(axes.lines[0].get_xdata()) == 300


def test_a_thinned_signal_keeps_its_peaks():
    x_T = np.zeros(9000, np.float32)
    x_T[4567], x_T[4570] = 1.0, -1.0
    t_T, thin_T = pairs_shown.envelope(x_T, 300.0)
    assert len(thin_T) <= 900
    assert (thin_T.max(), thin_T.min()) == (1.0, -1.0)
    assert t_T[thin_T.argmax()] == pytest.approx(4567 / 300)
    assert (np.diff(t_T) >= 0).all()


def test_no_label_is_cut_off_where_more_ticks_are_drawn_than_were_laid_out():
    fig, (axes,) = figures.new_figure(height_in=1.8)
    axes.plot([0, 1500], [0.4, 11.8])
    axes.set(xlabel="step", ylabel="step, s")
    axes.set_ylim(0, 12.74)
    svg = figures.to_svg(fig)
    (baseline,) = re.findall(r'x="([-\d.]+)"[^>]*rotate\(-90[^>]*>step, s<', svg)
    assert float(baseline) > 6  # letters of 8 points stand to its left


def test_settings_list_what_differs_and_no_list_that_equals_its_tuple(tmp_path):
    config = changes.to_plain(fields.change(fields.defaults(), {"train.steps": 7}))
    (tmp_path / "config.json").write_text(json.dumps(config))
    html = run.write_run_report(tmp_path).read_text()
    settings = html[html.index("<h2>Settings") :]
    assert re.findall(r'data-name="field">([^<]+)<', settings) == ["train.steps"]


def test_what_each_channel_is_worth_is_drawn_in_one_panel(tmp_path):
    keys = ("eval/auroc", "eval/auroc_ppg_only", "eval/auroc_ecg_only")
    steps = [{"step": step, **{key: 0.5 + step / 100 for key in keys}} for step in (0, 10)]
    html = run.write_run_report(write_run(tmp_path, [*records(3), *steps])).read_text()
    assert "What each channel is worth" in html
    assert panels.channel_panels(dict.fromkeys(keys)) == {
        "auroc": {"all channels": keys[0], "PPG only": keys[1], "ECG only": keys[2]}
    }
