"""Finished evaluations and runs side by side: paired, on what all have answered, and refused where they do not fit."""

import importlib
import json
import sys

import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.evaluation import comparison, embedding_cache
from jaxbio.evaluation.comparison import Comparison
from jaxbio.evaluation.measure import Answer, Truth
from jaxbio.evaluation.results import read_evaluation, write_predictions, write_results
from jaxbio.evaluation.tasks import Segments

SUBJECTS = np.repeat(np.arange(20), 3)


def write_evaluation(
    folder, seed: int, noise: float, rows=slice(None), task: str = "heart_rate", shift: float = 0.0, **stated
):
    """Write an evaluation of sixty segments of twenty subjects, of two seeds, some rows of it."""
    rng = np.random.default_rng(0)
    label_N = 80 + 10 * rng.normal(size=60) + shift
    rng = np.random.default_rng(seed)
    row_N = np.arange(60)[rows]
    truth = Truth(label_N[row_N], SUBJECTS[row_N], np.full(len(row_N), 8.0))
    said = [label_N[row_N] + noise * rng.normal(size=len(row_N)) for _ in range(2)]
    answers = {"pretrained": [Answer(said_N[:, None], said_N) for said_N in said]}
    answers["constant"] = [Answer(np.full((len(row_N), 1), 80.0), np.full(len(row_N), 80.0))]
    told = [np.array([f"csv:a/{subject}" for subject in SUBJECTS]), np.full(60, "csv:a"), np.full(60, "r")]
    marks = (label_N[:, None], np.zeros(60, np.uint64), 30.0 * np.arange(60), np.ones((60, 1), bool))
    segments = Segments(np.zeros((60, 1, 1)), *marks, *told, np.ones(60, bool))
    folder.mkdir()
    write_predictions(folder, segments, {"": Comparison(row_N, answers, {}, {}, truth)})
    write_results(folder, {"task": task, "protocol": "cross_validate", "segment_s": 30.0, "seed": 0, **stated})
    return str(folder)


@pytest.fixture
def tool(monkeypatch, repository):
    monkeypatch.syspath_prepend(str(repository / "tools"))

    def load(name: str):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name).main

    return load


def test_what_is_written_is_read_back(tmp_path):
    folder = write_evaluation(tmp_path / "a", 1, 2.0)
    read = read_evaluation(folder)
    assert read.result["task"] == "heart_rate"
    assert len(read.answers[""]["pretrained"]) == 2
    assert read.truths[""].subjects == 20
    assert read.key_N[""][1] == "csv:a r 30.0"
    error_N = read.answers[""]["pretrained"][0].score_NK[:, 0] - read.truths[""].label_N
    assert 1.5 < error_N.std() < 2.5


def test_evaluations_are_paired_on_what_all_have_answered(tmp_path, tool):
    folders = [
        write_evaluation(tmp_path / "a", 1, 2.0),
        write_evaluation(tmp_path / "b", 2, 6.0, rows=slice(None, None, -1)),  # another order
        write_evaluation(tmp_path / "c", 3, 2.0, rows=slice(15, None)),
    ]
    result = tool("compare")([*folders, "--out", str(tmp_path / "out")])
    assert result["segments"] == 45
    assert result["subjects"] == 15
    assert result["left_out"] == {folders[0]: 15, folders[1]: 15, folders[2]: 0}
    value, low, high = result["minus_first"]["mae"][folders[1]]
    assert value == pytest.approx(
        result["metrics"]["mae"][folders[1]][0] - result["metrics"]["mae"][folders[0]][0], abs=2e-4
    )
    assert 1.5 < low < value < high
    alike, _, _ = result["minus_first"]["mae"][folders[2]]
    assert abs(alike) < 0.6 < value
    assert json.loads((tmp_path / "out" / "compared.json").read_text())["metrics"] == result["metrics"]
    page = (tmp_path / "out" / "compared.html").read_text()
    assert "MAE (beats/min)" in page
    assert "<script" not in page


def test_entrants_of_one_evaluation_are_compared(tmp_path, tool):
    folder = write_evaluation(tmp_path / "a", 1, 2.0)
    arguments = [folder, "--entrant", "constant", "--entrant", "pretrained", "--out", str(tmp_path / "out")]
    result = tool("compare")(arguments)
    assert result["first"] == f"{folder}: constant"
    assert result["minus_first"]["mae"][f"{folder}: pretrained"][2] < 0


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"task": "spo2"}, "of one task"),
        ({"shift": 1.0}, "labels differ"),
        ({"segment_s": 10.0}, "a: 30 s.*b: 10 s.*--window_s"),
        (None, "no evaluation"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path, tool, second, said):
    first = write_evaluation(tmp_path / "a", 1, 2.0)
    other = str(tmp_path) if second is None else write_evaluation(tmp_path / "b", 2, 2.0, **second)
    with pytest.raises(UserError, match=said):
        tool("compare")([first, other, "--out", str(tmp_path / "out")])


