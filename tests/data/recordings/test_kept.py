"""What is kept is bounded by its bytes, oldest first."""

import pytest

from jaxbio.data.recordings.kept import Kept


def test_as_much_is_kept_as_comes_to_the_bytes():
    kept, made = Kept(100), []

    def get(name, nbytes):
        return kept.get(name, lambda: made.append(name) or bytes(nbytes))

    for name, nbytes in (("a", 40), ("b", 40), ("a", 40), ("c", 40), ("a", 40), ("b", 40)):
        assert len(get(name, nbytes)) == nbytes
    assert made == ["a", "b", "c", "b"]  # c pushed out b, which was used before a
    get("large", 1000)
    get("large", 1000)
    get("a", 40)
    assert made == ["a", "b", "c", "b", "large", "a"]


def test_nothing_is_kept_of_what_fails():
    kept = Kept(100)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda: 1 // 0)
    assert kept.get("a", lambda: b"x") == b"x"
