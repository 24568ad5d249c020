"""A sweep runs every line for every seed, goes on where it was, and says which values came of what."""

import csv
import json

import pytest

from jaxbio.config.faults import UserError
from tools import sweep

RECORDS = [
    {"step": 0, "eval/distill_explained": -1.0, "eval/student_batch_spread": 0.1},
    {"step": 4, "eval/distill_explained": 0.5, "eval/student_batch_spread": 0.09, "train/loss": 3.0},
]


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("# a remark\nours\nwarm optimizer.warmup_frac=0.1 train.batch=8  # why\n")
    return path


@pytest.fixture
def runs(monkeypatch):
    """Stand in for launch/run.py: note the words, write a record whose last value is the seed's, fail where told to."""
    seen, failing = [], set()

    def run(command, *, stdout, stderr, check):
        workdir = sweep.Path(command[-1])
        seen.append(command[2:])
        if (workdir.parent.name, int(workdir.name)) in failing:
            return type("Ended", (), {"returncode": 1})
        workdir.mkdir(parents=True, exist_ok=True)
        last = {**RECORDS[1], "eval/distill_explained": 0.5 + int(workdir.name) / 10}
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in (RECORDS[0], last)))
        return type("Ended", (), {"returncode": 0})

    monkeypatch.setattr(sweep.subprocess, "run", run)
    return seen, failing


def arguments(lines, out, repository):
    recipe = repository / "configs/qualityfm_base.py"
    return ["--config", str(recipe), "--config.train.steps=4", "--lines", str(lines), "--out", str(out), "--seeds", "2"]


def test_every_line_is_run_for_every_seed_with_its_changes(lines, runs, tmp_path, repository):
    seen, _ = runs
    sweep.main(arguments(lines, tmp_path / "out", repository))
    assert len(seen) == 4
    assert all(words[1] == "--config.train.steps=4" for words in seen)
    warm = [words for words in seen if "--config.optimizer.warmup_frac=0.1" in words]
    assert len(warm) == 2
    assert {words[-3] for words in warm} == {"--config.train.seed=0", "--config.train.seed=1"}


def test_the_table_has_first_and_last_values_and_their_range(lines, runs, tmp_path, repository):
    sweep.main(arguments(lines, tmp_path / "out", repository))
    with (tmp_path / "out" / "table.csv").open() as file:
        rows = {(row["line"], row["metric"]): row for row in csv.DictReader(file)}
    row = rows["warm", "eval/distill_explained"]
    assert [float(row[name]) for name in ("seeds", "first", "last", "lowest", "highest")] == [2, -1, 0.55, 0.5, 0.6]
    assert ("ours", "train/loss") not in rows
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| ours | -1 → 0.55 (0.5 to 0.6) |" in table


def test_a_sweep_goes_on_where_it_was(lines, runs, tmp_path, repository):
    seen, failing = runs
    failing.add(("warm", 1))
    with pytest.raises(UserError, match=r"warm/1.*failed"):
        sweep.main(arguments(lines, tmp_path / "out", repository))
    assert len(seen) == 4  # the others were run, and are in the table
    assert "| ours |" in (tmp_path / "out" / "table.md").read_text()
    failing.clear()
    assert sweep.main(arguments(lines, tmp_path / "out", repository))["runs"] == 4
    assert len(seen) == 5


@pytest.mark.parametrize("changed", ["--config.train.steps=8", "--config.objective.koleo_weight=1"])
def test_a_folder_of_runs_with_other_words_is_no_part_of_the_sweep(changed, lines, runs, tmp_path, repository):
    seen, _ = runs
    words = arguments(lines, tmp_path / "out", repository)
    sweep.main(words)
    with pytest.raises(UserError, match="was run with"):
        sweep.main([*words, changed])
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("text", "fault"),
    [("", "no line"), ("a b", "FIELD=VALUE"), ("a\na", "a name of its own"), ("x=1", "a name of its own")],
)
def test_lines_that_are_none_are_faults(text, fault, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=fault):
        sweep.read_lines(path)
