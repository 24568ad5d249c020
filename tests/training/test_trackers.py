"""Trackers get every number of a run, and none of them can hold it up; their libraries are stood in for."""

import importlib.machinery
import logging
import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest
from array_data import array_program, run

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.config.resolve import find_faults
from jaxbio.training import trackers
from jaxbio.training.trackers import TRACKERS, TrackedRun, Tracker, check_installed, open_tracker

LINES = [(1, {"train/loss": 0.5, "perf/mfu": None}), (2, {"train/loss": 0.25})]
NUMBERS = [(1, {"train/loss": 0.5}), (2, {"train/loss": 0.25})]


class StandIn(ModuleType):
    """A tracker's library as far as a sink knows it: what was asked of it is kept."""

    def __init__(self, name):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.written, self.closed, self.started, self.known = [], 0, [], []
        self.api = SimpleNamespace(api_key="0123")

    def init(self, **settings):
        self.started.append(settings)
        return self

    def log(self, values, step):
        self.written.append((step, values))

    def finish(self):
        self.closed += 1

    def set_experiment(self, name):
        self.experiment = name

    def search_runs(self, filter_string, output_format):
        return self.known

    def start_run(self, **settings):
        self.started.append(settings)
        self.known = [SimpleNamespace(info=SimpleNamespace(run_id="known"))]

    def log_params(self, values):
        self.params = values

    def log_metrics(self, values, step):
        self.log(values, step)

    end_run = finish


@pytest.fixture
def libraries(monkeypatch):
    made = {name: StandIn(name) for name in ("wandb", "mlflow", "trackio")}
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return made


def tracked(tmp_path, restored_step=None):
    return TrackedRun(tmp_path / "mine", "hearts", {"train.batch": 32}, restored_step)


def write_all(name, run):
    run.workdir.mkdir(exist_ok=True)
    tracker = open_tracker(name, run)
    for step, values in LINES:
        tracker.write(step, values)
    tracker.close()


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_tracker_gets_every_number_in_order_and_is_closed(libraries, tmp_path, name, caplog):
    write_all(name, tracked(tmp_path))
    assert libraries[name].written == NUMBERS
    assert libraries[name].closed == 1
    assert caplog.records == []


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_resumed_run_goes_on_under_its_name_and_a_fresh_one_does_not(libraries, tmp_path, name):
    library = libraries[name]
    for restored_step in (None, 2):
        write_all(name, tracked(tmp_path, restored_step))
    first, resumed = library.started
    if name == "mlflow":
        assert (first["run_name"], resumed) == ("mine", {"run_id": "known"})
        assert library.experiment == "hearts"
        assert library.params == {"train.batch": "32"}
        return
    assert first == resumed
    assert (first["project"], first["resume"], first["config"]) == ("hearts", "allow", {"train.batch": 32})
    write_all(name, tracked(tmp_path))
    assert library.started[2] != first


def test_tensorboard_writes_into_the_workdir_and_is_imported_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorboardX", raising=False)
    check_installed(("tensorboard",))
    assert "tensorboardX" not in sys.modules
    write_all("tensorboard", tracked(tmp_path))
    assert list((tmp_path / "mine" / "tensorboard").iterdir())


def test_a_tracker_without_a_key_is_said_once_and_left_out(libraries, tmp_path, caplog):
    libraries["wandb"].api.api_key = None
    write_all("wandb", tracked(tmp_path))
    (record,) = caplog.records
    assert "wandb PermissionError: no key" in record.getMessage()
    assert "training goes on" in record.getMessage()
    assert libraries["wandb"].started == []


def test_a_tracker_whose_network_fails_later_is_said_once(libraries, tmp_path, monkeypatch, caplog):
    def unreachable(values, step):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(libraries["trackio"], "log", unreachable)
    write_all("trackio", tracked(tmp_path))
    assert [record.getMessage().count("no route to host;") for record in caplog.records] == [1]


def test_a_tracker_that_hangs_holds_up_neither_a_step_nor_the_end(monkeypatch, caplog):
    monkeypatch.setattr(trackers, "_WAITING", 3)
    monkeypatch.setattr(trackers, "_CLOSE_S", 0.05)
    stuck, entered = threading.Event(), threading.Event()

    def open_sink():
        entered.set()
        stuck.wait()
        raise SystemExit(1)

    slow, full = (Tracker("slow", open_sink) for _ in range(2))
    assert entered.wait(10)
    slow.write(1, {"train/loss": 1.0})
    slow.close()
    for step in range(5):
        full.write(step, {"train/loss": 1.0})
    full.close()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "did not finish" in said[0]
    assert "lines behind" in said[1]
    stuck.set()


def test_a_tracker_that_hangs_with_all_its_lines_waiting_ends_within_the_limit(monkeypatch, caplog):
    monkeypatch.setattr(trackers, "_WAITING", 2)
    monkeypatch.setattr(trackers, "_CLOSE_S", 0.05)
    opened, go_on = threading.Event(), threading.Event()

    def hang():
        opened.set()
        go_on.wait(30)
        raise RuntimeError("nobody waits any more")

    tracker = Tracker("slow", hang)
    assert opened.wait(30)
    for line in LINES:
        tracker.write(*line)
    closing = threading.Thread(target=tracker.close, daemon=True)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()
    go_on.set()
    assert [record.getMessage() for record in caplog.records] == [
        "log.trackers: slow did not finish within 0.05 s; training goes on without it, metrics.jsonl has every line"
    ]


def test_a_run_trains_on_when_its_tracker_does_not(libraries, tmp_path, caplog):
    libraries["wandb"].api.api_key = None
    program = array_program(log__trackers=("wandb", "mlflow"), train__steps=10)
    with caplog.at_level(logging.WARNING):
        assert run(program, tmp_path / "mine")["step"] == 10
    assert sum("log.trackers" in record.getMessage() for record in caplog.records) == 1
    assert [step for step, values in libraries["mlflow"].written if "train/loss" in values] == list(range(1, 11))


def test_what_is_not_installed_or_no_tracker_is_a_fault_before_the_run(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        check_installed(("tensorboard", "wandb"))
    config = fields.change(fields.defaults(), {"log.trackers": ("wandb", "comet", "wandb")})
    assert [fault.value for fault in find_faults(config)] == ["comet", ("wandb", "comet", "wandb")]
    assert set(TRACKERS) == {"tensorboard", "wandb", "mlflow", "trackio"}
