"""Labels of BIDMC-like files, and the whole command with a stand-in encoder."""

import html
import importlib
import json
import runpy
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.data.labels import Label, write_labels
from jaxbio.data.listing import read_subjects
from jaxbio.data.prepare import prepare_store
from jaxbio.data.recordings import parse_source
from jaxbio.data.seen import SEEN, seen_of
from jaxbio.data.several import open_indexes, open_stores
from jaxbio.data.store import subject_codes
from jaxbio.evaluation import comparison, tasks
from jaxbio.evaluation.tasks.stored import spread_over
from jaxbio.signals import synthetic
from jaxbio.signals.segments import measure

RATE_HZ, SECONDS = 125, 40
# Enough subjects that the penalty can be chosen between them: of two, with one rate each, nothing is learnt.
RATES = {"r1": 60, "r2": 105, "r3": 75, "r4": 90, "r5": 65, "r6": 100, "r7": 82, "r8": 70}
SUBJECTS = {"r1": "a", "r2": "a", "r3": "b", "r4": "c", "r5": "d", "r6": "e", "r7": "f", "r8": "g"}
CARD = SimpleNamespace(
    encoder="stand_in", which="encoder", steps=0, store_hash=None, rate_hz=100.0, length=1000, channels=("ppg", "ecg"),
    width=3, encoder_fields={}, inputs="as it is",
)  # fmt: skip


@pytest.fixture(scope="module")
def bidmc(tmp_path_factory):
    """A folder of eight recordings of seven subjects, as BIDMC's files are, and its file of subjects."""
    folder = tmp_path_factory.mktemp("data") / "bidmc"
    folder.mkdir()
    for seed, (name, rate) in enumerate(RATES.items()):
        signals = synthetic.recording(seed, duration_s=SECONDS, rate_hz=float(RATE_HZ), heart_rate_bpm=float(rate))
        table = np.stack([signals.ppg, signals.ecg], axis=1)
        np.savetxt(folder / f"{name}_Signals.csv", table, delimiter=",", header="PLETH,II", comments="", fmt="%.5f")
        lines = [f"{second},{rate + (second % 2)},{rate},17,97" for second in range(SECONDS)]
        lines[1] = "1,,60,17,97"
        if name == "r2":  # the monitor shows nothing for most of the second segment
            lines[10:18] = [f"{second},0,,," for second in range(10, 18)]
        (folder / f"{name}_Numerics.csv").write_text("\n".join(["Time [s], HR, PULSE, RESP, SpO2", *lines]))
    subjects = folder.parent / "subjects.csv"
    rows = [f"csv:bidmc,{name}_Signals,{subject}" for name, subject in SUBJECTS.items()]
    subjects.write_text("\n".join(["source,recording,subject", *rows]))
    return SimpleNamespace(line=f"csv:{folder}?rate_hz={RATE_HZ}&glob=*_Signals.csv", subjects=str(subjects))


def _read(task: str, bidmc) -> tasks.Segments:
    whose = {("csv:bidmc", f"{name}_Signals"): subject for name, subject in SUBJECTS.items()}
    return tasks.read_segments(
        task, [parse_source(bidmc.line)], rate_hz=100.0, length=1000, channels=("ppg", "ecg"), subjects=whose
    )


def test_heart_rate_is_the_median_of_the_monitor_and_gaps_have_no_label(bidmc):
    segments = _read("heart_rate", bidmc)
    assert segments.x_BCT.shape == (31, 2, 1000)
    assert segments.x_BCT.dtype == np.float32
    assert segments.recording_B.tolist().count("r2_Signals") == 3
    for label, name in zip(segments.label_B, segments.recording_B, strict=True):
        assert RATES[name.removesuffix("_Signals")] <= label <= RATES[name.removesuffix("_Signals")] + 1
    assert set(segments.subject_B) == {f"csv:bidmc/{subject}" for subject in "abcdefg"}


def test_quality_class_is_that_of_the_scores(bidmc):
    segments = _read("quality_class", bidmc)
    assert len(segments.label_B) == 32
    assert segments.label_B.min() >= 3  # clean synthetic signals: Good or Excellent
    assert segments.label_B.max() <= 4


def test_quality_score_is_that_of_the_store(bidmc):
    segments = _read("quality_score", bidmc)
    measured = measure(
        {"ppg": segments.x_BCT[:, 0], "ecg": segments.x_BCT[:, 1]}, rate_hz=100.0, length=1000, channels=("ppg", "ecg")
    )
    # measured again after resampling from 125 to 100 Hz: not the same bits
    np.testing.assert_allclose(segments.label_B, measured.columns["quality_waveform"], atol=0.05)
    assert segments.label_B.min() > 0.7


