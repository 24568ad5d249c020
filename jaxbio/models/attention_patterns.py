"""What a token attends to: functions of queries, keys and values that a pre-norm block takes as `attend`.

y_BLHK = attend_all(q_BLHK, k_BLHK, v_BLHK, seen_BL)                         # tokens in a row
y_BCNHK = attend_cross(q_BCNHK, k_BCNHK, v_BCNHK, (time_BN, lead_BC))        # tokens on a grid of leads and times
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Drop = Callable[[jax.Array], jax.Array]


def attend_all(
    q_BLHK: jax.Array,
    k_BLHK: jax.Array,
    v_BLHK: jax.Array,
    seen_BL: jax.Array | None,
    drop: Drop = lambda weight: weight,
) -> jax.Array:
    """Return what each token makes of all tokens; of those with `seen_BL`, where it is given, and one is seen.

    The softmax is float32; `drop` is applied to its weights.
    """
    q_BHLK, k_BHLK, v_BHLK = (array.swapaxes(1, 2) for array in (q_BLHK, k_BLHK, v_BLHK))
    logit_BHLL = jnp.einsum("bhlk,bhmk->bhlm", _scaled(q_BHLK), k_BHLK, preferred_element_type=jnp.float32)
    if seen_BL is not None:
        seen_BL = seen_BL | ~seen_BL.any(-1, keepdims=True)  # a row without any token stays finite
        logit_BHLL = jnp.where(seen_BL[:, None, None, :], logit_BHLL, -jnp.inf)
    weight_BHLL = drop(jax.nn.softmax(logit_BHLL).astype(v_BHLK.dtype))
    return jnp.einsum("bhlm,bhmk->bhlk", weight_BHLL, v_BHLK).swapaxes(1, 2)


def attend_cross(
    q_BCNHK: jax.Array,
    k_BCNHK: jax.Array,
    v_BCNHK: jax.Array,
    seen: tuple[jax.Array | None, jax.Array],
    drop: Drop = lambda weight: weight,
) -> jax.Array:
    """Return what each token makes of those of its own lead and of its own time: N + C - 1 keys of the N x C.

    `seen` are (time_BN, lead_BC), bool: columns and leads that are there (time_BN None: all). A token always sees
    itself, so that one of an absent lead stays finite. Equal to dense attention under the mask "same lead or same time"
    (ECG-JEPA's published code): two small dense attentions, over times and over leads, with one softmax between
    them, to whose weights `drop` is applied. The token itself, which both hold, counts in the first.
    """
    time_BN, lead_BC = seen
    times, leads = q_BCNHK.shape[2], q_BCNHK.shape[1]
    q_BCHNK, k_BCHNK, v_BCHNK = (a.transpose(0, 1, 3, 2, 4) for a in (_scaled(q_BCNHK), k_BCNHK, v_BCNHK))
    q_BNHCK, k_BNHCK, v_BNHCK = (a.transpose(0, 2, 3, 1, 4) for a in (_scaled(q_BCNHK), k_BCNHK, v_BCNHK))
    own_lead_BCHNM = jnp.einsum("bchnk,bchmk->bchnm", q_BCHNK, k_BCHNK, preferred_element_type=jnp.float32)
    own_time_BNHCE = jnp.einsum("bnhck,bnhek->bnhce", q_BNHCK, k_BNHCK, preferred_element_type=jnp.float32)
    if time_BN is not None:
        own_BNM = time_BN[:, None, :] | jnp.eye(times, dtype=bool)[None]
        own_lead_BCHNM = jnp.where(own_BNM[:, None, None], own_lead_BCHNM, -jnp.inf)
    others_BCE = lead_BC[:, None, :] & ~jnp.eye(leads, dtype=bool)[None]
    own_time_BNHCE = jnp.where(others_BCE[:, None, None], own_time_BNHCE, -jnp.inf)
    top_BCHN = jnp.maximum(own_lead_BCHNM.max(-1), own_time_BNHCE.max(-1).transpose(0, 3, 2, 1))
    top_BCHN = jax.lax.stop_gradient(top_BCHN)
    weight_BCHNM = jnp.exp(own_lead_BCHNM - top_BCHN[..., None])
    weight_BNHCE = jnp.exp(own_time_BNHCE - top_BCHN.transpose(0, 3, 2, 1)[..., None])
    total_BCHN = weight_BCHNM.sum(-1) + weight_BNHCE.sum(-1).transpose(0, 3, 2, 1)
    lead_BCHNK = jnp.einsum("bchnm,bchmk->bchnk", drop(weight_BCHNM.astype(v_BCNHK.dtype)), v_BCHNK)
    time_BNHCK = jnp.einsum("bnhce,bnhek->bnhck", drop(weight_BNHCE.astype(v_BCNHK.dtype)), v_BNHCK)
    sum_BCNHK = lead_BCHNK.transpose(0, 1, 3, 2, 4) + time_BNHCK.transpose(0, 3, 1, 2, 4)
    # divided last: of what is summed there is less than of weights
    return (sum_BCNHK / total_BCHN.transpose(0, 1, 3, 2)[..., None]).astype(v_BCNHK.dtype)


def _scaled(q: jax.Array) -> jax.Array:
    return q * q.shape[-1] ** -0.5
