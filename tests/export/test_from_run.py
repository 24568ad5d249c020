import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxbio.config import changes, fields
from jaxbio.config.faults import UserError
from jaxbio.data.seen import SEEN, Seen
from jaxbio.evaluation import encoders
from jaxbio.export import card as cards
from jaxbio.export import folder, from_run, weights
from jaxbio.training import checkpoint


def test_the_default_encoder_is_the_teacher_and_which_names_another(run_folder, small_objective, tmp_path):
    _, params, state = small_objective
    expected = {"teacher": state["teacher"]["encoder"], "student": params["encoder"]}
    for which, tree in expected.items():
        card = from_run.export_run(run_folder, tmp_path / which, which=None if which == "teacher" else which)
        assert card.which == which
        found = weights.read_flat_weights(tmp_path / which / cards.WEIGHTS)
        for name, array in weights.flatten_tree({"params": tree}).items():
            np.testing.assert_array_equal(found[name], array)


def test_the_card_says_where_the_weights_come_from(run_folder, tmp_path):
    card = from_run.export_run(run_folder, tmp_path / "export", licence="CC0-1.0")
    assert (card.objective, card.steps, card.store_hash) == ("quality_distillation", 3, "store-hash")
    assert card.source == "step 3 of run small"
    assert card.licence == "CC0-1.0"
    moved = card.metrics.pop(from_run.MOVED)
    assert card.metrics == {"train/loss": 7.0, "eval/loss": 6.0}  # of step 3, although the run logged five
    assert moved == pytest.approx(0.01, rel=1e-3)  # the fixture's teacher is its start times 1.01


def test_an_encoder_that_did_not_move_is_said_not_to_have(run_folder, tmp_path):
    card = from_run.export_run(run_folder, tmp_path / "export", which="student")
    assert card.metrics[from_run.MOVED] == pytest.approx(0.0, abs=1e-6)


def test_what_a_run_started_from_is_drawn_again(run_folder, small_objective):
    _, params, _ = small_objective  # those of the start; the fixture's teacher has moved
    for which in from_run.names_of_encoders(run_folder):
        start = weights.flatten_tree(from_run.load_start(run_folder, which=which))
        for name, array in weights.flatten_tree({"params": params["encoder"]}).items():
            np.testing.assert_allclose(start[name], array, rtol=1e-6)


@pytest.mark.slow
def test_an_evaluation_has_all_encoders_of_a_run_beside_its_start(run_folder, export_folder):
    loaded = encoders.load_encoders([], [str(run_folder)], encoders.BOTH)
    assert list(loaded.models) == ["pretrained", "own_start", "pretrained_student"]
    x_BCT = np.random.default_rng(0).normal(size=(2, 2, 3000)).astype(np.float32)
    vectors = {name: model.embed(ppg=x_BCT[:, 0], ecg=x_BCT[:, 1], rate_hz=300.0, window_s=10)
               for name, (model,) in loaded.models.items()}  # fmt: skip
    np.testing.assert_allclose(vectors["own_start"], vectors["pretrained_student"], rtol=1e-4, atol=1e-5)
    assert np.abs(vectors["own_start"] - vectors["pretrained"]).max() > 1e-3
    assert len(encoders.load_encoders([str(export_folder)] * 2, [], None).models["pretrained"]) == 2


def test_exports_of_other_networks_are_no_seeds_of_one_recipe(run_folder, export_folder, tmp_path, monkeypatch):
    model = encoders.pretrained.load_pretrained(export_folder)
    other = encoders.pretrained.load_pretrained(export_folder)
    other.card = dataclasses.replace(model.card, rate_hz=125.0)
    found = iter([model, other])
    monkeypatch.setattr(encoders.pretrained, "load_pretrained", lambda folder: next(found))
    with pytest.raises(UserError, match=r"rate or channels.*tools/compare\.py"):
        encoders.load_encoders([str(export_folder)] * 2, [], None)


def test_how_far_it_moved_from_an_export_that_is_gone_is_not_said(small_config, small_objective, encoder, tmp_path):
    config = fields.change(small_config.copy_and_resolve_references(), {"train.init_from": str(tmp_path / "gone")})
    assert from_run._moved(config, small_objective[0], "teacher", encoder[1]) == {}