def test_recording_without_numerics_names_the_file(tmp_path):
    np.savetxt(
        tmp_path / "x_Signals.csv",
        np.random.default_rng(0).normal(size=(2000, 2)),
        "%.3f",
        ",",
        header="PLETH,II",
        comments="",
    )
    source = parse_source(f"csv:{tmp_path}?rate_hz=125&glob=*_Signals.csv")
    with pytest.raises(UserError, match=r"x_Numerics\.csv"):
        tasks.read_segments("heart_rate", [source], rate_hz=100.0, length=1000, channels=("ppg", "ecg"))


def test_numerics_without_a_heart_rate_are_refused(tmp_path):
    (tmp_path / "x_Numerics.csv").write_text("Time [s], PULSE\n0,60\n")
    with pytest.raises(UserError, match="HR"):
        tasks.read_monitor_rate(tmp_path / "x_Numerics.csv")


class _StandIn:
    """An encoder one of whose numbers is the pulse's strongest frequency; a `blind` one gives noise."""

    card, detector = CARD, None

    def __init__(self, blind: bool = False, seed: int = 0):
        self.blind, self.seed = blind, seed
        self.variables = {"params": {"blind": np.array([blind, seed])}}

    def embed(self, *, rate_hz, window_s, ppg, ecg):
        assert window_s == pytest.approx(ppg.shape[1] / rate_hz)
        if self.blind:
            return np.random.default_rng(self.seed).normal(size=(len(ppg), 3)).astype(np.float32)
        spectrum_BS = np.abs(np.fft.rfft(ppg - ppg.mean(axis=1, keepdims=True), n=10 * ppg.shape[1]))
        strongest_B = spectrum_BS.argmax(axis=1)
        return np.stack([strongest_B, ppg.std(axis=1), ecg.std(axis=1)], axis=1).astype(np.float32)


@pytest.fixture
def evaluate(monkeypatch, repository):
    monkeypatch.syspath_prepend(str(repository / "tools"))
    monkeypatch.setattr("jaxbio.export.pretrained.load_pretrained", lambda folder: _StandIn())
    monkeypatch.setattr(comparison, "initialise_again", lambda model, seed: _StandIn(blind=True, seed=seed))
    monkeypatch.delitem(sys.modules, "evaluate", raising=False)
    main = importlib.import_module("evaluate").main
    return lambda arguments: main([*arguments, "--cache", "none", "--shares", "1"])


