"""Flax linen modules: no loss, no config object, plain arguments. `ENCODERS` is what `model.name` chooses from."""

from flax import linen as nn

from jaxbio.models.qualityfm import QualityFMEncoder

ENCODERS: dict[str, type[nn.Module]] = {"qualityfm": QualityFMEncoder}
