"""What a run reads of several stores, and of whom it reads nothing."""

from types import SimpleNamespace

import numpy as np
import pytest
from prepared import prepare, small_config, write_archive

from jaxbio.config import fields
from jaxbio.config.command_line import load_recipe
from jaxbio.config.faults import UserError
from jaxbio.data.labels import Label, write_labels
from jaxbio.data.order import make_order
from jaxbio.data.pairs import make_pairs
from jaxbio.data.prepare import prepare_store
from jaxbio.data.recordings import parse_source
from jaxbio.data.seen import UNKNOWN, seen_of
from jaxbio.evaluation.in_run import choose_questions
from jaxbio.training.run_data import open_run_data, without_answer


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run_data")
    first = prepare(write_archive(folder / "one", 12, minutes=4.2), folder / "A")
    return first, prepare(write_archive(folder / "two", 8, first=40, minutes=4.2), folder / "B")


@pytest.fixture(scope="module")
def named(parts):
    return tuple((str(store.path), weight) for store, weight in zip(parts, (0.7, 0.3), strict=True))


def test_two_stores_are_drawn_by_their_weights(parts, named):
    data = open_run_data(small_config(train__batch=8), named)
    row_N = np.concatenate([data.rows(step)[:, 0] for step in range(1_250)])
    assert np.mean(row_N < parts[0].rows) == pytest.approx(0.7, abs=0.01)
    assert np.mean(row_N >= parts[0].rows) == pytest.approx(0.3, abs=0.01)
    for text in (named[0][0], named[1][0], "% of what is drawn"):
        assert text in data.summary()


def test_rows_of_both_stores_are_described(parts, named):
    data = open_run_data(small_config(train__batch=8), named)
    found = data.describe(np.array([[0, parts[0].rows], [parts[0].rows + 3, 5]], np.uint32))
    assert [entry["store"] for entry in found] == [named[0][0], named[1][0], named[1][0], named[0][0]]
    expected = [parts[0].take(0), parts[1].take(0), parts[1].take(3), parts[0].take(5)]
    for name in ("source", "subject", "recording", "start_s"):
        assert [entry[name] for entry in found] == [row[name] for row in expected]


def test_an_evaluation_spreads_evenly_over_the_held_out_pairs_of_all_stores(parts, named):
    """Whatever the weights: these decide what is learnt, not what is asked."""
    data = open_run_data(small_config(train__batch=8, eval__batches=8), named)
    order = data.held_out_order
    pair_N = np.concatenate([order.draw(step) for step in range(order.batches)])
    assert len(np.unique(pair_N)) == pair_N.size
    of_second = data.validation.rows_NM[:, 0] >= parts[0].rows
    assert abs(of_second[pair_N].sum() - of_second.mean() * pair_N.size) <= 1


def test_a_store_with_fewer_pairs_than_its_share_of_a_batch_is_named(named):
    with pytest.raises(UserError, match="fewer than its 57 of a batch of 64") as refused:
        open_run_data(small_config(train__batch=64), ((named[0][0], 0.1), (named[1][0], 0.9)))
    assert [(fault.field, fault.value) for fault in refused.value.faults] == [("data.store", named[1][0])]


def test_excluded_subjects_are_in_no_pair_no_probe_and_not_seen(parts, named, tmp_path):
    whole = open_run_data(small_config(train__batch=4), named)
    subject_R, file = whole.store.column("subject"), tmp_path / "left_out.csv"
    trained, held_out = (np.unique(subject_R[index.rows_NM]).tolist() for index in (whole.train, whole.validation))
    chosen = [trained[0], trained[-1], held_out[0]]
    file.write_text("subject\n" + "\n".join(chosen))
    config = small_config(train__batch=4, eval__tasks=("quality_score",), data__exclude_subjects=str(file))
    data = open_run_data(config, named)
    assert np.unique(subject_R[data.train.rows_NM]).tolist() == [name for name in trained if name not in chosen]
    assert np.unique(subject_R[data.validation.rows_NM]).tolist() == [name for name in held_out if name not in chosen]
    assert data.seen().subject_S.size == whole.seen().subject_S.size - 2
    questions, all_questions = (choose_questions(each.store, config, each.left_out_R) for each in (data, whole))
    for rows in ("fit_rows", "test_rows"):
        assert not np.isin(subject_R[getattr(questions, rows)], chosen).any()
        assert np.isin(subject_R[getattr(all_questions, rows)], chosen).any()
    assert data.index_hash != whole.index_hash
    assert data.store_hash == whole.store_hash
    drawn = np.concatenate([data.rows(step).ravel() for step in range(200)])
    assert not np.isin(subject_R[drawn], chosen).any()


def test_nobody_left_to_hold_out_is_refused(parts, tmp_path):
    file = tmp_path / "left_out.csv"
    held_out = np.unique(parts[0].column("subject")[parts[0].column("split") == "validation"])
    file.write_text("subject\n" + "\n".join(held_out))
    with pytest.raises(UserError, match="validation split has no pairs"):
        open_run_data(small_config(train__batch=4, data__exclude_subjects=str(file)), parts[0].path)


def learn_some(store, objective="supervised"):
    """Return the data of a run that learns a label of every third segment, and of one that learns from pairs."""
    make_pairs(store, small_config(pairs__rule="all_segments"))
    index = open_run_data(small_config(train__batch=4, pairs__rule="all_segments"), store.path)
    some_R = np.where(np.arange(store.rows) % 3 == 0, np.arange(store.rows) % 2, np.nan).astype(np.float32)
    write_labels(store, [Label("some", some_R, ("even", "odd"))])
    classes = {"objective.classes": ("even", "odd")} if objective == "supervised" else {}
    learnt = {**classes, "data.labels": ("some",), "data.streams": 4}
    same = {
        name: value
        for name, value in fields.flatten(index.config).items()
        if name.split(".")[0] in ("data", "prepare", "pairs", "quality")
    }
    config = fields.change(fields.defaults("resnet1d", objective), {**same, **learnt, "train.batch": 4})
    return open_run_data(config, store.path), index, some_R


