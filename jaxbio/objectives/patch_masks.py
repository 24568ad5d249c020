"""Which patches are hidden: at random, by a prior, or by logits that are learnt; and the likelihood of the choice.

All take uniform numbers and no key, so that whoever calls them says what a draw depends on. Source: SIGMA-PPG fact
sheet, section 6.

    chosen_BA = choose_by_logits(logit_BA, uniform_BA)[:, :hidden]        # patches by number, most wanted first
    hidden_BA = limit_runs(punch(as_mask(chosen_BA, patches), uniform_BA, 0.3), longest=5)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_PRIOR_TEMPERATURE = 0.8  # of sampling by the prior alone


class Uniforms(NamedTuple):
    """Uniform numbers in [0, 1), (B, A) each: behind the choice of patches, and behind their release."""

    choice_BA: jax.Array
    punch_BA: jax.Array


def draw_uniforms(key_B: jax.Array, patches: int) -> Uniforms:
    """Return the numbers of each row's key."""
    uniform_B2A = jax.vmap(lambda key: jax.random.uniform(key, (2, patches)))(key_B)
    return Uniforms(uniform_B2A[:, 0], uniform_B2A[:, 1])


def choose_by_logits(logit_BA: jax.Array, uniform_BA: jax.Array) -> jax.Array:
    """Return all patches in the order in which sampling without replacement by softmax of the logits draws them,
    int32 (B, A): by logit plus Gumbel noise, the largest first (Kool et al. 2019).
    """
    clipped_BA = jnp.clip(uniform_BA, 1e-10, 1 - 1e-10)
    return jnp.argsort(-(logit_BA - jnp.log(-jnp.log(clipped_BA))), axis=-1)


def choose_at_random(uniform_BA: jax.Array) -> jax.Array:
    """Return all patches in random order, the smallest number first: int32 (B, A)."""
    return jnp.argsort(uniform_BA, axis=-1)


def z_score(prior_BA: jax.Array) -> jax.Array:
    """Return the prior z-scored over each segment's patches, n - 1, 1e-6 added to the deviation."""
    mean_B1 = prior_BA.mean(axis=-1, keepdims=True)
    return (prior_BA - mean_B1) / (prior_BA.std(axis=-1, ddof=1, keepdims=True) + 1e-6)


def prior_logits(prior_BA: jax.Array) -> jax.Array:
    """Return logits by which patches are drawn where the prior alone decides."""
    return z_score(prior_BA) / _PRIOR_TEMPERATURE


def as_mask(chosen_BN: jax.Array, patches: int) -> jax.Array:
    """Return bool (B, A), True at the patches that are named."""
    return (chosen_BN[:, :, None] == jnp.arange(patches)[None, None]).any(axis=1)


def punch(hidden_BA: jax.Array, uniform_BA: jax.Array, probability: float) -> jax.Array:
    """Return the mask with each hidden patch released where its number is below `probability`."""
    return hidden_BA & (uniform_BA >= probability)


def limit_runs(hidden_BA: jax.Array, longest: int) -> jax.Array:
    """Return the mask with the patch after every `longest` in a row released."""
    place_1A = jnp.arange(1, hidden_BA.shape[1] + 1)[None]
    last_shown_BA = jax.lax.cummax(jnp.where(hidden_BA, 0, place_1A), axis=1)
    return hidden_BA & ((place_1A - last_shown_BA) % (longest + 1) != 0)


def log_likelihood(logit_BA: jax.Array, order_BA: jax.Array, chosen: int, kind: str) -> jax.Array:
    """Return the log likelihood (B,) of the first `chosen` patches of `order_BA` under the softmax of the logits.

    `independent`: the sum of log (probability + 1e-10) of each, as SIGMA-PPG's code has it. `plackett_luce`: exact for
    sampling without replacement in this order, each probability among the patches that were left.
    """
    if kind == "independent":
        logp_BA = jnp.log(jax.nn.softmax(logit_BA) + 1e-10)
        return jnp.take_along_axis(logp_BA, order_BA[:, :chosen], axis=-1).sum(-1)
    drawn_BA = jnp.take_along_axis(logit_BA, order_BA, axis=-1)
    left_BA = jax.lax.cumlogsumexp(drawn_BA, axis=1, reverse=True)
    return (drawn_BA - left_BA)[:, :chosen].sum(-1)


def entropy(logit: jax.Array) -> jax.Array:
    """Return the entropy of softmax over the last axis, nats; 1e-10 is added inside the logarithm."""
    probability = jax.nn.softmax(logit)
    return -(probability * jnp.log(probability + 1e-10)).sum(-1)
