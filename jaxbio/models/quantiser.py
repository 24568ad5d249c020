"""A codebook and how it moves: nearest code, straight-through value, moving averages, k-means, revival of dead codes.

Pure functions of arrays; no module, no parameter, no gradient for the codes. An objective keeps a `Codebook` in its
state: its loss looks codes up and hands `Members`, which are means over the batch, to its `update`, which moves the
codebook once a step. Vectors of a codebook on the unit sphere are normalised by the caller, with `unit`.

    code_N = nearest(z_NZ, book.code_KZ)
    quantised_NZ = straight_through(z_NZ, book.code_KZ[code_N])
    found = members(z_NZ, code_N, codes)
    book = move_on_sphere(book, found, decay=0.99)    # SIGMA-PPG
    book, sum_KZ = move_by_sums(book, sum_KZ, found, decay=0.99, epsilon=1e-5)    # VQ-VAE
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_FULL = jax.lax.Precision.HIGHEST  # coarser products, an accelerator's default, change which code is the nearest


class Codebook(NamedTuple):
    """Codes (K, Z), and the moving share of all vectors that each of them is the nearest to, (K,); float32.

    A share times the vectors of a step is the count that reference implementations keep; it depends on no batch size.
    """

    code_KZ: jax.Array
    use_K: jax.Array


class Members(NamedTuple):
    """What a batch says of each code: the share of its vectors that chose it, and their sum over the number of all.

    Both are means over the vectors, so that those of microbatches may be averaged.
    """

    share_K: jax.Array
    sum_KZ: jax.Array


def unit(x_NZ: jax.Array) -> jax.Array:
    """Return vectors (..., Z) divided by max(their length, 1e-12), PyTorch's rule."""
    length_N1 = jnp.sqrt(jnp.square(x_NZ).sum(-1, keepdims=True))
    return x_NZ / jnp.maximum(length_N1, 1e-12)


def nearest(x_NZ: jax.Array, code_KZ: jax.Array) -> jax.Array:
    """Return the code of least squared distance to each vector, the first of equals: int32 (N,)."""
    closeness_NK = jnp.matmul(x_NZ, code_KZ.T, precision=_FULL) - 0.5 * jnp.square(code_KZ).sum(-1)[None, :]
    return jnp.argmax(closeness_NK, axis=-1).astype(jnp.int32)


def straight_through(x_NZ: jax.Array, quantised_NZ: jax.Array) -> jax.Array:
    """Return the value of `quantised_NZ` with the gradient of `x_NZ` (van den Oord et al. 2017)."""
    return x_NZ + jax.lax.stop_gradient(quantised_NZ - x_NZ)


def attraction(x_NZ: jax.Array, fixed_NZ: jax.Array) -> jax.Array:
    """Return the mean square, over all elements, of what parts `x_NZ` from `fixed_NZ`, which gets no gradient.

    The commitment loss of vectors to their codes; with the two exchanged, the codebook loss of codes that are learnt by
    gradient.
    """
    return jnp.square(x_NZ - jax.lax.stop_gradient(fixed_NZ)).mean()


def members(x_NZ: jax.Array, code_N: jax.Array, codes: int) -> Members:
    """Return the members of each of `codes` codes among vectors whose codes are `code_N`; no gradient passes."""
    chosen_NK = jax.nn.one_hot(code_N, codes)
    sum_KZ = jnp.matmul(chosen_NK.T, jax.lax.stop_gradient(x_NZ), precision=_FULL)
    return Members(chosen_NK.mean(axis=0), sum_KZ / len(code_N))


def move_on_sphere(book: Codebook, found: Members, decay: float) -> Codebook:
    """Return the codebook after a step: code = unit(decay code + (1 - decay) unit(mean of its members)).

    The codes are of unit length and stay so; one without members stays where it is (SIGMA-PPG's published code).
    """
    moved_KZ = unit(decay * book.code_KZ + (1 - decay) * unit(found.sum_KZ))  # the unit of a sum is that of the mean
    code_KZ = jnp.where(found.share_K[:, None] > 0, moved_KZ, book.code_KZ)
    return Codebook(code_KZ, decay * book.use_K + (1 - decay) * found.share_K)


