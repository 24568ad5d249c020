"""Which arrays of a file are signals, of which recordings, at which rates."""

import numpy as np
import pytest

from jaxbio.data.recordings import Refused, parse_source
from jaxbio.data.recordings.array_paths import Leaf, count_lines, lines_of, nearest_rate, split_path
from jaxbio.data.recordings.named_arrays import NamedArrayReader, find_recordings_in


@pytest.mark.parametrize(
    ("shape", "names", "samples"),
    [
        ((5000,), ["x"], 5000),
        ((1, 5000, 1), ["x"], 5000),
        ((5000, 2), ["x/1", "x/2"], 5000),
        ((2, 5000), ["x/1", "x/2"], 5000),
        ((20, 20), [f"x/{number}" for number in range(1, 21)], 20),
        ((2, 2, 50), ["x/1/1", "x/1/2", "x/2/1", "x/2/2"], 50),
        ((70, 50, 2), [f"x/{number}/{signal}" for number in range(1, 71) for signal in (1, 2)], 50),
        ((), [], 0),
        ((9,), [], 0),
        ((5000, 2000), [], 0),
        ((2, 2, 2, 50), [], 0),
    ],
)
def test_longer_axis_is_time_and_others_are_numbered(shape, names, samples):
    lines = dict(lines_of("x", Leaf(shape)))
    assert list(lines) == names
    assert count_lines(Leaf(shape)) == len(names)
    assert all(line.samples == samples for line in lines.values())
    places = {line.at for line in lines.values()}
    assert len(places) == len(names)
    assert all(np.zeros(shape)[place] == 0.0 for place in places)


def test_recordings_are_what_begins_as_the_pattern_says():
    assert split_path("data/2/ppg/v", "data/*") == ("data/2", "ppg/v")
    assert split_path("data/2/ppg/v", None) == ("", "data/2/ppg/v")
    assert split_path("rows/7", "rows/*") == ("rows/7", "7")
    assert split_path("data", "data/*") is split_path("other/2/v", "data/*") is None


def test_nearest_number_that_is_called_as_a_rate_counts():
    numbers = {"fs": 1.0, "data/2/fs": 2.0, "data/2/ppg/fs": 3.0, "data/2/ppg/v/rate_hz": 4.0}
    assert nearest_rate("data/2/ppg/v", numbers) == 4.0
    assert nearest_rate("data/2/ppg/w", numbers) == 3.0
    assert nearest_rate("data/2/ecg/v", numbers) == 2.0
    assert nearest_rate("x", numbers) == 1.0
    assert nearest_rate("x", {}) is None


def test_one_bad_recording_of_a_file_is_refused_alone_and_too_many_before_they_are_made(tmp_path):
    path = tmp_path / "a.mat"
    path.touch()
    source = parse_source(f"mat:{tmp_path}?each=*")
    leaves = {"a/ppg": Leaf((500,)), "a/fs": Leaf((), number=50.0), "b/ppg": Leaf((500,)), "b/fs": Leaf((), number=1e9)}
    arguments = (NamedArrayReader, {"ppg": ("ppg",)}, (".mat",))
    good, bad = find_recordings_in(source, str(path), leaves, *arguments)
    assert (good.recording, good.duration_s) == ("a/a", 10.0)
    assert isinstance(bad, Refused)
    assert (bad.recording, bad.reason, str(path) in bad.detail) == ("a/b", "bad_rate", True)
    with pytest.raises(Exception, match="signals"):
        next(find_recordings_in(source, str(path), {"x": Leaf((2**22, 2, 20))}, *arguments))
