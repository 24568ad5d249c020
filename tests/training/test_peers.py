"""What processes tell each other, with threads in their place; real ones are in tests/launch/test_hosts.py."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from jaxbio.config import fields
from jaxbio.config.faults import (
    EXIT_FAILURE,
    EXIT_PEER_GONE,
    EXIT_USER_FAULT,
    EndedByPeer,
    Fault,
    Preempted,
    UserError,
)
from jaxbio.config.field import MACHINE
from jaxbio.training import peers as peers_module
from jaxbio.training.agreement import Agreement
from jaxbio.training.clock import Clock
from jaxbio.training.pace import Timer
from jaxbio.training.peers import ALONE, Peers, find_differences
from jaxbio.training.same_start import OF_ONE_HOST, check_same_start, hash_code


class DictBoard:
    """A board that all threads share."""

    def __init__(self):
        self.posted, self.lock = {}, threading.Lock()

    def post(self, key, words):
        with self.lock:
            self.posted[key] = words

    def post_first(self, key, words):
        with self.lock:
            self.posted.setdefault(key, words)

    def read(self, folder):
        with self.lock:
            return {key.removeprefix(f"{folder}/"): w for key, w in self.posted.items() if key.startswith(f"{folder}/")}

    def wait(self, key, limit_s):
        until = time.monotonic() + limit_s
        while key not in self.posted and time.monotonic() < until:
            time.sleep(0.001)
        return self.posted.get(key)

    def delete(self, key):
        with self.lock:
            self.posted.pop(key, None)


@pytest.fixture
def run(monkeypatch):
    """Make the peers of a run; their beats are short, and none ends the process they all share."""
    monkeypatch.setattr(peers_module, "BEAT_S", 0.02)
    monkeypatch.setattr(peers_module, "GONE_S", 20.0)
    monkeypatch.setattr(peers_module, "SUSPECT_S", 10.0)
    monkeypatch.setattr(peers_module, "TIDY_S", 1e9)
    made = []

    def make(processes):
        board = DictBoard()
        made.extend(Peers(board, process, processes) for process in range(processes))
        return made[-processes:]

    yield make
    for peers in made:
        peers._closed.set()


def all_at_once(calls):
    """Return what the calls return or raise, made at the same time."""

    def outcome(call):
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(outcome, calls))


def wait_for_failure(peers, limit_s=5.0):
    until = time.monotonic() + limit_s
    while peers.failure is None and time.monotonic() < until:
        time.sleep(0.01)
    return peers.failure


def fail(peers, error):
    with peers.telling():
        raise error


def test_differences_are_named_with_who_says_what():
    said = [{"a": 1, "b": [2]}, {"a": 1, "b": [3]}, {"a": 1, "b": [3], "c": None}, {"a": 1, "b": [2]}]
    first, second = find_differences(said, {"b": "mend b"})
    assert str(first) == "b = {'processes 0, 3': [2], 'processes 1-2': [3]}: mend b"
    assert first.remedy == "mend b"
    assert second.value == {"processes 0-1, 3": "missing", "process 2": None}


def test_processes_that_say_the_same_go_on(run):
    outcomes = all_at_once([lambda peers=peers: peers.agree("start", {"seed": 0}) for peers in run(3)])
    assert outcomes == [None] * 3


def test_a_difference_ends_all_with_the_same_words_and_code_2(run):
    all_peers = run(3)
    outcomes = all_at_once(
        [lambda peers=peers: peers.agree("start", {"seed": peers.process // 2}) for peers in all_peers]
    )
    assert {type(outcome) for outcome in outcomes} == {EndedByPeer}
    assert {str(outcome) for outcome in outcomes} == {str(outcomes[0])}
    assert "seed = {'processes 0-1': 0, 'process 2': 1}" in str(outcomes[0])
    assert {outcome.exit_code for outcome in outcomes} == {EXIT_USER_FAULT}


def test_who_does_not_come_is_named(run):
    first, _ = run(2)
    with pytest.raises(EndedByPeer, match="process 1 has not come in time to where all meet: start") as late:
        first.agree("start", {}, limit_s=0.1)
    assert late.value.exit_code == EXIT_PEER_GONE


def test_a_fault_of_one_is_raised_in_the_others_with_its_code_also_where_they_wait(run):
    first, second, third = run(3)
    fault = UserError(Fault("data.store", "nowhere", "name another"))
    outcomes = all_at_once(
        [lambda: first.agree("start", {}), lambda: fail(second, fault), lambda: third.wait_for("nothing", 0)]
    )
    assert outcomes[1] is fault  # its own process keeps it
    for outcome in (outcomes[0], outcomes[2]):
        assert isinstance(outcome, EndedByPeer)
        assert outcome.exit_code == EXIT_USER_FAULT
        assert "data.store = 'nowhere': name another" in str(outcome)
        assert "process 1 on " in str(outcome)


def test_the_first_failure_is_that_of_all(run):
    first, second = run(2)
    with pytest.raises(ZeroDivisionError):
        fail(second, ZeroDivisionError("the first"))
    with pytest.raises(EndedByPeer, match=r"process 1 on .* failed: ZeroDivisionError: the first") as ended:
        fail(first, UserError(Fault("a", 1, "that followed from it")))
    assert ended.value.exit_code == EXIT_FAILURE
    with pytest.raises(EndedByPeer):
        first.check()


def test_a_preemption_is_no_failure(run):
    first, _ = run(2)
    with pytest.raises(Preempted):
        fail(first, Preempted())
    assert first.failure is None


def test_a_process_that_gives_no_sign_of_life_is_named_in_all(run, monkeypatch):
    monkeypatch.setattr(peers_module, "GONE_S", 1.0)
    first, second, third = run(3)
    second._closed.set()
    for peers in (first, third):
        failure = wait_for_failure(peers)
        assert failure.exit_code == EXIT_PEER_GONE
        assert "process 1 on " in failure.words[0]
        assert "is gone" in failure.words[0]


def test_an_error_that_the_end_of_another_explains_is_blamed_on_it(run, monkeypatch):
    monkeypatch.setattr(peers_module, "SUSPECT_S", 1.0)
    first, second, _ = run(3)
    second._closed.set()
    with pytest.raises(EndedByPeer, match=r"process 1 on .* is gone"):
        fail(first, ValueError("a collective lost its connection"))


def test_a_process_that_is_done_is_not_missed(run, monkeypatch):
    monkeypatch.setattr(peers_module, "GONE_S", 1.0)
    first, second = run(2)
    outcomes = []
    leaving = threading.Thread(target=lambda: outcomes.append(second.leave()))
    leaving.start()
    time.sleep(1.5)  # longer than a silence may be
    first.check()
    first.leave()
    leaving.join()
    assert outcomes == [None]


def test_alone_nothing_is_caught_and_no_thread_started():
    threads = threading.active_count()
    ALONE.agree("start", {"seed": 0})
    with pytest.raises(ValueError, match="as it was"):
        fail(ALONE, ValueError("as it was"))
    ALONE.check()
    ALONE.leave()
    assert threading.active_count() == threads


def test_all_save_and_stop_at_the_same_boundary(run):
    """Processes in step, as collectives keep them; process 0 wants to save, process 2 to stop."""
    all_peers, step = run(3), threading.Barrier(3)

    def loop(peers):
        agreement, decided = Agreement(peers, Timer(Clock())), []
        for boundary in range(1, 2001):
            decision = agreement.at_boundary(
                boundary, save=boundary == 20 or boundary > 100, stop=peers.process == 2 and boundary > 200
            )
            decided.append(decision)
            if decision.stop:
                return decided
            step.wait()
            time.sleep(0.005)
        return decided

    decided = all_at_once([lambda peers=peers: loop(peers) for peers in all_peers])
    assert decided[0] == decided[1] == decided[2]
    assert any(decision.save for decision in decided[0])
    assert not any(decision.save for decision in decided[0][:20])
    assert 200 < len(decided[0]) < 2000
    assert decided[0][-1].stop
    meetings = [key for key in all_peers[0].board.posted if key.startswith("meeting/")]
    assert len(meetings) <= 2  # what all have read is taken away


def test_the_hash_of_the_code_is_that_of_every_source_file(tmp_path, monkeypatch):
    import jaxbio

    (tmp_path / "a").mkdir()
    for name in ("__init__.py", "a/b.py"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(jaxbio, "__file__", str(tmp_path / "__init__.py"))
    found = {hash_code()}
    (tmp_path / "a/b.py").write_text("2")
    found.add(hash_code())
    (tmp_path / "a/b.py").rename(tmp_path / "a/c.py")
    found.add(hash_code())
    (tmp_path / "notes.txt").write_text("no code")
    assert hash_code() in found
    assert len(found) == 3


def test_what_hosts_may_have_of_their_own_are_machine_fields():
    table = fields.table("qualityfm", "quality_distillation")
    assert {table[name].tag for name in OF_ONE_HOST} == {MACHINE}


def test_only_what_is_one_hosts_own_may_differ_at_the_start(run, tmp_path):
    data = SimpleNamespace(store_hash="a" * 32, index_hash="b", label_hashes={})
    config = fields.defaults("qualityfm", "quality_distillation")
    here = {"data.store": "/here", "data.cache": "host", "data.read_threads": 1, "data.prefetch": 1}
    others = [fields.change(config.copy_and_resolve_references(), here), config]
    outcomes = all_at_once(
        [
            lambda peers=peers, config=config: check_same_start(peers, config, tmp_path, None, data, [])
            for peers, config in zip(run(2), others)
        ]
    )
    assert outcomes == [None, None]
