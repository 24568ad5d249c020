"""What supervised learning makes smaller: the distance of answers from labels, each row by itself.

loss_B = class_loss(logit_BK, class_B, weights=(0.7, 1.9), focal=0.0, smoothing=0.1)
loss_B = number_loss(value_BT, label_BT, scale=20.0, huber=1.0)
"""

import jax
import jax.numpy as jnp


def class_loss(
    logit_BK: jax.Array, class_B: jax.Array, *, weights: tuple[float, ...], focal: float, smoothing: float
) -> jax.Array:
    """Return the cross-entropy of each row (B,), nats; `class_B` are codes, as whole numbers of any type.

    `weights` are one factor a class, () for none. `smoothing` is the share of the target that all classes have in
    common (Szegedy et al. 2016). `focal` is the power of 1 - p of the true class by which easy rows count less (Lin et
    al. 2017); 0 for none.
    """
    log_p_BK = jax.nn.log_softmax(logit_BK.astype(jnp.float32))
    hot_BK = jax.nn.one_hot(class_B.astype(jnp.int32), logit_BK.shape[-1])
    target_BK = (1 - smoothing) * hot_BK + smoothing / logit_BK.shape[-1]
    loss_B = -(target_BK * log_p_BK).sum(-1)
    if focal:
        # with a floor: the power of a difference that rounds to 0 has no gradient
        loss_B *= jnp.maximum(1 - jnp.exp((hot_BK * log_p_BK).sum(-1)), 1e-6) ** focal
    if weights:
        loss_B *= hot_BK @ jnp.asarray(weights, jnp.float32)
    return loss_B


def number_loss(value_BT: jax.Array, label_BT: jax.Array, *, scale: float, huber: float) -> jax.Array:
    """Return Huber's loss of each row (B,), the mean over its samples, of the error in units of `scale`: a half of its
    square up to `huber`, from there on a line.
    """
    error_BT = jnp.abs(value_BT - label_BT) / scale
    return jnp.where(error_BT <= huber, 0.5 * error_BT**2, huber * (error_BT - 0.5 * huber)).mean(-1)
