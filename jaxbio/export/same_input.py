"""Whether a network from an export gets, in a run, the input that it was trained on.

faults = input_faults("train.init_from", card, config)
"""

import dataclasses

from ml_collections import ConfigDict

from jaxbio.config.faults import Fault
from jaxbio.export.card import Card
from jaxbio.transforms.prepare_input import Input

_FREE = ("length", "crops")  # a network takes segments of any length, and one crop of them is like another


def input_faults(field: str, card: Card, config: ConfigDict) -> list[Fault]:
    """Return where a network's input is not the run's, which it is going to get; `field` is what named it."""
    wanted, found = dataclasses.asdict(Input.of(config)), dataclasses.asdict(card.inputs)
    return [
        Fault(field, f"an export with data.{name} = {found[name]}", f"the run has {wanted[name]}: make them the same")
        for name in wanted
        if wanted[name] != found[name] and name not in _FREE
    ]
