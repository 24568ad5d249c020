"""Maps over patches and numbered waveforms: what an objective shows is written, read back and drawn."""

import numpy as np

from jaxbio.report import patches
from jaxbio.report.examples import Examples, read_examples, write_examples
from jaxbio.report.patches import Waveforms


def make_examples(rng):
    return Examples(
        rng.normal(size=(2, 1, 1, 6000)).astype(np.float32),
        50.0,
        ("ppg",),
        {},
        0.5,
        maps={"hidden": (rng.random((2, 60)) < 0.4).astype(np.float32), "prior": rng.random((2, 60))},
        waveforms={"code": Waveforms(np.array([17, 3, 250]), np.array([0.5, 0.2, 0.1]), rng.normal(size=(3, 100)))},
    )


def test_maps_and_waveforms_go_through_the_runs_folder(tmp_path):
    examples = make_examples(np.random.default_rng(0))
    write_examples(tmp_path, examples)
    found = read_examples(tmp_path)
    assert found.maps.keys() == {"hidden", "prior"}
    np.testing.assert_array_equal(found.maps["hidden"], examples.maps["hidden"])
    for part in ("number_N", "share_N", "mean_NT"):
        np.testing.assert_array_equal(getattr(found.waveforms["code"], part), getattr(examples.waveforms["code"], part))


def test_hidden_patches_are_shaded_and_the_prior_is_a_line():
    examples = make_examples(np.random.default_rng(1))
    (section,) = patches.draw_maps(examples.segment_BMCT, 50.0, examples.maps)
    assert section.count("<svg") == 2
    assert "Shaded: hidden. Steps, from 0 to 1: prior." in section
    assert patches.draw_maps(examples.segment_BMCT, 50.0, {}) == []


def test_every_number_has_its_waveform_and_its_share():
    examples = make_examples(np.random.default_rng(2))
    (section,) = patches.draw_waveforms(examples.waveforms, 50.0)
    for text in ("code 17: 50.0%", "code 3: 20.0%", "code 250: 10.0%"):
        assert text in section
