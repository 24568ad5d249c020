"""What a configuration field is: a value with its kind, unit and reason, and whether it belongs to the science.

"train.batch": science(512, "pairs a step over all devices (QualityFM: 512)", low=1)
"""

from dataclasses import dataclass
from types import UnionType
from typing import Any, get_args

SCIENCE, MACHINE = "science", "machine"


@dataclass(frozen=True)
class Field:
    """One field: its default, the kind of its value, the reason it exists (with unit), and its tag.

    `kind` is one of int, float, str, bool, tuple (of anything), or a union of them; `optional` admits None; `choices`
    and the closed interval `low`..`high` bound the value.
    """

    default: Any
    kind: type | UnionType
    reason: str
    tag: str = SCIENCE
    optional: bool = False
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    @property
    def kinds(self) -> tuple[type, ...]:
        """The kinds that a value may be of: one, or those of the union."""
        return get_args(self.kind) or (self.kind,)

    @property
    def kind_name(self) -> str:
        """The kinds in words."""
        return " or ".join(kind.__name__ for kind in self.kinds)


def science(default: Any, reason: str, kind: type | UnionType | None = None, **bounds: Any) -> Field:
    """Return a field that decides what is learnt: it may not change when a run resumes."""
    return Field(default, kind or type(default), reason, SCIENCE, **bounds)


def machine(default: Any, reason: str, kind: type | UnionType | None = None, **bounds: Any) -> Field:
    """Return a field that decides where and how fast: it may change when a run resumes."""
    return Field(default, kind or type(default), reason, MACHINE, **bounds)
