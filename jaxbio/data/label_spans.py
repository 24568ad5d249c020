"""From values that hold for spans of recordings to values of segments. It knows neither files nor stores.

A segment takes the value that holds for more than half of it, all spans of that value taken together; where none does,
it has no value.

    segments = Segments.of(id_R, start_s_R, 30.0)
    value_R, undecided_R = spread(Spans(id_N, start_s_N, end_s_N, value_N), segments)
"""

from dataclasses import dataclass

import numpy as np

_ROUNDED = 6  # decimals of a covered time, s: a sum of spans that is half a segment is no more than half


@dataclass(frozen=True)
class Spans:
    """Values (N,) that hold from `start_s_N` to `end_s_N` (s, infinite: to the end) in the recording `id_N` (int64)."""

    id_N: np.ndarray
    start_s_N: np.ndarray
    end_s_N: np.ndarray
    value_N: np.ndarray


@dataclass(frozen=True)
class Segments:
    """Where segments of `segment_s` lie, arranged so that those under a span are neighbours.

    `start_s_R` in their recording, rows as they come; `order_R` by recording and start, `key_R` both as one number, in
    that order; `starts_U` every start that occurs, rising.
    """

    start_s_R: np.ndarray
    segment_s: float
    order_R: np.ndarray
    key_R: np.ndarray
    starts_U: np.ndarray

    @classmethod
    def of(cls, id_R: np.ndarray, start_s_R: np.ndarray, segment_s: float) -> "Segments":
        """Return the segments of recordings `id_R` (int64) that start at `start_s_R` (float64)."""
        starts_U, place_R = np.unique(start_s_R, return_inverse=True)
        key_R = id_R * (starts_U.size + 1) + place_R
        order_R = np.argsort(key_R, kind="stable")
        return cls(start_s_R, segment_s, order_R, key_R[order_R], starts_U)

    def under(self, spans: Spans) -> tuple[np.ndarray, np.ndarray]:
        """Return every (span, row) of which the one lies on the other, as two arrays (P,) int64."""
        base_N = spans.id_N * (self.starts_U.size + 1)
        early_N = np.searchsorted(self.starts_U, spans.start_s_N - self.segment_s, side="right")
        late_N = np.searchsorted(self.starts_U, spans.end_s_N, side="left")
        first_N = np.searchsorted(self.key_R, base_N + early_N)
        count_N = np.maximum(np.searchsorted(self.key_R, base_N + late_N) - first_N, 0)
        span_P = np.repeat(np.arange(spans.id_N.size), count_N)
        step_P = np.arange(span_P.size) - np.repeat(np.cumsum(count_N) - count_N, count_N)
        return span_P, self.order_R[first_N[span_P] + step_P]


def spread(spans: Spans, segments: Segments) -> tuple[np.ndarray, np.ndarray]:
    """Return each segment's value, float32 (R,), NaN where none holds for more than half of it.

    Also, bool (R,), the segments among those without a value on which some span lies: undecided. Spans of one recording
    must not overlap; `value_N` is finite.
    """
    span_P, row_P = segments.under(spans)
    start_s_P, end_s_P = segments.start_s_R[row_P], segments.start_s_R[row_P] + segments.segment_s
    covered_s_P = np.minimum(spans.end_s_N[span_P], end_s_P) - np.maximum(spans.start_s_N[span_P], start_s_P)
    values, code_N = np.unique(spans.value_N, return_inverse=True)
    kinds = max(values.size, 1)
    held_Q, place_P = np.unique(row_P * kinds + code_N[span_P], return_inverse=True)  # a segment and a value on it
    covered_s_Q = np.bincount(place_P, covered_s_P, minlength=held_Q.size).round(_ROUNDED)
    value_R = np.full(segments.order_R.size, np.nan, np.float32)
    undecided_R = np.zeros(value_R.size, bool)
    undecided_R[held_Q[covered_s_Q > 0] // kinds] = True
    winner_Q = held_Q[covered_s_Q > segments.segment_s / 2]
    value_R[winner_Q // kinds] = values[winner_Q % kinds]
    undecided_R[winner_Q // kinds] = False
    return value_R, undecided_R
