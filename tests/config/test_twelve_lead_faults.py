"""What a recipe of 12-lead encoders may not say, named with what to say instead."""

import pytest

from jaxbio.config import fields
from jaxbio.config.command_line import load_recipe
from jaxbio.config.resolve import find_faults


@pytest.mark.parametrize(
    ("recipe", "changes", "field", "words"),
    [
        ("st_mem_small", {"data.crop_s": 9.1}, "data.crop_s", "whole patches of 75 samples: 9 or 9.3 s"),
        ("st_mem_small", {"data.channels": ("i", "ppg")}, "data.channels", "ECG leads"),
        ("st_mem_small", {"pairs.rule": "quality_classes"}, "pairs.rule", "one by one"),
        ("st_mem_small", {"objective.mask_share": 0.99}, "objective.mask_share", "at least one stays"),
        ("st_mem_small", {"objective.mask_share": 0.0}, "objective.mask_share", "one goes"),
        ("st_mem_small", {"model.width": 385}, "model.width", "even"),
        ("ecg_jepa_small", {"data.segment_s": 10.1}, "data.segment_s", "10 or 10.2 s"),
        ("ecg_jepa_small", {"model.heads": 5}, "model.heads", "divisor of model.width = 384"),
        ("ecg_jepa_small", {"objective.predictor_heads": 5}, "objective.predictor_heads", "divisor"),
        ("ecg_jepa_small", {"objective.mask_share": (0.7, 0.6)}, "objective.mask_share", "the smaller first"),
        ("ecg_jepa_small", {"model.width": 390}, "model.width", "a multiple of 4"),
    ],
)
def test_a_fault_is_named_with_its_remedy(recipe, changes, field, words):
    config = fields.change(load_recipe(f"configs/{recipe}.py"), changes)
    found = [fault for fault in find_faults(config) if fault.field == field]
    assert found, find_faults(config)
    assert words in found[0].remedy


def test_an_objective_asks_for_its_own_encoder():
    for model, objective in (("ecg_jepa", "patch_reconstruction"), ("st_mem", "feature_prediction")):
        config = fields.change(
            fields.defaults(model, objective), {"pairs.rule": "all_segments", "data.channels": ("ii",)}
        )
        assert [fault.field for fault in find_faults(config)][-1:] == ["objective.name"]
