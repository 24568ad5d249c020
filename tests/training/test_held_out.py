"""Which pairs an evaluation reads: the same ones always, each batch from the whole split."""

import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.training.held_out import make_held_out_order


def test_empty_validation_split_and_one_smaller_than_a_batch():
    with pytest.raises(UserError, match="validation split has no pairs"):
        make_held_out_order(0, 8, 2)
    with pytest.raises(UserError, match=r"has 7 pairs, fewer than a batch"):
        make_held_out_order(7, 8, 2)


def test_held_out_pairs_are_whole_batches_each_spread_over_the_split():
    """Neighbours in the index are of one patient: a batch of them would be judged beside that patient alone."""
    order = make_held_out_order(100, 8, 3)
    drawn = [order.draw(step) for step in range(order.batches)]
    assert len(set(np.concatenate(drawn).tolist())) == 24
    for pair_B in drawn:
        assert pair_B.min() < 10
        assert pair_B.max() >= 85
        assert np.diff(pair_B.astype(int)).min() >= 10
    assert make_held_out_order(17, 8, 3).batches == 2


@pytest.mark.parametrize(("pairs", "batch"), [(17, 8), (5, 8), (16, 8)])
def test_a_whole_split_is_evaluated_where_that_is_wanted(pairs, batch):
    order = make_held_out_order(pairs, batch, 100, whole=True)
    pair_N = np.concatenate([order.draw(step) for step in range(order.batches)])
    assert set(pair_N.tolist()) == set(range(pairs))
    assert pair_N.size < pairs + batch
    assert make_held_out_order(1000, 8, 3, whole=True).batches == 3
