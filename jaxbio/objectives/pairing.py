"""Which segments of a batch form pairs, for every objective on pairs: each row one, or those that neighbourhoods name.

An objective computes what it needs of each better and each worse segment, then compares them pair by pair:

    pairing = Pairing.of(batch)
    better_BCT, worse_BCT = pairing.members(x_BMCT)
    z_better_BD, z_worse_BD = teacher.apply(variables, better_BCT), student.apply(variables, worse_BCT)
    difference_PD = pairing.better(z_better_BD) - pairing.worse(z_worse_BD)
    loss = pairing.mean((difference_PD**2).sum(-1))     # over pairs

In a batch of neighbourhoods (`jaxbio/data/neighbourhoods.py`) a segment is in several pairs and encoded once. The
weights of its pairs are such that the loss of pairs drawn one by one has the same expectation.
"""

from dataclasses import dataclass
from typing import Self

import jax
import jax.numpy as jnp

from jaxbio.objectives.objective import Batch
from jaxbio.transforms.per_row import per_row


@dataclass(frozen=True)
class Pairing:
    """The pairs of a batch; all None where each row of the batch is a pair.

    `pair_UP2` are places among the better and the worse segments of a neighbourhood, `weight_UP` what a pair counts (0:
    none), `better_UG` and `worse_UH` which places hold a segment of their own.
    """

    pair_UP2: jax.Array | None = None
    weight_UP: jax.Array | None = None
    better_UG: jax.Array | None = None
    worse_UH: jax.Array | None = None

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Return the pairs of `batch`."""
        names = ("pair_UP2", "weight_UP", "better_UG", "worse_UH")
        return cls(*(batch.get(name) for name in names))

    def members(self, x_BMX: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the better and the worse segments of rows (B, M, ...), by neighbourhood."""
        if self.better_UG is None or self.worse_UH is None:
            return x_BMX[:, 0], x_BMX[:, 1]
        units, better = self.better_UG.shape
        x_USX = x_BMX[:, 0].reshape(units, better + self.worse_UH.shape[1], *x_BMX.shape[2:])
        return tuple(part.reshape(-1, *x_BMX.shape[2:]) for part in (x_USX[:, :better], x_USX[:, better:]))  # type: ignore[return-value]

    def better(self, x_BX: jax.Array) -> jax.Array:
        """Return of each pair what `x_BX` has of its better segment."""
        return self._take(x_BX, 0)

    def worse(self, x_BX: jax.Array) -> jax.Array:
        """Return of each pair what `x_BX` has of its worse segment."""
        return self._take(x_BX, 1)

    @property
    def worse_B(self) -> jax.Array | None:
        """Which of the worse segments are there, bool; None: all."""
        return None if self.worse_UH is None else self.worse_UH.reshape(-1)

    def mean(self, value_PX: jax.Array) -> jax.Array:
        """Return the mean of values by pair (pairs, ...), a term of the loss: in expectation that of sampled pairs."""
        if self.weight_UP is None:
            return value_PX.mean()
        return (self.weight_UP.reshape(-1) * value_PX.reshape(self.weight_UP.size, -1).mean(-1)).sum()

    def centre(self, value_PX: jax.Array) -> jax.Array:
        """Return the mean over the pairs of this very batch, (1, ...)."""
        if self.weight_UP is None:
            return value_PX.mean(0, keepdims=True)
        share_P = self.weight_UP.reshape(-1) / self.weight_UP.sum()
        return jnp.tensordot(share_P, value_PX, axes=1)[None]

    def _take(self, x_BX: jax.Array, member: int) -> jax.Array:
        if self.pair_UP2 is None:
            return x_BX
        x_USX = x_BX.reshape(len(self.pair_UP2), -1, *x_BX.shape[1:])
        take = per_row(jax.vmap(lambda x_SX, place_P: x_SX[place_P]))
        return take(x_USX, self.pair_UP2[..., member]).reshape(-1, *x_BX.shape[1:])


ROWS = Pairing()
"""Each row of a batch is a pair."""