@pytest.mark.parametrize("objective", ["supervised", "label_triplets"])
def test_an_objective_of_labels_draws_only_segments_that_have_them(parts, objective):
    data, index, some_R = learn_some(parts[0], objective)
    drawn_N = np.unique(np.concatenate([data.rows(step) for step in range(200)]))
    known_N = index.train.rows_NM[np.isfinite(some_R[index.train.rows_NM[:, 0]]), 0]
    np.testing.assert_array_equal(drawn_N, np.sort(known_N))
    assert data.held_out_order.batches * 4 >= len(data.validation.rows_NM) == data.held_out_order.pairs


@pytest.mark.parametrize("objective", ["supervised", "label_triplets"])
def test_a_share_of_the_labels_is_of_some_subjects_and_held_out_stays_whole(parts, objective):
    whole, _, some_R = learn_some(parts[0], objective)
    few = open_run_data(fields.change(whole.config, {"data.label_share": 0.5, "train.batch": 2}), parts[0].path)
    subject_R = parts[0].column("subject")
    drawn_N = np.unique(np.concatenate([few.rows(step) for step in range(200)]))
    assert set(drawn_N) < set(np.unique(whole.train.rows_NM))
    for code in (0, 1):
        of_whole, of_few = (
            np.unique(subject_R[rows[some_R[rows] == code]]) for rows in (whole.train.rows_NM[:, 0], drawn_N)
        )
        assert len(of_few) == max(1, round(0.5 * len(of_whole))) < len(of_whole)
    np.testing.assert_array_equal(few.validation.rows_NM, whole.validation.rows_NM)
    seen_N = few.seen().find_rows(few.store, drawn_N)
    assert seen_N.all()
    assert few.seen().subject_S.size == len(np.unique(subject_R[drawn_N]))
    assert few.index_hash == whole.index_hash  # the field itself is what a resume compares


@pytest.mark.parametrize("objective", ["supervised", "label_triplets"])
def test_all_labels_draw_what_was_drawn_before_there_were_shares(parts, objective):
    data, index, some_R = learn_some(parts[0], objective)
    known_N = np.isfinite(some_R[index.train.rows_NM[:, 0]])
    np.testing.assert_array_equal(data.train.rows_NM, index.train.rows_NM[known_N])
    order = make_order(int(known_N.sum()), 4, streams=4, seed=data.config.train.seed)
    for step in range(20):
        np.testing.assert_array_equal(data.rows(step), index.train.rows_NM[known_N][order.draw(step)])


def test_too_few_labels_for_a_batch_are_named_with_their_share(parts):
    whole, _, _ = learn_some(parts[0])
    with pytest.raises(UserError, match=r"data\.label_share = 0\.01 .* or a larger share"):
        open_run_data(fields.change(whole.config, {"data.label_share": 0.01, "train.batch": 16}), parts[0].path)


@pytest.mark.slow
def test_a_smoke_run_of_triplets_has_classes_to_tell_apart(tmp_path):
    config = fields.change(load_recipe("configs/ecg_triplet.py:smoke"), {"data.channels": ("i", "ii")})
    prepare_store([parse_source(config.data.store)], config, tmp_path / "store")
    data = open_run_data(config, str(tmp_path / "store"))
    assert len(np.unique(data.by_row["label_BMK"][data.train.rows_NM[:, 0], 0])) > 1


def test_validation_subjects_that_the_start_has_seen_are_counted_and_all_of_them_refused(parts, caplog):
    data, pairs, _ = learn_some(parts[0])
    row_N = np.unique(data.validation.rows_NM)
    data.check_unseen(data.seen())  # its own train split, pretrained on
    data.check_unseen(UNKNOWN)
    assert not caplog.messages
    of_one_N = row_N[data.store.column("subject")[row_N] == data.store.column("subject")[row_N[0]]]
    assert 0 < len(of_one_N) < len(row_N)
    data.check_unseen(seen_of(data.store, of_one_N[:1]))
    assert f"{len(of_one_N)} of {len(row_N)} validation segments" in caplog.messages[-1]
    everybody = seen_of(data.store, np.arange(data.store.rows))
    with pytest.raises(UserError, match=rf"{len(row_N)} of {len(row_N)} .*prepare\.split.*data\.exclude_subjects"):
        data.check_unseen(everybody)
    data.check_unseen(everybody, resumed=True)
    pairs.check_unseen(everybody)  # pretraining measures no clinical answer on them
    assert len(caplog.messages) == 3


def test_segments_without_the_channel_that_is_learnt_are_drawn_as_little_as_those_without_a_label():
    config = fields.change(fields.defaults("resnet1d", "supervised"), {"data.channels": ("ppg", "abp")})
    config = fields.change(config, {"data.target": "abp"})
    present_NC = np.array([[True, True], [True, False], [False, True], [True, True]])
    stores, left_out_R = SimpleNamespace(present_NC=present_NC), np.array([True, False, False, False])
    assert without_answer(config, stores, [], None).tolist() == [False, True, False, False]
    assert without_answer(config, stores, [], left_out_R).tolist() == [True, True, False, False]
    label = Label("some", np.array([1, 1, np.nan, 1], np.float32))
    assert without_answer(config, stores, [label], None).tolist() == [False, True, True, False]
    config.data.target = None
    assert without_answer(config, stores, [], None) is None
