"""Mutated cards, weights, examples and reference weights: read right, or a user's fault, soon and in bounded memory.

A case is named by its seed and number, which make it again.
"""

import io
import json
import random
import resource
import signal
import warnings

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

import jaxbio
from jaxbio.config.faults import UserError
from jaxbio.export import card as cards
from jaxbio.export import folder
from jaxbio.export.torch_import import read_reference
from jaxbio.export.weights import read_flat_weights

LIMIT_S, LIMIT_KB = 30, 1_500_000
VALUES = (
    *(None, True, False, 0, -1, 1, 2, 3, 0.5, -2.5, 1e-300, 1e300, 10**9, 2**31, 2**63, 10**400, float("nan")),
    *(float("inf"), "", "x", "9", "..", "/dev/zero", "qualityfm", "resnet1d", "float32", "none", "\ud800", "x" * 10**4),
    *([], [None], [1, 2], ["ppg"], ["ppg", "ecg"], [0.5, 40], [[[]]], [1] * 1000, {}, {"encoder": "projected"}),
    {"encoder": "resnet1d", "fields": {"depth": 18, "blocks": [10**9]}},
)
TOKENS = (
    b"9" * 5000,
    b"[" * 5000,
    b"{",
    b"}",
    b'"',
    b",",
    b"null",
    b"-",
    b"e999",
    b"NaN",
    b"\xff",
    b"\0" * 40,
    b"8",
    b"F32",
)


def mutate_values(card, rng):
    """Change one to three values of a card, at any depth: another value, a missing or a new name."""
    for _ in range(rng.randint(1, 3)):
        at = card
        while isinstance(at, dict) and at:
            name = rng.choice(list(at))
            if not isinstance(at[name], dict) or rng.random() < 0.3:
                break
            at = at[name]
        if not at:
            continue
        match rng.randrange(10):
            case 0:
                del at[name]
            case 1:
                at[rng.choice(("colour", "", "parent", "a/b", "x" * 300))] = rng.choice(VALUES)
            case 2 if type(at[name]) in (int, float):
                at[name] *= rng.choice((2, -1, 1.0001, 1000))
            case _:
                at[name] = rng.choice(VALUES)
    return json.dumps(card).encode()


def mutate_bytes(content, rng):
    """Return `content` with one to three bits, cuts, insertions or tokens, most of them at its ends."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        reach = rng.choice((len(data), min(len(data), 300)))
        at = rng.randrange(reach) if reach else 0
        if rng.random() < 0.3:
            at = len(data) - 1 - at
        match rng.randrange(6):
            case 0 if data:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + rng.randint(1, 40)]
            case 3:
                data[at:at] = rng.randbytes(rng.randint(1, 40))
            case 4:
                token = rng.choice(TOKENS)
                data[at : at + rng.choice((0, len(token)))] = token
            case _:
                size = rng.choice((1, 2, 4, 8))
                data[at : at + size] = rng.choice((b"\xff", b"\0", b"\x7f")) * size
    return bytes(data)


def within_limits(name, act, *arguments):
    """Return what `act` does, or None where it is refused; it may take LIMIT_S, a sweep LIMIT_KB of memory."""

    def too_slow(signum, frame):
        raise TimeoutError(f"no outcome within {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(LIMIT_S)
    try:
        return act(*arguments)
    except UserError:
        return None
    except Exception as error:
        raise AssertionError(f"case {name}: {type(error).__name__}: {error}") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < LIMIT_KB


@pytest.mark.parametrize("cases", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_mutated_cards_are_read_right_or_refused(export_folder, tmp_path, memory, cases):
    whole = (export_folder / cards.CARD).read_bytes()
    for file in (cards.WEIGHTS, cards.PROGRAM, cards.EXAMPLE):
        (tmp_path / file).symlink_to(export_folder / file)
    x_BCT, tok_BLD = folder.read_example(export_folder, cards.read_card(export_folder))

    def load():
        model = jaxbio.load_pretrained(tmp_path, check=cases > 100)
        assert repr(model).startswith("Pretrained(")
        if cases > 100:  # right is what the example says; a card that was read may not change it
            assert np.abs(np.asarray(model.encode(model.prepare(x_BCT))) - tok_BLD).max() < 1e-3 * np.abs(tok_BLD).max()
        return "read"

    outcomes = []
    for case in range(cases):
        rng = random.Random(f"card-{case}")
        mutated = mutate_values(json.loads(whole), rng) if case % 4 else mutate_bytes(whole, rng)
        (tmp_path / cards.CARD).write_bytes(mutated)
        outcomes.append(within_limits(f"card-{case}", load))
    assert 0 < outcomes.count("read") < 0.5 * cases


def reference_files(folder):
    """Write small weights in each format; return path and how another reader reads it."""
    rng = np.random.default_rng(0)
    arrays = {f"encoder.layer{n}.weight": rng.normal(size=(n + 1, 4)).astype(np.float32) for n in range(3)}
    (folder / "a.safetensors").write_bytes(safetensors_numpy.save(arrays))
    np.savez(folder / "b.npz", **arrays)
    np.savez_compressed(folder / "c.npz", **arrays)
    return [
        (folder / "a.safetensors", safetensors_numpy.load),
        (folder / "b.npz", load_npz),
        (folder / "c.npz", load_npz),
    ]


def load_npz(content):
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


@pytest.mark.parametrize("cases", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_mutated_weights_are_read_as_other_readers_do_or_refused(tmp_path, memory, cases):
    made = [(path, path.read_bytes(), read) for path, read in reference_files(tmp_path)]
    outcomes = []
    for case in range(cases):
        path, whole, read = made[case % len(made)]
        path.write_bytes(mutate_bytes(whole, random.Random(f"weights-{case}")))
        take = read_flat_weights if path.suffix == ".safetensors" else read_reference
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of headers of old versions; the outcome is what counts
            found = within_limits(f"weights-{case}", take, path)
            if found is not None:
                try:
                    others = read(path.read_bytes())
                except (SafetensorError, KeyError, ValueError):  # types it does not know, bytes before an archive
                    continue
                for name, array in found.items():
                    expected = others.get(name, others.get(f"{name}.npy"))
                    np.testing.assert_array_equal(array, expected.astype(array.dtype))
        outcomes.append("refused" if found is None else "read")
    assert 0.02 * cases < outcomes.count("read") < 0.8 * cases


@pytest.mark.slow
def test_mutated_files_of_an_export_are_refused_whatever_their_card_says(export_folder, tmp_path, memory):
    card = cards.read_card(export_folder)
    for file in card.files:
        (tmp_path / file).symlink_to(export_folder / file)
    outcomes = []
    for case in range(100):
        rng = random.Random(f"export-{case}")
        name = (cards.WEIGHTS, cards.EXAMPLE)[case % 2]
        (tmp_path / name).unlink()
        (tmp_path / name).write_bytes(mutate_bytes((export_folder / name).read_bytes(), rng))
        cards.write_card(tmp_path, card, card.files)  # as somebody would who means harm
        outcomes.append(within_limits(f"export-{case}", jaxbio.load_pretrained, tmp_path))
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to(export_folder / name)
    assert outcomes.count(None) > 50