def test_command_gives_metrics_with_intervals_and_a_page(bidmc, evaluate, tmp_path, caplog, capsys, repository):
    caplog.set_level("INFO")
    pytest.importorskip("sklearn")
    arguments = ["--export", "export", "--task", "heart_rate", "--data", bidmc.line, "--subjects", bidmc.subjects]
    result = evaluate([*arguments, "--out", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == json.loads(json.dumps(result))
    errors = result["metrics"]["mae"]
    assert set(errors) == {"pretrained", "random_initialisation", "hand_made", "hand_made_boosted", "constant"}
    for value, low, high in errors.values():
        assert low <= value <= high
    assert errors["pretrained"][0] < 0.3 * errors["constant"][0]
    assert errors["pretrained"][0] < errors["random_initialisation"][0]
    assert result["subjects_tested"] == 7
    assert "may have seen" in result["who_is_tested"]
    stated = {"which": "encoder", "data": [bidmc.line], "segment_s": 10.0, "folds": 5, "seed": 0, "shares": [1.0]}
    assert stated | {"train_subjects": None, "pretraining_store": None} == {
        name: result[name] for name in (*stated, "train_subjects", "pretraining_store")
    }
    page = (tmp_path / "out" / "report.html").read_text()
    assert "beats/min" in page
    assert html.escape(bidmc.line) in page
    assert "segment s</dt><dd>10.0</dd>" in page
    # the last thing it says, and on the page: what the numbers mean
    value, low, high = errors["pretrained"]
    said = caplog.messages[-1]
    assert f"a mean absolute error of {value:.3g} beats/min (95% interval {low:.3g} to {high:.3g})" in said
    assert "the encoder does better" in said
    assert "only 7 subjects" in said
    assert "name no subject" not in said
    assert all(sentence in result["verdict"] for sentence in said.split("\n"))
    assert html.escape(result["verdict"].partition(". ")[0]) in page
    assert "<script" not in page
    # what it says is next works
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Next:")]
    words = shlex.split(line.removeprefix("Next:"))
    assert Path(words[1]).name == "compare.py"
    compared = runpy.run_path(str(repository / "tools/compare.py"))["main"](words[2:])
    assert set(compared["metrics"]["mae"]) == {f"{tmp_path / 'out'}: {who}" for who in ("pretrained", "hand_made")}


@pytest.fixture(scope="module")
def store(bidmc, tmp_path_factory):
    """The same files as a store of the stand-in's rate and length."""
    config = fields.change(fields.defaults(), {"data.rate_hz": 100.0, "data.segment_s": 10.0})
    fields.change(config, {"prepare.split": (0.5, 0.25, 0.25), "pairs.rule": "all_segments"})
    folder = tmp_path_factory.mktemp("pretraining") / "store"
    whose = read_subjects(bidmc.subjects)
    prepare_store([parse_source(bidmc.line)], config, folder, subjects=whose, progress=False)
    return SimpleNamespace(stores=open_stores(folder), config=config)


def _train_rows(store) -> np.ndarray:
    return open_indexes(store.stores, store.config, "train")[0].rows_NM


def test_segments_of_an_evaluation_are_those_of_the_store_to_the_bit(bidmc, store):
    """Although they are cut recording by recording: by their fingerprints an encoder's are left out."""
    segments = _read("quality_score", bidmc)
    assert set(segments.fingerprint_B.tolist()) == set(store.stores.column("fingerprint").tolist())
    seen_B = seen_of(store.stores, _train_rows(store)).find(segments.subject_B, segments.fingerprint_B)
    trained = set(store.stores.column("subject")[_train_rows(store).ravel()])
    assert 0 < len(trained) < 7
    assert {subject.partition("/")[2] for subject in segments.subject_B[seen_B]} == trained


def test_whom_the_encoder_has_seen_is_left_out_without_its_store(bidmc, store, evaluate, tmp_path):
    pytest.importorskip("sklearn")
    (tmp_path / "export").mkdir()
    seen_of(store.stores, _train_rows(store)).write(tmp_path / "export" / SEEN)
    trained = set(store.stores.column("subject")[_train_rows(store).ravel()])
    arguments = ["--export", str(tmp_path / "export"), "--task", "quality_score", "--data", bidmc.line]
    results = {
        subjects: evaluate([*arguments, *(["--subjects", bidmc.subjects] if subjects else []), "--out", str(tmp_path)])
        for subjects in (True, False)
    }
    assert results[True]["subjects_seen_in_pretraining"] == len(trained)
    assert results[True]["subjects_tested"] == 7 - len(trained)
    assert "may have seen" not in results[True]["who_is_tested"]
    # each recording its own subject: found again by the segments
    recordings = [name for name, subject in SUBJECTS.items() if subject in trained]
    assert results[False]["subjects_seen_in_pretraining"] == len(recordings)
    assert results[False]["segments_seen_in_pretraining"] == results[True]["segments_seen_in_pretraining"] > 0

    arguments += ["--subjects", bidmc.subjects, "--out", str(tmp_path)]
    transferred = evaluate([*arguments, "--protocol", "transfer"])
    assert transferred["subjects_fitted_on"] == len(trained)
    assert transferred["segments_tested"] == results[True]["segments_tested"]


def test_evaluation_of_nobody_unseen_is_refused(bidmc, store, evaluate, tmp_path):
    seen_of(store.stores, np.arange(store.stores.rows)).write(tmp_path / SEEN)
    own = {"quality_score": bidmc.line, "label:quality_waveform": str(store.stores.stores[0].path)}
    for task, data in own.items():
        with pytest.raises(UserError, match="nothing is left to test on"):
            evaluate(["--export", str(tmp_path), "--task", task, "--data", data, "--out", str(tmp_path)])


def test_store_of_the_pretraining_is_named_as_its_run_named_it(bidmc, store, evaluate, tmp_path, monkeypatch):
    """Also where it was several."""
    pytest.importorskip("sklearn")
    folder, other = store.stores.stores[0].path, tmp_path / "other"
    prepare_store([parse_source("synthetic:8")], store.config, other, progress=False)
    both = f"(('{folder}', 0.7), ('{other}', 0.3))"
    stores = open_stores(((str(folder), 0.7), (str(other), 0.3)))
    arguments = ["--export", "e", "--task", "quality_score", "--data", bidmc.line, "--out", str(tmp_path / "out")]
    arguments += ["--subjects", bidmc.subjects, "--protocol", "cross_validate", "--train_subjects"]
    for named, store_hash in ((str(folder), store.stores.hash), (both, stores.hash)):
        card = SimpleNamespace(**{**vars(CARD), "store_hash": store_hash})
        monkeypatch.setattr(_StandIn, "card", card)
        assert evaluate([*arguments, named])["subjects_seen_in_pretraining"] > 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--task": "sepsis"}, "quality_class, quality_score, heart_rate"),
        ({"--folds": "1"}, "at least 2"),
        ({"--window_s": "nan"}, "seconds, at least 5"),
        ({"--window_s": "-3"}, "seconds, at least 5"),
        ({"--data": "csv:nowhere?rate_hz=125"}, "no file or folder"),
        ({"--train_subjects": "nowhere"}, "no segment store"),
        ({"--protocol": "guess"}, "transfer, cross_validate"),
        ({"--protocol": "transfer"}, "--train_subjects"),
        ({"--most_segments": "5"}, "only label:NAME reads a part"),
    ],
)
def test_wrong_flag_is_named(bidmc, evaluate, tmp_path, changed, said):
    flags = {"--export": "export", "--task": "heart_rate", "--data": bidmc.line, "--out": str(tmp_path), **changed}
    with pytest.raises(UserError, match=said):
        evaluate([part for pair in flags.items() for part in pair])


