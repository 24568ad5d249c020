"""What holds for every page that the code writes: it fits a phone, fills a desktop, follows dark mode, explains itself.

The pages: of a run, a store, a recording and an evaluation, each made as its command makes it.
"""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from prepared import prepare, small_config, write_archive
from run_folder import examples, records, write_run

from jaxbio.evaluation import comparison, tasks
from jaxbio.evaluation.measure import Answer, Truth
from jaxbio.evaluation.metrics import Interval
from jaxbio.evaluation.probe_report import Part, Shown, write_probe_report
from jaxbio.evaluation.verdict import judge
from jaxbio.report import colours, figures, page, run
from jaxbio.report.chosen import choose_examples
from jaxbio.report.examples import Examples, draw_examples, explained_share, write_examples
from jaxbio.report.store import write_store_report
from jaxbio.signals.synthetic import recording
from tools import look

# Names that Matplotlib, SVG, HTML, CSS or a terminal reads as something else than a name.
HOSTILE = (
    r"PLETH $\foo$",
    "$x^$",
    "$$",
    r"\bar{x}_i",
    "<b>&\"'</text>",
    'id="x" href="#x" url(#a) #0b6fb8',
    "_hidden",
    "%s {0} {a}",
    "II\x1b[2J\x00",
    "a\tb",
    "\udce9t\udce9",
    "\u202egnal",
    "心电",
    "x" * 300,
)


class Page(HTMLParser):
    """A page's elements with what is inside: (tag, attributes, children), text as str."""

    VOID = ("meta", "br", "img", "path", "use", "rect")

    def __init__(self, html):
        super().__init__()
        self.root = ("root", {}, [])
        self.open = [self.root]
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        element = (tag, dict(attributes), [])
        self.open[-1][2].append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.open[-1][2].append((tag, dict(attributes), []))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, text):
        self.open[-1][2].append(text)


def find(element, tag):
    """Yield every element of `tag` inside `element`."""
    for child in element[2]:
        if not isinstance(child, str):
            if child[0] == tag:
                yield child
            yield from find(child, tag)


def text_of(element):
    return "".join(child if isinstance(child, str) else text_of(child) for child in element[2])


def class_of(element):
    return element[1].get("class", "").split()


def write_look(folder: Path, names: tuple[str, str] = ("PLETH", "II"), seconds: float = 90.0) -> str:
    made = recording(0, duration_s=seconds, rate_hz=125.0)
    x_TC = np.stack([made.ppg, made.ecg], axis=1)
    x_TC[3750:7500, 1] = np.nan
    path = folder / "bed.csv"
    np.savetxt(path, x_TC, fmt="%.4f", delimiter=",", header=",".join(names), comments="")
    columns = f"ppg:{_quoted(names[0])},ecg:{_quoted(names[1])}"
    look.main([f"csv:{path}?rate_hz=125&columns={columns}", "--out", str(folder / "look.html")])
    return (folder / "look.html").read_text()


def _quoted(name: str) -> str:
    return "".join(
        letter if letter.isalnum() else "".join(f"%{byte:02X}" for byte in letter.encode()) for letter in name
    )


