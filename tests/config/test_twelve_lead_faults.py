"""What a recipe of 12-lead encoders may not say, named with what to say instead."""

import numpy as np
import pytest

from jaxbio.config import fields
from jaxbio.config.command_line import load_recipe
from jaxbio.config.families import OBJECTIVES, KnownLabel
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
        ("ecg_jepa_small", {"data.segment_s": 20.0}, "objective.most_visible", "at least 40: of 100 times"),
        ("ecg_jepa_small", {"objective.mask": "blocks"}, "objective.mask_share", "4 blocks of up to 35 of 50 times"),
        ("ecg_jepa_small:blocks", {"objective.most_visible": 41}, "objective.most_visible", "at least 42"),
        ("ecg_jepa_small", {"objective.mask_share": (0.01, 0.7)}, "objective.mask_share", "at least 1/50"),
        ("ecg_vqvae", {"objective.kmeans_rounds": 0}, "objective.kmeans_rounds", "1"),
    ],
)
def test_a_fault_is_named_with_its_remedy(recipe, changes, field, words):
    name, _, preset = recipe.partition(":")
    config = fields.change(load_recipe(f"configs/{name}.py:{preset}"), changes)
    found = [fault for fault in find_faults(config) if fault.field == field]
    assert found, find_faults(config)
    assert words in found[0].remedy


def test_an_objective_asks_for_its_own_encoder():
    for model, objective in (("ecg_jepa", "patch_reconstruction"), ("st_mem", "feature_prediction")):
        config = fields.change(
            fields.defaults(model, objective), {"pairs.rule": "all_segments", "data.channels": ("ii",)}
        )
        assert [fault.field for fault in find_faults(config)][-1:] == ["objective.name"]


TWO = [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("classes", "train", "validation", "words"),
    [
        ((), np.arange(40.0, 60.0), np.arange(40.0, 60.0), "age: 20 different numbers"),
        ((), [0.5, 0.5, 1.5, 1.5], TWO, "age: 4 different numbers"),
        (("young", "old"), np.zeros(20), TWO, "1 classes with two segments in train"),
        (("young", "old"), [0.0, 0.0, 1.0], TWO, "1 classes with two segments in train"),
        (("young", "old"), TWO, [0.0, 1.0], "0 classes with two segments in validation"),
        (("young", "old"), TWO, [], "0 classes with two segments in validation"),
        (("young", "old"), TWO, TWO, None),
        ((), TWO, TWO, None),  # 0 and 1 are classes in all but name
    ],
)
def test_triplets_refuse_a_label_of_which_no_triplet_can_be_made(classes, train, validation, words):
    config = load_recipe("configs/ecg_triplet.py:smoke")
    label = KnownLabel("age", classes, np.array(train, np.float32), np.array(validation, np.float32))
    found = list(OBJECTIVES["label_triplets"].label_faults(fields.flatten(config), [label]))
    assert [fault.field for fault in found] == ["data.labels"] * (words is not None)
    assert words is None or words in found[0].value


def test_triplets_learn_from_a_label_and_from_no_channel():
    config = load_recipe("configs/ecg_triplet.py:smoke")
    assert find_faults(config) == []
    changed = fields.change(config, {"data.channels": ("i", "ii", "abp"), "data.target": "abp"})
    assert [fault.field for fault in find_faults(changed)] == ["data.target"]
