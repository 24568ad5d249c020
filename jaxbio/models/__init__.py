"""Flax linen modules: no loss, no config object, plain arguments. `ENCODERS` is what `model.name` chooses from."""

from flax import linen as nn

from jaxbio.models.qualityfm import QualityFMEncoder
from jaxbio.models.resnet1d import ProjectedResNet1D, ResNet1D

ENCODERS: dict[str, type[nn.Module]] = {
    "qualityfm": QualityFMEncoder,
    "resnet1d": ResNet1D,
    "resnet1d_projected": ProjectedResNet1D,
}