def compared_as(over_constant: int, over_random: int, task: tasks.Task) -> comparison.Comparison:
    """Return a comparison in which the pretrained encoder is better (1), worse (-1) or neither (0) than each."""
    row_N = np.arange(60)
    rng = np.random.default_rng(0)
    true_N = rng.integers(0, 5, 60).astype(float)
    names = (comparison.PRETRAINED, comparison.RANDOM, comparison.CONSTANT)
    intervals, gains = {}, {}
    for metric in task.metrics:
        sign = -1.0 if metric == "mae" else 1.0
        intervals[metric] = {name: Interval(0.5, 0.4, 0.6) for name in names}
        gains[metric] = {
            name: Interval(sign * better, *sorted((sign * better - 0.5, sign * better + 0.5)))
            for name, better in ((comparison.RANDOM, over_random), (comparison.CONSTANT, over_constant))
        }
    said = {name: rng.permutation(true_N) for name in names}
    score = {name: np.eye(5)[said_N.astype(int)] if task.classes else said_N[:, None] for name, said_N in said.items()}
    answers = {name: [Answer(score[name], said_N.astype(int))] for name, said_N in said.items()}
    truth = Truth(true_N.astype(int) if task.classes else true_N, row_N // 5, np.ones(60))
    seeds = {metric: {comparison.RANDOM: [0.4, 0.5]} for metric in task.metrics}
    return comparison.Comparison(row_N, answers, intervals, gains, truth, seeds)


def write_probe(folder: Path, name: str) -> str:
    task = tasks.TASKS[name]
    compared = compared_as(1, -1, task)
    verdict = judge(task, compared, subjects=12, unnamed=0.5, seen_known=False)
    facts = {"encoder": "e", "steps": 3, "segments tested": 60}
    rng = np.random.default_rng(1)
    x_BCT = rng.normal(size=(60, 2, 1500)).astype(np.float32)
    told = [np.array([name] * 60) for name in ("csv:a/b", "csv:a", "bed $1$")]
    marks = (np.zeros((60, 1)), np.zeros(60, np.uint64), 15.0 * np.arange(60), np.ones((60, 2), bool))
    segments = tasks.Segments(x_BCT, *marks, *told, np.ones(60, bool), task.classes)
    shown = Shown(segments, rng.normal(size=(60, 4)), 100.0, ("ppg", "ecg"))
    part = Part("", compared, verdict, {"10 nearest neighbours": next(iter(compared.intervals.values()))})
    path = write_probe_report(folder / "probe.html", task, [part], facts, "Cross-validated.", shown)
    return path.read_text()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    workdir = write_run(folder / "run", records(100))
    write_examples(workdir, examples())
    store = prepare(write_archive(folder / "archive", 3, minutes=1.2), folder / "store")
    return {
        "run": run.write_run_report(workdir).read_text(),
        "store": write_store_report(store, small_config()).read_text(),
        "recording": write_look(folder),
        "classes": write_probe(folder, "quality_class"),
        "numbers": write_probe(folder, "heart_rate"),
    }


PAGES = ("run", "store", "recording", "classes", "numbers")


@pytest.mark.parametrize("name", PAGES)
def test_every_section_says_what_it_shows(pages, name):
    for section in find(Page(pages[name]).root, "section"):
        (heading,) = find(section, "h2")
        said = [text_of(p) for p in find(section, "p")] + [text_of(dd) for dd in find(section, "dd") if class_of(dd)]
        assert len("".join(said)) > 20, text_of(heading)
        for figure in find(section, "figure"):
            (caption,) = find(figure, "figcaption")
            assert len(text_of(caption)) > 20, text_of(caption)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_a_phone(pages, name):
    """Pictures scale, tables of many columns become lists, and what cannot be broken scrolls in its own box."""
    html = pages[name]
    style = re.search(r"<style>(.*?)</style></head>", html, re.DOTALL)[1]
    assert not [size for size in re.findall(r"(?:^|[^-])width: *([\d.]+)px", style) if float(size) > 0]
    assert re.search(r"body \{[^}]*overflow-wrap: anywhere", style)
    assert re.search(r"figure svg[^}]*width: 100%", style)
    root = Page(html).root
    for svg in find(root, "svg"):
        assert "viewbox" in svg[1]
        assert not {"width", "height"} & set(svg[1])
    boxed = [table for div in find(root, "div") if class_of(div) == ["scroll"] for table in find(div, "table")]
    assert len(boxed) == len(list(find(root, "table")))
    for table in boxed:
        columns = [text_of(th) for th in find(table, "th")]
        assert (class_of(table) == ["stack"]) == (len(columns) > 2)
        for row in list(find(table, "tr"))[1:]:
            assert [td[1]["data-name"] for td in find(row, "td")] == columns


def test_a_number_in_a_table_is_never_broken():
    cells = page.table([["a/b", "2,290,164,874", "1.0136e-06", "-0.3", "89.06%", "12 beats", "1.2.3"]], "abcdefg")
    kinds = [class_of(td) == ["number"] for td in find(Page(cells).root, "td")]
    assert kinds == [False, True, True, True, True, False, True]
    assert re.search(r"td\.number \{ white-space: nowrap; \}", page.page("", ""))


def _spans(selector: str, number: int, count: int) -> bool:
    """Whether an nth formula such as 3n+2 holds for child `number` of `count`, from the end where it says so."""
    for kind, step, offset in re.findall(r":nth-(last-)?child\((\d)n\+(\d)\)", selector):
        place = count - number + 1 if kind else number
        if place < int(offset) or (place - int(offset)) % int(step):
            return False
    return (":first-child" not in selector or number == 1) and (":last-child" not in selector or number == count)


@pytest.mark.parametrize(("columns", "width"), [(2, 42), (3, 64)])
@pytest.mark.parametrize("blocks", range(1, 14))
def test_what_a_section_says_and_shows_fills_whole_rows(blocks, columns, width):
    """By the rules of the style sheet, followed here: no row of a section is half blank on a desktop."""
    style, rules = page.page("", ""), {}
    for least, body in re.findall(r"@media \(min-width: (\d+)rem\) \{\n(.*?)\n\}", style, re.DOTALL):
        if int(least) <= width:
            for selector, value in re.findall(r"^  (\S.*?) \{ grid-column: ([^;]+);", body, re.MULTILINE):
                rules[selector] = value
    assert rules
    spans = []
    for number in range(1, blocks + 2):
        span = 1
        for selector, value in rules.items():
            about_said = selector.startswith(".said")
            if about_said == (number == 1) and _spans(selector, number, blocks + 1):
                span = {"auto": 1, "1 / -1": columns, "span 2": 2}[value]
        spans.append(span)
    filled = 0
    for span in spans:
        filled = filled % columns + span
        assert filled <= columns  # nothing is pushed into the next row
    assert filled == columns


@pytest.mark.parametrize("name", PAGES)
def test_sections_lead_with_what_they_say(pages, name):
    for section in find(Page(pages[name]).root, "section"):
        for blocks in (div for div in find(section, "div") if class_of(div) == ["blocks"]):
            children = [child for child in blocks[2] if not isinstance(child, str)]
            assert class_of(children[0]) == ["said"]
            assert all(child[0] == "figure" or class_of(child) == ["scroll"] for child in children[1:])


@pytest.mark.parametrize("name", PAGES)
def test_every_colour_of_a_picture_is_the_pages(pages, name):
    html = pages[name]
    for mode in (False, True):
        assert colours.css_variables(dark=mode) in html
    tags = [tag for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL) for tag in re.findall(r"<[^<>]*>", svg)]
    used = set(re.findall(r"var\(--([\w-]+), #[0-9a-f]{6}\)", "".join(tags)))
    assert {"ink", "series-0"} <= used <= set(colours.COLOURS)
    for tag in tags:
        assert "#" not in re.sub(r'var\(--[\w-]+, #\w+\)|(href="|url\()#', "", tag), tag
        assert not tag.startswith("<image")
        assert "var(" not in re.sub(r'style="[^"]*"', "", tag)  # elsewhere it means nothing
    assert re.search(r"figure svg text \{ fill: var\(--ink\); \}", html)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["ink", "soft", *(f"series-{number}" for number in range(len(colours.SERIES)))])
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_and_curves_stand_out_in_both_modes(name, mode):
    """By WCAG 2.2: 4.5 to 1 for text, 3 to 1 for what a picture is understood by."""
    pair = [_luminance(getattr(colours.COLOURS[which], mode)) for which in (name, "back")]
    assert (max(pair) + 0.05) / (min(pair) + 0.05) >= (4.5 if name in ("ink", "soft") else 3.0)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_is_shown_as_it_is_wherever_it_stands(text):
    fig, (axes,) = figures.new_figure()
    axes.plot([1, 2], [1, 2], label=f"a {text}")
    label = figures.label_of(text)
    axes.set(ylabel=figures.label_of(text, "mV"), title=label, xlabel=label)
    axes.set_xticks([1, 2], [label] * 2)
    axes.text(1, 1, text, in_layout=False)  # wider than its figure it would leave no room for the axes
    figures.add_legend(axes)
    shown = _shown(text)
    svg = figures.to_svg(fig)
    texts = [text_of(element) for element in find(Page(svg).root, "text")]
    short = len(shown) < 20  # a longer name is shortened on an axis, and there alone
    assert texts.count(shown) == (5 if short else 1)
    assert (f"a {shown}" in texts) == (len(shown) < 40)  # as wide as the figure
    assert (f"{shown}, mV" in texts) == short
    html = page.page(
        text, text, page.section(text, page.figure(svg, text), note=text, below=[page.table([[text]], [text])])
    )
    html.encode("utf-8")
    (body,) = find(Page(re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL)).root, "body")
    assert text_of(body).count(shown) == 7