def test_an_export_takes_along_what_the_run_has_seen_or_says_that_it_is_not_known(run_folder, tmp_path):
    workdir = shutil.copytree(run_folder, tmp_path / "run")
    seen = Seen(np.arange(2, dtype=np.uint64), np.arange(700, dtype=np.uint64))
    seen.write(workdir / SEEN)
    card = from_run.export_run(workdir, tmp_path / "export")
    assert card.seen == "2 subjects, 700 segments"
    assert (tmp_path / "export" / SEEN).read_bytes() == (workdir / SEEN).read_bytes()
    np.testing.assert_array_equal(folder.read_seen(tmp_path / "export").segment_N, seen.segment_N)
    assert SEEN in cards.read_card(tmp_path / "export").files
    (tmp_path / "export" / SEEN).write_bytes(b"another")
    with pytest.raises(UserError, match=r"seen\.npz"):
        folder.read_export(tmp_path / "export")

    card = from_run.export_run(run_folder, tmp_path / "export")  # a run without the file, over that export
    assert card.seen == cards.read_card(tmp_path / "export").seen == "not known"
    assert SEEN not in card.files
    assert not folder.read_seen(tmp_path / "export").complete
    folder.read_export(tmp_path / "export")


def test_an_export_replaces_an_earlier_one(run_folder, tmp_path):
    from_run.export_run(run_folder, tmp_path / "export")
    from_run.export_run(run_folder, tmp_path / "export", which="student")
    assert cards.read_card(tmp_path / "export").which == "student"
    folder.read_export(tmp_path / "export")


def test_a_folder_with_other_things_is_not_written_into(run_folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        from_run.export_run(run_folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_unknown_encoder_is_refused(run_folder, tmp_path):
    with pytest.raises(UserError, match=r"nobody.*teacher, student"):
        from_run.export_run(run_folder, tmp_path / "export", which="nobody")


@pytest.mark.parametrize("content", [[], ["notes.txt"], ["config.json"]])
def test_an_empty_or_foreign_workdir_is_refused(tmp_path, content):
    workdir = tmp_path / "workdir"
    workdir.mkdir()
    for name in content:
        (workdir / name).write_text("{}")
    with pytest.raises(UserError, match="no checkpoint"):
        from_run.export_run(workdir, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_a_step_without_checkpoint_is_refused(run_folder, tmp_path):
    with pytest.raises(UserError, match="no checkpoint 7"):
        from_run.export_run(run_folder, tmp_path / "export", step=7)


def run_tool(repository, *arguments):
    command = [sys.executable, repository / "tools" / "export_params.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=repository, timeout=300, env=None)


def test_the_tool_ends_with_one_json_line(repository, run_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(repository))
    done = run_tool(repository, "--workdir", run_folder, "--out", tmp_path / "export", "--which", "student")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["which"], said["encoder"], said["step"]) == ("student", "qualityfm", 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--workdir", "nowhere", "--out", "x"), "--workdir"),
        (("--out", "x"), "--workdir and --export"),
        (("--export", "nowhere", "--layout", "reference", "--out", "x"), "card.json"),
        (("--export", "nowhere", "--out", "x"), "--layout"),
    ],
)
def test_the_tool_exits_2_with_a_line_for_the_users_fault(repository, tmp_path, monkeypatch, arguments, says):
    monkeypatch.setenv("PYTHONPATH", str(repository))
    done = run_tool(repository, *(tmp_path / word if word in ("nowhere", "x") else word for word in arguments))
    assert done.returncode == 2, done.stderr
    faults = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(faults) == 1
    assert says in faults[0]
    assert done.stdout == ""


def test_a_torn_last_record_is_passed_over(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "eval/loss": 1.5}\n{"step": 4, "eval/lo')
    assert from_run._last_metrics(tmp_path, 4) == {"eval/loss": 1.5}


@pytest.mark.parametrize(("metric", "values", "taken"), [
    ("eval/loss", (0.7, 0.5, 0.6), 2),
    ("eval/loss", (0.7, float("nan"), None), 1),
    ("eval/loss", (None, None, None), 3),
    (None, (0.7, 0.5, 0.6), 3),
])  # fmt: skip
def test_the_best_checkpoint_is_taken_where_a_run_kept_it_else_the_newest(
    metric, values, taken, small_config, monkeypatch, tmp_path, caplog
):
    config = changes.to_plain(
        fields.change(small_config.copy_and_resolve_references(), {"checkpoint.best_metric": metric})
    )
    metas = {step: checkpoint.Meta(step, config, "", "", {}, {}, best=best) for step, best in enumerate(values, 1)}
    monkeypatch.setattr(checkpoint, "list_steps", lambda _: list(metas))
    monkeypatch.setattr(checkpoint, "read_meta", lambda _, step: metas[step])
    with caplog.at_level("INFO"):
        assert from_run.choose_step(tmp_path) == taken
    assert ("the newest is 3" in caplog.text) == (taken != 3)
