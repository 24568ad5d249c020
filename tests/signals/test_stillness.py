"""What rests in a converter's last bits or is noise is told from every signal, whatever its unit."""

import numpy as np
import pytest

from jaxbio.data.recordings import list_recordings, parse_source
from jaxbio.signals.artefacts import find_gaps
from jaxbio.signals.stillness import find_noise, resting_frac

RATE_HZ = 125.0
T_T = np.arange(round(10 * RATE_HZ)) / RATE_HZ
NAMES = {"ppg": ("PLETH", "R", "1"), "ecg": ("II", "ECG")}
# a folder, its source line, how many seconds of each recording
REAL = [
    ("bidmc", "csv:{}?rate_hz=125&glob=*_Signals.csv.gz", 60),
    ("cinc2015_vt", "wfdb:{}", 60),
    ("cinc2017", "wfdb:{}", 10),
    ("welltory_ppg", "csv:{}?time=time:ms&columns=ppg:R&glob=*/PPG.csv", 120),
    ("ppg_misc/heartpy_ring_data.csv.gz", "text:{}?rate_hz=32&columns=ppg:1", 120),
]


def signals(rng):
    """Flat lines as converters give them, in steps, (3, T): a bit that toggles, two of noise, a slow drift of one."""
    noise_T = np.round(rng.normal(size=T_T.size).clip(-2, 2))
    return np.stack([rng.integers(0, 2, T_T.size), noise_T, np.floor(2 * np.sin(T_T))])


@pytest.mark.parametrize(("level", "step"), [(2048, 1.0), (0.0, 0.0049), (3.3, 1e-5), (-300.0, 2e-3), (8_000_000, 1.0)])
def test_what_rests_within_a_few_steps_of_any_size_on_any_level_rests(level, step):
    flat_BT = (level + step * signals(np.random.default_rng(0))).astype(np.float32)
    np.testing.assert_array_equal(resting_frac(flat_BT, RATE_HZ), 1.0)
    beats_BT = (level + step * np.round(20 * np.sin(2 * np.pi * T_T))[None]).astype(np.float32)  # of 40 steps
    assert resting_frac(beats_BT, RATE_HZ) == 0.0
    half_BT = np.where(T_T < 7, flat_BT, beats_BT)
    np.testing.assert_allclose(resting_frac(half_BT, RATE_HZ), 0.7, atol=0.02)


def test_a_constant_rests_and_smooth_signals_without_steps_do_not():
    assert resting_frac(np.full((1, 1250), 3.3, np.float32), RATE_HZ) == 1.0
    smooth_BT = np.stack([np.sin(2 * np.pi * T_T), T_T, 1e-3 * np.sin(T_T)]).astype(np.float32)
    np.testing.assert_array_equal(resting_frac(smooth_BT, RATE_HZ), 0.0)


@pytest.mark.parametrize("start", range(0, 1100, 37))
def test_one_stretch_of_rest_is_found_wherever_it_lies(start):
    x_T = np.round(20 * np.sin(2 * np.pi * T_T))
    x_T[start : start + 251] = 5
    found = resting_frac(x_T[None].astype(np.float32), RATE_HZ)
    assert found * 1250 == pytest.approx(min(251, 1250 - start), abs=16)  # the tops of the sine beside it


@pytest.mark.parametrize(("level", "size"), [(3.3, 1e-4), (0.0, 1e-6), (2048, 50.0)])
def test_white_noise_is_noise_at_any_size(level, size):
    noise_BT = level + size * np.random.default_rng(0).normal(size=(20, T_T.size))
    assert find_noise(noise_BT.astype(np.float32)).all()
    assert not find_noise(np.sin(2 * np.pi * T_T)[None]).any()
    assert not find_noise(np.full((1, 1250), 3.3)).any()


@pytest.mark.parametrize(("folder", "line", "most_s"), REAL, ids=[folder for folder, *_ in REAL])
def test_real_signals_move_and_are_no_noise(data_dir, folder, line, most_s):
    """A PPG that has come off, and a segment of v168s that holds hum alone, are all of 169 alarms."""
    segments, still, noise = 0, [], []
    for recording in list_recordings(parse_source(line.format(data_dir / folder)), NAMES, required=()):
        for role, channel in getattr(recording, "channels", {}).items():
            x_N = recording.read(0, min(most_s, recording.duration_s), (role,))[role]
            width = round(10 * channel.rate_hz)
            x_BN = x_N[: len(x_N) // width * width].reshape(-1, width)
            x_BN = x_BN[np.isfinite(x_BN).all(axis=1)]
            x_BN = x_BN[find_gaps(x_BN, channel.rate_hz).missing_BN.mean(axis=1) <= 0.5]  # else flat to the bit
            if len(x_BN):
                segments += len(x_BN)
                still += [recording.recording] * int((resting_frac(x_BN, channel.rate_hz) > 0.5).sum())
                noise += [recording.recording] * int(find_noise(x_BN).sum())
    assert segments >= 10
    assert len(still) <= segments / 1000, still
    assert len(noise) <= segments / 1000, noise
