"""What a recipe of QualityFM may not say, named with what to say instead."""

import pytest

from jaxbio.config import fields
from jaxbio.config.command_line import load_recipe
from jaxbio.config.resolve import find_faults


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"objective.breathing_hz": (0.6, 0.1)}, "the lower first"),
        ({"objective.breathing_hz": (0.1,)}, "two frequencies"),
        ({"objective.breathing_hz": (0.1, 151.0)}, "from 0 to 150 Hz"),
        ({"objective.breathing_hz": (0.1, 0.15)}, "0.0667 Hz or more apart"),
        ({"data.crop_s": 2.0}, "1 Hz or more apart"),
    ],
)
def test_a_band_that_holds_no_breathing_is_named_with_its_remedy(changes, remedy):
    config = fields.change(load_recipe("configs/qualityfm_base.py"), {"objective.breathing_weight": 1.0} | changes)
    (fault,) = (fault for fault in find_faults(config) if fault.field == "objective.breathing_hz")
    assert remedy in fault.remedy


def test_a_recipe_that_does_not_foretell_breathing_needs_no_band():
    changes = {"objective.breathing_weight": 0.0, "data.crop_s": 2.0}
    config = fields.change(load_recipe("configs/qualityfm_base.py"), changes)
    assert "objective.breathing_hz" not in [fault.field for fault in find_faults(config)]


def test_a_segment_may_last_an_hour_and_no_longer():
    config = load_recipe("configs/qualityfm_base.py")
    assert list(find_faults(fields.change(config, {"data.segment_s": 3600.0}))) == []
    (fault,) = find_faults(fields.change(config, {"data.segment_s": 3601.0}))
    assert fault.field == "data.segment_s"