def test_folder_without_recordings_is_refused(evaluate, tmp_path):
    (tmp_path / "empty").mkdir()
    line = f"csv:{tmp_path / 'empty'}?rate_hz=125"
    with pytest.raises(UserError, match="holds no file"):
        evaluate(["--export", "export", "--task", "heart_rate", "--data", line, "--out", str(tmp_path)])


def test_recordings_that_are_all_too_short_are_said_to_be(tmp_path):
    (tmp_path / "x_Signals.csv").write_text("PLETH,II\n0.1,0.2\n0.2,0.3\n")
    source = parse_source(f"csv:{tmp_path}?rate_hz=125")
    with pytest.raises(UserError, match="too_short"):
        tasks.read_segments("quality_class", [source], rate_hz=100.0, length=1000, channels=("ppg", "ecg"))


def test_store_that_the_export_was_not_trained_on_is_refused(bidmc, evaluate, monkeypatch, tmp_path):
    module = importlib.import_module("evaluate")
    monkeypatch.setattr(module, "open_stores", lambda named: SimpleNamespace(hash="abc"))
    arguments = ["--export", "e", "--task", "heart_rate", "--data", bidmc.line, "--out", str(tmp_path)]
    with pytest.raises(UserError, match="pretrained on"):
        evaluate([*arguments, "--train_subjects", "other_store"])


@pytest.fixture(scope="module")
def labelled(store):
    """That store with labels: how far the planted rate is from 80, a third of the segments without one; classes; and
    what tells nothing.

    Of `side`, the subjects of the train split and the others have both classes; of `split`, each has its own.
    """
    own = store.stores.stores[0]
    off_R = np.array([RATES[name.removesuffix("_Signals")] - 80 for name in own.column("recording")])
    (subject_R, _), train_R = subject_codes(own), own.column("split") == "train"
    turn_S = np.zeros(7, np.float32)
    for side_R in (train_R, ~train_R):
        subjects = np.unique(subject_R[side_R])
        turn_S[subjects] = np.arange(len(subjects)) % 2
    third_R = np.arange(own.rows) % 3 == 0
    labels = [
        Label("rate", np.where(third_R, np.nan, off_R).astype(np.float32)),
        Label("side", 2 * turn_S[subject_R], ("left", "nobody", "right")),
        Label("split", np.where(train_R, turn_S[subject_R], 1).astype(np.float32)),
        Label("alike", np.zeros(own.rows, np.float32), ("left", "right")),
        Label("nothing", np.full(own.rows, np.nan, np.float32)),
    ]
    write_labels(own, labels)
    return own


def _ask(label: str, labelled, out: Path) -> list[str]:
    return ["--export", "e", "--task", f"label:{label}", "--data", str(labelled.path), "--out", str(out)]


