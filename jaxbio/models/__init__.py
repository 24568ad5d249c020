"""Flax linen modules: no loss, no config object, plain arguments.

`ENCODERS` is every encoder that `model.name` chooses or an export holds, by its name in `config/families`.
"""

from collections.abc import Callable

from flax import linen as nn

from jaxbio.config import families

ENCODERS: dict[str, Callable[..., nn.Module]] = {name: families.load(path) for name, path in families.ENCODERS.items()}
