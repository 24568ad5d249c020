"""Terms that keep the features of a batch apart, whatever else a loss asks of them.

koleo(feature_BD), variance_hinge(feature_BD, least=0.1)
"""

import jax
import jax.numpy as jnp

_EPSILON = 1e-6


def koleo(feature_BD: jax.Array, there_B: jax.Array | None = None) -> jax.Array:
    """Return - mean log of the distance to the nearest other row, of centred rows on the unit sphere.

    Kozachenko and Leonenko's estimate of (minus) the entropy, as Sablayrolles et al. 2019 and DINOv2 use it; without
    taking the mean out first, features that share one large direction would all count as neighbours. Rows that are not
    `there_B` (None: all are) count nowhere.
    """
    centred_BD = feature_BD - _mean(feature_BD, there_B)
    unit_BD = centred_BD / (jnp.linalg.norm(centred_BD, axis=-1, keepdims=True) + _EPSILON)
    cosine_BB = unit_BD @ unit_BD.T - 2 * jnp.eye(len(unit_BD))
    if there_B is not None:
        cosine_BB = jnp.where(there_B[None, :], cosine_BB, -1.0)
    distance_B = jnp.sqrt(jnp.maximum(2 - 2 * cosine_BB.max(-1), _EPSILON))
    return -_mean(jnp.log(distance_B)[:, None], there_B)[0, 0]


def variance_hinge(feature_BD: jax.Array, least: float, there_B: jax.Array | None = None) -> jax.Array:
    """Return how far, as a share of `least`, the features' deviation over the batch falls below it (VICReg, Bardes
    et al. 2022, equation 1, with the hinge at `least`).
    """
    variance_1D = _mean(jnp.square(feature_BD - _mean(feature_BD, there_B)), there_B)
    return jax.nn.relu(1 - jnp.sqrt(variance_1D + _EPSILON) / least).mean()


def _mean(value_BX: jax.Array, there_B: jax.Array | None) -> jax.Array:
    """Return the mean over the rows that are there, (1, X)."""
    if there_B is None:
        return value_BX.mean(0, keepdims=True)
    return jnp.where(there_B[:, None], value_BX, 0.0).sum(0, keepdims=True) / there_B.sum()
