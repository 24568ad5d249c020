"""Terms that keep the features of a batch apart, whatever else a loss asks of them.

koleo(feature_BD), variance_hinge(feature_BD, least=0.1)
"""

import jax
import jax.numpy as jnp

_EPSILON = 1e-6


def koleo(feature_BD: jax.Array) -> jax.Array:
    """Return - mean log of the distance to the nearest other row, of centred rows on the unit sphere.

    Kozachenko and Leonenko's estimate of (minus) the entropy, as Sablayrolles et al. 2019 and DINOv2 use it; without
    taking the mean out first, features that share one large direction would all count as neighbours.
    """
    centred_BD = feature_BD - feature_BD.mean(0, keepdims=True)
    unit_BD = centred_BD / (jnp.linalg.norm(centred_BD, axis=-1, keepdims=True) + _EPSILON)
    cosine_BB = unit_BD @ unit_BD.T - 2 * jnp.eye(len(unit_BD))
    distance_B = jnp.sqrt(jnp.maximum(2 - 2 * cosine_BB.max(-1), _EPSILON))
    return -jnp.log(distance_B).mean()


def variance_hinge(feature_BD: jax.Array, least: float) -> jax.Array:
    """Return how far, as a share of `least`, the features' deviation over the batch falls below it (VICReg, Bardes
    et al. 2022, equation 1, with the hinge at `least`).
    """
    deviation_D = jnp.sqrt(feature_BD.var(0) + _EPSILON)
    return jax.nn.relu(1 - deviation_D / least).mean()