def move_by_sums(
    book: Codebook, sum_KZ: jax.Array, found: Members, decay: float, epsilon: float
) -> tuple[Codebook, jax.Array]:
    """Return the codebook and the moving sums after a step: code = moving sum of members / moving share of them.

    Both start from shares 1 / K and sums code / K. Shares are smoothed, and kept smoothed: (use + epsilon) / (sum of
    use + K epsilon) x sum of use, so that a code without members is not divided by 0; `epsilon` is in shares, the
    reference's 1e-5 counts over the vectors of a step (VQ-VAE: van den Oord et al. 2017, appendix A.1).
    """
    use_K = decay * book.use_K + (1 - decay) * found.share_K
    total = use_K.sum()
    use_K = (use_K + epsilon) / (total + len(use_K) * epsilon) * total
    sum_KZ = decay * sum_KZ + (1 - decay) * found.sum_KZ
    return Codebook(sum_KZ / use_K[:, None], use_K), sum_KZ


def draw_rows(key: jax.Array, x_NZ: jax.Array, count: int) -> jax.Array:
    """Return `count` of the vectors at random: distinct ones, or with repetition where there are fewer."""
    row_N = jax.random.choice(key, len(x_NZ), (count,), replace=count > len(x_NZ))
    return x_NZ[row_N]


def kmeans(x_NZ: jax.Array, start_KZ: jax.Array, rounds: int, *, on_sphere: bool) -> Codebook:
    """Return the centres of `rounds` rounds (1 or more) of k-means from `start_KZ`, and each one's share in the last.

    A centre without members stays. `on_sphere`: vectors and centres are of unit length, and the mean of members is
    normalised (cosine k-means).
    """

    def one_round(centre_KZ: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        share_K, sum_KZ = members(x_NZ, nearest(x_NZ, centre_KZ), len(centre_KZ))
        mean_KZ = sum_KZ / jnp.where(share_K > 0, share_K, 1.0)[:, None]
        mean_KZ = unit(mean_KZ) if on_sphere else mean_KZ
        return jnp.where(share_K[:, None] > 0, mean_KZ, centre_KZ), share_K

    centre_KZ, share_RK = jax.lax.scan(one_round, start_KZ, None, rounds)
    return Codebook(centre_KZ, share_RK[-1])


def revive(key: jax.Array, book: Codebook, pool_NZ: jax.Array, below: float) -> tuple[Codebook, jax.Array]:
    """Return the codebook with its dead codes in new places, and which were dead, bool (K,).

    Dead is a code whose moving share is less than `below` of uniform use, 1 / K; it starts again from one of the
    vectors `pool_NZ` as if it were used uniformly. Moving sums, where they are kept, start again as code x share.
    """
    codes = len(book.use_K)
    dead_K = book.use_K * codes < below
    fresh_KZ = draw_rows(key, pool_NZ, codes)
    code_KZ = jnp.where(dead_K[:, None], fresh_KZ, book.code_KZ)
    return Codebook(code_KZ, jnp.where(dead_K, 1.0 / codes, book.use_K)), dead_K


def steps_to_revival(decay: float, below: float) -> float:
    """Return after how many steps a code of uniform use that nothing chooses is dead; 0 where none ever is."""
    return math.log(below) / math.log(decay) if 0 < decay < 1 and below > 0 else 0.0


def use(share_K: jax.Array) -> dict[str, jax.Array]:
    """Return what the metrics of every codebook are, of the shares (K,) of vectors that chose each code."""
    return {"code_perplexity": perplexity(share_K), "unused_codes": (share_K == 0).mean()}


def measure_use(code: np.ndarray, codes: int) -> dict[str, float]:
    """Return the same of all the codes that were chosen in an evaluation, of any shape."""
    share_K = np.bincount(code.ravel(), minlength=codes) / code.size
    return {name: float(value) for name, value in use(jnp.asarray(share_K)).items()}


def perplexity(share_K: jax.Array) -> jax.Array:
    """Return exp of the entropy of shares (..., K): how many codes, used alike, would be as various."""
    return jnp.exp(jax.scipy.special.entr(share_K).sum(-1))