@pytest.mark.parametrize(
    "labels",
    [["held out", "a prediction that says nothing", "the best constant"], ["M" * 60] * 5, ["a", "b", "c", "d"]],
)
def test_a_legend_of_long_lines_leaves_the_axes_room(labels):
    """Matplotlib warns where none is left, and a warning of it fails any test (pyproject.toml)."""
    fig, (axes,) = figures.new_figure()
    for label in labels:
        axes.plot([0, 1], [0, 1], label=label)
    axes.set(xlabel="step", ylabel="distill")
    figures.add_legend(axes)
    figures.to_svg(fig)
    assert axes.get_position().width > 0.7
    assert axes.get_position().height > 0.3


def _shown(text: str) -> str:
    for hidden, sign in {"\x1b": "␛", "\x00": "␀", "\t": " ", "\u202e": "�", "\udce9": "�"}.items():
        text = text.replace(hidden, sign)
    return text


@pytest.mark.parametrize("names", [(r"PLETH $\foo$", "<b>&$"), ("a" * 60, "$x^$")])
def test_names_of_signals_are_shown_on_the_page_of_a_recording(names, tmp_path):
    html = write_look(tmp_path, names, seconds=60.0)
    text = text_of(Page(html).root)
    assert all(text.count(name) >= 2 for name in names)
    assert all(figures.label_of(name, "NU") in text for name in names)
    look.main([f"csv:{tmp_path}/bed.csv?rate_hz=125&columns=ppg:{_quoted(names[0])},ecg:{_quoted(names[1])}",
               "--out", str(tmp_path / "look.png")])  # fmt: skip
    assert (tmp_path / "look.png").stat().st_size > 10_000


