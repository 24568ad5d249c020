"""A field that is none: the one that was meant is named."""

import pytest

from jaxbio.config import fields
from jaxbio.config.nearest import nearest

TABLE = fields.table("qualityfm", "quality_distillation")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("optimizer.lr", "optimizer.learning_rate"),
        ("lr", "optimizer.learning_rate"),
        ("optimizer.wd", "optimizer.weight_decay"),
        ("train.learning_rate", "optimizer.learning_rate"),
        ("train.batch_size", "train.batch"),
        ("train.step", "train.steps"),
        ("data.stor", "data.store"),
        ("tarin.steps", "train.steps"),
    ],
)
def test_the_field_that_was_meant_is_named(typed, meant):
    assert nearest(typed, TABLE) == meant


def test_a_name_like_no_field_leads_to_where_the_fields_are_written_down():
    assert nearest("xyzzy.qqqq", TABLE) == "one of jaxbio/config/fields.py"
