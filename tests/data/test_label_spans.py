"""Values of spans become values of segments as a naive count of every segment and span says."""

import itertools
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxbio.data.label_spans import Segments, Spans, spread

TICKS_A_SECOND = 10  # spans and segments begin at tenths, which floats do not hold exactly


@st.composite
def recordings(draw):
    """Rows in any order, of recordings cut into segments some of which are lost, and spans that do not overlap."""
    segment = draw(st.integers(1, 40))
    rows, spans = [], []
    for number in draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)):
        kept = draw(st.lists(st.integers(0, 8), unique=True, max_size=8))
        rows += [(number, slot * segment) for slot in kept]
        edges = sorted(draw(st.lists(st.integers(0, 10 * segment), unique=True, max_size=8)))
        for start, end in itertools.pairwise(edges):
            value = draw(st.sampled_from((None, 0.0, 1.0, 2.5, -3.0)))
            if value is not None:
                spans.append((number, start, end, value))
        if spans and draw(st.booleans()) and spans[-1][0] == number:
            spans[-1] = (*spans[-1][:2], None, spans[-1][3])  # to the recording's end, wherever that is
    return segment, draw(st.permutations(rows)), draw(st.permutations(spans))


def naive(segment, rows, spans):
    """Return each row's value, and whether a span lies on it, by looking at every span."""
    values, touched = [], []
    for number, first in rows:
        covered = {}
        for other, start, end, value in spans:
            last = first + segment if end is None else min(end, first + segment)
            if other == number and last > max(start, first):
                covered[value] = covered.get(value, 0) + last - max(start, first)
        winners = [value for value, ticks in covered.items() if Fraction(ticks) > Fraction(segment, 2)]
        values.append(winners[0] if winners else np.nan)
        touched.append(bool(covered))
    return np.array(values, np.float32), np.array(touched, bool)


@given(recordings())
@settings(max_examples=300, deadline=None)
def test_a_segment_has_the_value_that_holds_for_more_than_half_of_it(made):
    segment, rows, spans = made
    seconds = [np.inf if ticks is None else ticks / TICKS_A_SECOND for ticks in (end for _, _, end, _ in spans)]
    segments = Segments.of(
        np.array([number for number, _ in rows], np.int64),
        np.array([first / TICKS_A_SECOND for _, first in rows], np.float64),
        segment / TICKS_A_SECOND,
    )
    value_R, undecided_R = spread(
        Spans(
            np.array([number for number, *_ in spans], np.int64),
            np.array([start / TICKS_A_SECOND for _, start, *_ in spans], np.float64),
            np.array(seconds, np.float64),
            np.array([value for *_, value in spans], np.float32),
        ),
        segments,
    )
    expected_R, touched_R = naive(segment, rows, spans)
    assert value_R.dtype == np.float32
    np.testing.assert_array_equal(value_R, expected_R)
    np.testing.assert_array_equal(undecided_R, touched_R & np.isnan(expected_R))


def test_half_and_half_is_no_value_and_two_spans_of_one_value_are_one():
    segments = Segments.of(np.zeros(2, np.int64), np.array([0.0, 10.0]), 10.0)
    start_s_N, end_s_N = np.array([0.0, 5.0, 10.0, 13.0]), np.array([5.0, 10.0, 13.0, 16.0])
    spans = Spans(np.zeros(4, np.int64), start_s_N, end_s_N, np.float32([1, 2, 3, 3]))
    value_R, undecided_R = spread(spans, segments)
    np.testing.assert_array_equal(value_R, [np.nan, 3])
    np.testing.assert_array_equal(undecided_R, [True, False])