def test_names_of_labels_are_shown_on_the_page_of_a_run(tmp_path):
    name = r"eval/probe_$\foo$_<b>_mae"
    rows = [{"step": step, **{f"{name}_{who}": 1.0 for who in ("teacher", "constant")}} for step in (0, 9)]
    text = text_of(Page(run.write_run_report(write_run(tmp_path / "$\\run$", rows)).read_text()).root)
    assert f"{name}_teacher" in text
    assert r"$\foo$ <b> mae" in text
    assert "$\\run$" in text


@given(hnp.arrays(np.float64, st.integers(0, 40), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])))
@settings(max_examples=200, deadline=None)
def test_best_middle_and_worst_are_never_the_same_segment(score_N):
    chosen = choose_examples(score_N)
    by_name = {name: place for place, name in chosen.items()}
    assert len(by_name) == len(chosen)
    if len(score_N) < 2:
        assert list(chosen.values()) == ["the only one"] * len(score_N)
        return
    assert len(chosen) == min(len(score_N), 3)
    assert score_N[by_name["worst"]] == score_N.min()
    assert score_N[by_name["best"]] == score_N.max()
    if "middle" in by_name:
        assert by_name["middle"] == np.argsort(score_N, kind="stable")[len(score_N) // 2]


@pytest.mark.parametrize(("seconds", "said"), [(60.0, ["the only one"]), (90.0, ["worst", "best"])])
def test_a_page_of_few_segments_shows_each_once(seconds, said, tmp_path):
    """The second half minute is rejected."""
    captions = re.findall(r"At (\d+) s, ([\w ]+) that is kept", write_look(tmp_path, seconds=seconds))
    assert len({start for start, _ in captions}) == len(captions)
    assert sorted(what for _, what in captions) == sorted(said)


def test_captions_of_pairs_have_their_scores(pages):
    captions = [text_of(caption) for caption in find(Page(pages["run"]).root, "figcaption")]
    assert "Pair 1: better 1.00 (PPG 1.00, ECG 1.00), worse 0.25 (PPG 0.50, ECG masked)" in captions


def test_a_flat_reconstruction_is_called_flat_and_explained():
    rng = np.random.default_rng(0)
    target_BCS = rng.normal(size=(1, 1, 512))
    shown = examples()
    for name, output_BCS, said in (
        ("amplitude", target_BCS + 0.1, "follows its target (99 % explained)"),
        ("phase", np.zeros_like(target_BCS), "stays flat (0 % explained)"),
    ):
        drawn = Examples(shown.segment_BMCT[:1, :, :1], 300.0, ("ppg",), {name: (target_BCS, output_BCS)}, 1 / 30)
        text = text_of(Page("".join(draw_examples(drawn, "quality_distillation"))).root)
        assert f"{name.capitalize()} {said}" in text
        assert "A flat output, 0 %, is what a network gives that knows nothing" in text


def test_explained_share_is_that_of_the_variance():
    target_S = np.array([1.0, 2.0, 3.0, 6.0])
    assert explained_share(target_S, target_S) == 1.0
    assert explained_share(target_S, np.full(4, 3.0)) == 0.0
    assert explained_share(target_S, target_S + np.array([1, -1, 1, -1])) == pytest.approx(1 - 4 / 14)
    assert explained_share(np.ones(4), np.zeros(4)) == 0.0
