"""Learnt positions in time for as many tokens as a network was trained on, and what to do with fewer or more.

tok_BAD = TimeTable(tokens=120, width=200, kernel_init=init, name="time")(tok_BAD)
tok_BAD = in_parts(encode, x_BCT, tokens=120, patch=100)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.patch_embedding import count_patches


class TimeTable(nn.Module):
    """Adds a learnt row to each token, fewer tokens the first rows: stretching the table would move every trained
    place (SIGMA-PPG's published code).
    """

    tokens: int
    width: int
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, tok_BAD: jax.Array) -> jax.Array:
        """Return tokens (B, A, D) with their places. Raises UserError for more tokens than rows."""
        time_AD = self.param("time_table", self.kernel_init, (self.tokens, self.width))
        found = tok_BAD.shape[1]
        if found > self.tokens:
            raise UserError(Fault("model.tokens", self.tokens, f"at least the {found} tokens of a segment"))
        return tok_BAD + time_AD[None, :found].astype(tok_BAD.dtype)


def in_parts(encode: Callable[[jax.Array], jax.Array], x_BCT: jax.Array, tokens: int, patch: int) -> jax.Array:
    """Return the tokens of a signal, one longer than `tokens` patches read in parts of that length, one by one.

    Raises UserError where `patch` does not divide the signal: said of all of it, not of its last part.
    """
    count_patches(x_BCT.shape[-1], patch)
    longest = tokens * patch
    starts = range(0, x_BCT.shape[-1], longest)
    parts = [encode(x_BCT[..., start : start + longest]) for start in starts]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
