import pytest

from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.config.resolve import resolve

TEN_SECONDS = {"data.rate_hz": 250.0, "data.segment_s": 10.0}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data.band_hz": (0.5, 125.0)}, r"data\.band_hz = \(0\.5, 125\.0\): below 125 Hz, half of data\.rate_hz"),
        ({"data.band_hz": (0.5, 200.0)}, r"below 125 Hz"),
        ({"data.band_hz": (40.0, 0.67)}, r"data\.band_hz.*the lower one first"),
        ({"data.band_hz": (0.0, 40.0)}, r"data\.band_hz.*above 0 Hz"),
        ({"data.band_hz": (0.5,)}, r"data\.band_hz.*two numbers"),
        ({"data.band_hz": ("0.5", 8)}, r"data\.band_hz.*two numbers"),
        ({"data.band_hz": 40.0}, r"data\.band_hz.*expected tuple"),
        ({"data.crop_s": 11.0}, r"data\.crop_s = 11\.0: at most data\.segment_s = 10"),
        ({"data.crop_s": 8.9999}, r"data\.crop_s = 8\.9999: .*whole number of samples: 8\.996 or 9"),
        ({"data.crop_s": 0}, r"data\.crop_s = 0: expected at least 0\.1"),
        ({"data.crops": 3}, r"data\.crops = 3: 1, or set data\.crop_s"),
        ({"data.band_order": 0}, r"data\.band_order = 0"),
        ({"data.band_design": "highpass_lowpass"}, r"data\.band_design.*did you mean high_pass_low_pass"),
        ({"data.standardise": "zscore"}, r"data\.standardise.*did you mean z_score"),
    ],
)
def test_an_input_that_cannot_be_is_refused_before_a_device_is_touched(changes, says):
    with pytest.raises(UserError, match=says):
        resolve(fields.change(fields.defaults(), {**TEN_SECONDS, **changes}))


def test_a_crop_that_is_too_short_for_the_residual_network_is_refused():
    with pytest.raises(UserError, match=r"data\.crop_s = 0\.2.*80 taps"):
        resolve(fields.change(fields.defaults("resnet1d", "quality_siamese"), {**TEN_SECONDS, "data.crop_s": 0.2}))


def test_the_published_inputs_of_st_mem_and_sigma_ppg_resolve():
    st_mem = {
        "data.scaling": "physical",
        "data.crop_s": 9.0,
        "data.crops": 3,
        "data.band_hz": (0.67, 40.0),
        "data.band_order": 5,
        "data.band_design": "high_pass_low_pass",
        "data.standardise": "z_score",
    }
    sigma_ppg = {"data.rate_hz": 50.0, "data.segment_s": 240.0, "data.band_hz": [0.5, 8], "data.standardise": "unit"}
    assert resolve(fields.change(fields.defaults(), {**TEN_SECONDS, **st_mem})).data.crops == 3
    assert resolve(fields.change(fields.defaults(), sigma_ppg)).data.band_hz == (0.5, 8)
