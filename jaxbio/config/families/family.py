"""What a model family tells of itself: its encoders and objectives, their fields, faults and presets.

Modules are named by text, `package.module:name`, so that the configuration of a run is read without importing JAX.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxbio.config.faults import Fault
from jaxbio.config.field import Field

Faults = Callable[[Mapping[str, Any]], Iterable[Fault]]
"""From the values of all fields by dotted name to what is wrong between them."""


def no_faults(values: Mapping[str, Any]) -> Iterable[Fault]:
    """Return no fault: the bounds of the single fields say everything."""
    return ()


@dataclass(frozen=True)
class KnownLabel:
    """A label as a run is going to learn it: its classes (none: numbers), and the values of the segments that are drawn
    and of those held out, NumPy arrays (N,) without NaN.
    """

    name: str
    classes: tuple[str, ...]
    train_N: Any
    validation_N: Any


LabelFaults = Callable[[Mapping[str, Any], Sequence[KnownLabel]], Iterable[Fault]]
"""From the values of all fields and the labels that `data.labels` names to what is wrong with these."""


def no_label_faults(values: Mapping[str, Any], labels: Sequence[KnownLabel]) -> Iterable[Fault]:
    """Return no fault: any label will do."""
    return ()


@dataclass(frozen=True)
class Model:
    """An encoder that `model.name` chooses.

    `encoder` names the Flax module, whose constructor takes the fields `model.*` and `dtype`; `faults` finds what is
    wrong between fields; `presets` are changes of machine fields by name, offered beside those of `config/machines.py`;
    `counted_as` sets fields for the count of FLOPs, so that MFU does not reward a form that computes more.
    """

    encoder: str
    fields: Mapping[str, Field]
    faults: Faults = no_faults
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    counted_as: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """An objective that `objective.name` chooses.

    `make` names the function that returns it, which takes the encoder, the common arguments and the fields
    `objective.*`. `frozen` are those of the fields that hold the folder of an export whose network the objective uses
    and does not train; `momenta` are those that are applied once a step, and follow the batch
    (`config/batch_scaling.py`). `neighbourhoods` says whether its loss goes by the pairs that a batch names
    (`objectives/pairing.py`) instead of taking each row as a pair. `metrics` says of each metric of the objective what
    it is, for the report of a run: a sentence that begins in small letters, with the unit and which way is better.

    Of an objective that learns from labels, `labelled` says that only segments with a label are drawn, and
    `label_faults` what is wrong with the labels that there are. `adopts`: it trains any encoder, so the family, the
    fields and the input of a run are those of the export that `train.init_from` names, where the line does not say
    otherwise. Among `fields` may be some of other sections: `model.adapters` is of the model, and applied by the
    objective.
    """

    make: str
    fields: Mapping[str, Field]
    faults: Faults = no_faults
    frozen: tuple[str, ...] = ()
    momenta: tuple[str, ...] = ()
    neighbourhoods: bool = False
    metrics: Mapping[str, str] = field(default_factory=dict)
    labelled: bool = False
    label_faults: LabelFaults = no_label_faults
    adopts: bool = False

    @property
    def model_fields(self) -> tuple[str, ...]:
        """The fields of the section `model` that are the objective's, without the section's name."""
        return tuple(name.removeprefix("model.") for name in self.fields if name.startswith("model."))


@dataclass(frozen=True)
class Family:
    """What one publication brings: models and objectives by name, further encoders that an export may hold, and the
    names of the tables that translate the weights of its reference implementation, one for each encoder that has one.
    """

    models: Mapping[str, Model] = field(default_factory=dict)
    objectives: Mapping[str, Training] = field(default_factory=dict)
    encoders: Mapping[str, str] = field(default_factory=dict)
    references: tuple[str, ...] = ()


def load(name: str) -> Any:
    """Return what `package.module:name` names, importing its module."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