def test_numbers_of_a_store_are_fitted_on_its_train_split(labelled, evaluate, tmp_path, repository):
    pytest.importorskip("sklearn")
    train_R, subject_R = labelled.column("split") == "train", labelled.column("subject")
    result = evaluate(_ask("rate", labelled, tmp_path / "out"))
    assert result["task"] == "label:rate"
    assert result["protocol"] == "transfer"
    assert result["subjects_fitted_on"] == len(set(subject_R[train_R]))
    assert result["subjects_tested"] == 7 - result["subjects_fitted_on"]
    assert result["segments_tested"] == np.sum(~train_R & (np.arange(labelled.rows) % 3 != 0))
    errors = result["metrics"]["mae"]
    assert errors["pretrained"][0] < errors["constant"][0]
    assert "tells the label rate with a mean absolute error of" in result["verdict"]
    assert "may have seen" in result["who_is_tested"]  # the card names no store, and there is no seen.npz
    compare = runpy.run_path(str(repository / "tools/compare.py"))["main"]
    out = str(tmp_path / "out")
    compared = compare([out, "--entrant", "pretrained", "--entrant", "hand_made", "--out", str(tmp_path / "compared")])
    assert compared["metrics"]["mae"][f"{out}: pretrained"][0] == errors["pretrained"][0]


def test_the_run_of_a_store_has_seen_its_train_split(labelled, evaluate, tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(_StandIn, "card", SimpleNamespace(**{**vars(CARD), "store_hash": labelled.hash}))
    result = evaluate([*_ask("side", labelled, tmp_path), "--most_segments", "6"])
    assert result["classes"] == ["left", "right"]  # nobody has the third
    assert {"auroc", "sensitivity"} <= result["metrics"].keys()
    assert result["segments_tested"] == result["segments_seen_in_pretraining"] == 6
    assert min(result["tested_by_class"].values()) > 0
    assert "may have seen" not in result["who_is_tested"]


def test_segments_of_a_label_are_those_of_the_store(labelled):
    stored = tasks.open_stored("label:rate", [str(labelled.path)])
    segments = stored.read(rate_hz=100.0, length=1000, channels=("ecg", "ppg"))
    row_N = np.flatnonzero(np.arange(labelled.rows) % 3 != 0)
    physical_NCT = labelled.scale_NC2[row_N][..., :1] + labelled.scale_NC2[row_N][..., 1:] * labelled.read(row_N)
    np.testing.assert_allclose(segments.x_BCT, physical_NCT[:, ::-1], rtol=1e-6, atol=1e-7)
    assert segments.x_BCT.dtype == np.float32
    assert segments.fingerprint_B.tolist() == labelled.column("fingerprint")[row_N].tolist()
    assert [RATES[name.removesuffix("_Signals")] - 80 for name in segments.recording_B] == segments.label_B.tolist()
    train_R = labelled.column("split") == "train"
    assert set(segments.train_subjects) == {f"csv:bidmc/{name}" for name in labelled.column("subject")[train_R]}


def test_rows_are_spread_over_subjects_as_evenly_as_these_have_them():
    subject_N = np.array([5] * 50 + [2] * 3 + [9] * 1 + [7] * 20)
    row_N = 100 + np.arange(74)
    chosen = spread_over(subject_N, row_N, 20, seed=0)
    assert (np.diff(chosen) > 0).all()
    assert sorted(np.unique(subject_N[chosen - 100], return_counts=True)[1].tolist()) == [1, 3, 8, 8]
    assert chosen.tolist() != spread_over(subject_N, row_N, 20, seed=1).tolist()
    assert spread_over(subject_N, row_N, 100, seed=0).tolist() == row_N.tolist()


@pytest.mark.parametrize(
    ("label", "changed", "said"),
    [
        ("rates", [], "no such label: it has alike, nothing, rate, side, split.*did you mean rate"),
        ("alike", [], "has left: there is nothing to tell apart"),
        ("nothing", [], "no segment has a value"),
        ("split", [], "all that is tested is '1'"),
        ("rate", ["--data", "more"], "one store at a time"),
        ("rate", ["--window_s", "10"], "--window_s"),
        ("rate", ["--subjects", "s.csv"], "--subjects"),
        ("rate", ["--most_segments", "0"], "at least 1"),
        ("rate", ["--protocol", "guess"], "transfer, cross_validate"),
    ],
)
def test_what_cannot_be_asked_of_a_store_is_named(labelled, evaluate, tmp_path, label, changed, said):
    with pytest.raises(UserError, match=said):
        evaluate([*_ask(label, labelled, tmp_path), *changed])


def test_store_of_another_input_than_the_encoders_is_refused(labelled):
    stored = tasks.open_stored("label:rate", [str(labelled.path)])
    with pytest.raises(UserError) as caught:
        stored.read(rate_hz=50.0, length=1000, channels=("ppg", "abp"))
    assert [fault.value for fault in caught.value.faults] == ["1000 samples at 100 Hz", "ppg, ecg"]
    with pytest.raises(UserError, match="the encoder takes 500 samples at 100 Hz"):
        stored.read(rate_hz=100.0, length=500, channels=("ppg", "ecg"))