def test_what_they_differ_in_is_said_and_stands_on_the_page(tmp_path, tool, caplog):
    folders = [write_evaluation(tmp_path / "a", 1, 2.0), write_evaluation(tmp_path / "b", 2, 2.0, protocol="leaky")]
    result = tool("compare")([*folders, "--out", str(tmp_path / "out")])
    assert result["differ_in"] == {"protocol": {folders[0]: "cross_validate", folders[1]: "leaky"}}
    assert "they differ in protocol" in caplog.text
    assert "They differ in protocol" in (tmp_path / "out" / "compared.html").read_text()
    folders[1] = write_evaluation(tmp_path / "c", 2, 2.0)
    assert tool("compare")([*folders, "--out", str(tmp_path / "out")])["differ_in"] == {}


def test_evaluations_without_a_common_segment_or_an_entrant_are_refused(tmp_path, tool):
    first = write_evaluation(tmp_path / "a", 1, 2.0, rows=slice(0, 30))
    other = write_evaluation(tmp_path / "b", 1, 2.0, rows=slice(30, 60))
    with pytest.raises(UserError, match="no segment was answered by all"):
        tool("compare")([first, other, "--out", str(tmp_path / "out")])
    with pytest.raises(UserError, match="has pretrained, constant"):
        tool("compare")([first, other, "--entrant", "hand_made", "--out", str(tmp_path / "out")])
    with pytest.raises(UserError, match="name two"):
        tool("compare")([first, "--out", str(tmp_path / "out")])


def write_run(folder, losses, key: str = "eval/loss") -> str:
    folder.mkdir(parents=True)
    lines = [json.dumps({"step": 10 * step, key: loss, "perf/step_s": 1.0}) for step, loss in enumerate(losses)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder)


def test_curves_of_runs_are_drawn_over_each_other(tmp_path, tool):
    runs = [write_run(tmp_path / "x" / "run", [3.0, 2.0, 1.0]), write_run(tmp_path / "y" / "run", [3.0, 2.5])]
    out = tmp_path / "runs.html"
    result = tool("compare_runs")([*runs, "--out", str(out)])
    assert result["last"] == {"eval/loss": {runs[0]: 1.0, runs[1]: 2.5}}
    page = out.read_text()
    assert page.count("<svg") == 1
    assert "<script" not in page
    both = tool("compare_runs")([*runs, "--keys", ".*", "--out", str(out)])
    assert set(both["last"]) == {"eval/loss", "perf/step_s"}


@pytest.mark.parametrize(("keys", "said"), [("nothing", "no key of two runs"), ("(", "no regular expression")])
def test_keys_that_no_two_runs_have_are_refused(tmp_path, tool, keys, said):
    runs = [write_run(tmp_path / name, [1.0, 2.0]) for name in "ab"]
    with pytest.raises(UserError, match=said):
        tool("compare_runs")([*runs, "--keys", keys, "--out", str(tmp_path / "runs.html")])


def test_a_folder_without_a_record_is_no_run(tmp_path, tool):
    run = write_run(tmp_path / "a", [1.0])
    with pytest.raises(UserError, match=r"no metrics\.jsonl"):
        tool("compare_runs")([run, str(tmp_path), "--out", str(tmp_path / "runs.html")])


class _Encoder:
    def __init__(self, weight: float):
        self.variables = {"params": {"weight": np.array([weight])}}
        self.card = type("Card", (), {"encoder": "e", "encoder_fields": {}, "inputs": "i"})()


def test_embeddings_are_kept_by_content(tmp_path):
    calls = []

    def embed(model, x_BCT):
        calls.append(model.variables["params"]["weight"][0])
        return np.full((len(x_BCT), 2), model.variables["params"]["weight"][0], np.float32)

    x_BCT = np.random.default_rng(0).normal(size=(3, 1, 4)).astype(np.float32)
    for _ in range(2):
        found = embedding_cache.embed_cached(_Encoder(1.0), x_BCT, tmp_path, embed)
        np.testing.assert_array_equal(found, np.ones((3, 2)))
    assert calls == [1.0]
    embedding_cache.embed_cached(_Encoder(2.0), x_BCT, tmp_path, embed)  # other weights
    embedding_cache.embed_cached(_Encoder(1.0), x_BCT + 1, tmp_path, embed)  # other segments
    embedding_cache.embed_cached(_Encoder(1.0), x_BCT, None, embed)
    assert calls == [1.0, 2.0, 1.0, 1.0]
    (kept,) = {path for path in tmp_path.glob("*.npy") if np.load(path)[0, 0] == 2.0}
    kept.write_bytes(b"cut")
    embedding_cache.embed_cached(_Encoder(2.0), x_BCT, tmp_path, embed)
    assert len(calls) == 5

    def embed_otherwise(model, x_BCT):
        return -embed(model, x_BCT)

    found = embedding_cache.embed_cached(_Encoder(1.0), x_BCT, tmp_path, embed_otherwise)
    np.testing.assert_array_equal(found, -np.ones((3, 2)))
    assert comparison.FRESH >= 5
