"""Learning from few labels: whole shares of subjects, every class among them, and it is said how many."""

import numpy as np
import pytest

from jaxbio.data.few_labels import choose_few, labelled_share
from jaxbio.data.labels import Label

SUBJECTS, EACH = 40, 3


class Table:
    """Forty subjects with three segments each, as far as subjects are asked for."""

    rows = SUBJECTS * EACH

    def codes(self, name):
        if name == "source":
            return np.zeros(self.rows, np.int32), ["numpy:a"]
        return np.repeat(np.arange(SUBJECTS, dtype=np.int32), EACH), [f"r{code}" for code in range(SUBJECTS)]


WHOSE_R = Table().codes("subject")[0]
RHYTHM = Label("rhythm", (WHOSE_R < 10).astype(np.float32), ("SR", "AF"))  # a quarter of the subjects have AF


@pytest.fixture
def said(caplog):
    caplog.set_level("INFO")
    return caplog


def choose(labels, share, seed=0, row_N=None):
    return choose_few(Table(), labels, np.arange(Table.rows) if row_N is None else row_N, share=share, seed=seed)


def subjects_of(row_N):
    return np.unique(WHOSE_R[row_N])


def test_a_tenth_of_forty_subjects_are_four_with_each_class_among_them(said):
    row_N = choose([RHYTHM], 0.1)
    assert len(subjects_of(row_N)) == 4
    np.testing.assert_array_equal(row_N, np.flatnonzero(np.isin(WHOSE_R, subjects_of(row_N))))  # whole subjects
    assert np.unique(RHYTHM.value_R[row_N]).tolist() == [0, 1]
    assert said.messages[-1].endswith("SR 3 of 30 subjects, 9 of 90 segments; AF 1 of 10 subjects, 3 of 30 segments")


def test_one_subject_of_each_class_is_the_least():
    assert len(subjects_of(choose([RHYTHM], 0.001))) == 2


def test_the_whole_is_every_row_in_its_order():
    row_N = np.arange(1, Table.rows, 2)
    np.testing.assert_array_equal(choose([RHYTHM], 1.0, row_N=row_N), row_N)


def test_of_numbers_and_of_courses_a_share_of_the_subjects_is_kept(said):
    for labels in ([Label("age", WHOSE_R + 20.5)], []):
        assert len(subjects_of(choose(labels, 0.1))) == 4
        assert said.messages[-1].endswith("(data.label_share = 0.1): 4 of 40 subjects, 12 of 120 segments")


def test_numbers_that_are_0_and_1_are_classes():
    assert np.unique(RHYTHM.value_R[choose([Label("af", RHYTHM.value_R)], 0.001)]).tolist() == [0, 1]


def test_the_seed_draws_the_subjects():
    drawn = [subjects_of(choose([RHYTHM], 0.1, seed=seed)).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_of_a_subject_with_several_classes_the_share_is_of_each_class():
    subject_N, class_N = np.repeat(np.arange(30), 3), np.tile([0, 1, 2], 30)
    rows = labelled_share(class_N, subject_N, 0.2)
    assert [len(np.unique(subject_N[rows][class_N[rows] == label])) for label in range(3)] == [6, 6, 6]
    assert len(labelled_share(class_N, subject_N, 0.001)) == 3
    np.testing.assert_array_equal(labelled_share(class_N, subject_N, 1.0), np.arange(90))
