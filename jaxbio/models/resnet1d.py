"""The 1-D residual network of SiamQuality (arXiv 2404.17667; docs/references.md).

A stem of 80 taps with stride 4 and no pooling, four stages of basic or bottleneck blocks, the mean over time; the
output is one token. Layers are named as in the reference, so that its weights map one to one.

    ResNet1D(depth=50).apply(variables, x_BCT) -> tok_BLD, L = 1
"""

import flax.linen as nn
import jax.numpy as jnp

from jaxbio.models.batch_norm import BatchNorm
from jaxbio.models.convolution import convolve

# depth -> block, blocks a stage (He et al. 2016, table 1)
DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
STEM_WIDTH, STEM_TAPS, STEM_STRIDE = 48, 80, 4


class Convolution(nn.Module):
    """A 1-D convolution over (B, T, C) -> (B, outputs, width), in `dtype`."""

    width: int
    taps: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_BTC):
        kernel_shape = (self.taps, x_BTC.shape[-1], self.width)
        # Kaiming normal over the outputs, as the reference initialises
        kernel_WCD = self.param("kernel", nn.initializers.variance_scaling(2.0, "fan_out", "normal"), kernel_shape)
        x_BTC, kernel_WCD = x_BTC.astype(self.dtype), kernel_WCD.astype(self.dtype)
        x_BTD = convolve(x_BTC, kernel_WCD, self.stride, self.padding)
        if self.use_bias:
            bias_D = self.param("bias", nn.initializers.zeros, (self.width,))
            x_BTD = x_BTD + bias_D.astype(self.dtype).reshape(1, 1, -1)
        return x_BTD


class BasicBlock(nn.Module):
    """Two convolutions of three taps and a shortcut; the stride is on the first."""

    width: int
    stride: int
    dtype: str

    @nn.compact
    def __call__(self, x_BTC, train: bool):
        conv = _convolutions(self.dtype)
        y_BTD = nn.relu(BatchNorm(name="bn1")(conv(self.width, 3, self.stride, 1, name="conv1")(x_BTC), train))
        y_BTD = BatchNorm(name="bn2")(conv(self.width, 3, 1, 1, name="conv2")(y_BTD), train)
        return nn.relu(y_BTD + _shortcut(conv, x_BTC, self.width, self.stride, train))


class BottleneckBlock(nn.Module):
    """Convolutions of one, three and one taps and a shortcut; the stride is on the middle one."""

    width: int
    stride: int
    dtype: str

    @nn.compact
    def __call__(self, x_BTC, train: bool):
        conv, width = _convolutions(self.dtype), self.width
        y_BTD = nn.relu(BatchNorm(name="bn1")(conv(width, 1, name="conv1")(x_BTC), train))
        y_BTD = nn.relu(BatchNorm(name="bn2")(conv(width, 3, self.stride, 1, name="conv2")(y_BTD), train))
        y_BTD = BatchNorm(name="bn3")(conv(4 * width, 1, name="conv3")(y_BTD), train)
        return nn.relu(y_BTD + _shortcut(conv, x_BTC, 4 * width, self.stride, train))


class ResNet1D(nn.Module):
    """The encoder: x_BCT float -> tok_BLD float32 with L = 1, the mean over time of the last stage.

    `depth` chooses the kind of block and how many a stage has (18, 34, 50, 101, 152); `blocks` says other numbers. In
    training it normalises by the batch and reports its moments (see `batch_norm`).
    """

    depth: int = 50
    blocks: tuple[int, ...] = ()
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_BCT, train: bool = False):
        x_BTC = jnp.swapaxes(x_BCT, 1, 2)
        stem = _convolutions(self.dtype)(STEM_WIDTH, STEM_TAPS, STEM_STRIDE, use_bias=True, name="conv0")
        x_BTC = nn.relu(BatchNorm(name="bn1")(stem(x_BTC), train))
        self.sow("intermediates", "stem_BLD", x_BTC)
        kind, blocks = DEPTHS[self.depth]
        block = {"basic": BasicBlock, "bottleneck": BottleneckBlock}[kind]
        for stage, count in enumerate(self.blocks or blocks):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                x_BTC = block(STEM_WIDTH * 2**stage, stride, self.dtype, name=f"stage{stage}_{index}")(x_BTC, train)
            self.sow("intermediates", f"stage{stage}_BLD", x_BTC)
        return jnp.mean(x_BTC.astype(jnp.float32), axis=1, keepdims=True)


def _convolutions(dtype: str):
    def make(width: int, taps: int, stride: int = 1, padding: int = 0, use_bias: bool = False, *, name: str):
        return Convolution(width, taps, stride, padding, use_bias, dtype, name=name)

    return make


def _shortcut(conv, x_BTC, width: int, stride: int, train: bool):
    """Return the block's input, projected where the block changes its shape."""
    if stride == 1 and x_BTC.shape[-1] == width:
        return x_BTC
    return BatchNorm(name="shortcut_bn")(conv(width, 1, stride, name="shortcut")(x_BTC), train)
