"""Self-distillation by softmax: what a teacher's features say of a segment, and how well a student foretells it.

The target is softmax((z_teacher - centre) / teacher temperature), the prediction softmax(z_student / student
temperature), compared by cross-entropy (DINO, Caron et al. 2021; QualityFM's published code). Beside the
cross-entropy stand the two numbers that it can be judged by: what the best prediction that is the same for every
segment would give, and the least there is, the entropy of the targets. The first is of all held-out segments
together: within a batch of few patients a constant would know who they are.

    distillation = Distillation(over="segment", ...)
    terms, mean_1LK = distillation.compare(z_teacher_BLK, z_student_BLK, centre_1LK, progress, train=False)
    conclude(means_over_batches_of_terms)     # {"distill_constant": ..., ...}
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxbio.objectives.pairing import ROWS, Pairing
from jaxbio.objectives.schedule import linear


@dataclass(frozen=True)
class Distillation:
    """How teacher and student are compared; the fields are those of the same names in jaxbio/config/families/.

    over: "segment", the mean over tokens; "token", each token with the one at its place.
    """

    over: str
    teacher_temperature: float
    teacher_temperature_start: float
    teacher_warmup_frac: float
    student_temperature: float
    centre_over: str
    centre_momentum: float

    def gather(self, tok_BLD: jax.Array) -> jax.Array:
        """Return what is compared of tokens (B, L, D): themselves, or their mean (B, 1, D)."""
        return tok_BLD if self.over == "token" else tok_BLD.mean(axis=1, keepdims=True)

    def compare(
        self,
        teacher_BLK: jax.Array,
        student_BLK: jax.Array,
        centre_1LK: jax.Array,
        progress: jax.Array,
        train: bool,
        pairing: Pairing = ROWS,
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """Return the terms, in nats a compared token, and the batch's mean of the teacher's features, for its centre.

        Features are those of `pairing`'s pairs, B of them, which it averages over.
        distill: the cross-entropy. teacher_entropy: that of the best prediction. student_entropy: how sharp the
        predictions are. Outside training also target_mean_LK and prediction_mean_LK, the mean distributions of each
        position, for `conclude`.
        """
        warm = linear(self.teacher_temperature_start, self.teacher_temperature, self.teacher_warmup_frac, progress)
        target_BLK = jax.nn.softmax((teacher_BLK - centre_1LK) / warm)
        log_prediction_BLK = jax.nn.log_softmax(student_BLK / self.student_temperature)
        prediction_BLK = jnp.exp(log_prediction_BLK)
        terms = {
            "distill": -pairing.mean((target_BLK * log_prediction_BLK).sum(-1)),
            "teacher_entropy": pairing.mean(jax.scipy.special.entr(target_BLK).sum(-1)),
            "student_entropy": pairing.mean(jax.scipy.special.entr(prediction_BLK).sum(-1)),
        }
        if not train:
            terms["target_mean_LK"] = target_BLK.mean(0)
            terms["prediction_mean_LK"] = prediction_BLK.mean(0)
        mean_1LK = pairing.centre(teacher_BLK)
        return terms, mean_1LK if self.centre_over == "position" else mean_1LK.mean(1, keepdims=True)

    def start_centre(self, z_1LK: jax.Array) -> jax.Array:
        """Return the centre of step 0, zeros in the shape that features like `z_1LK` have it."""
        axes = (0,) if self.centre_over == "position" else (0, 1)
        return jnp.zeros_like(z_1LK.mean(axes, keepdims=True))


def conclude(means: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return what follows of the mean distributions (L, K) over all held-out segments, in nats a compared token.

    distill_constant: the cross-entropy of the best prediction that does not look at the segment, which is the mean
    target of its position. distill_uniform: that of a prediction that says nothing, log K. student_mean_entropy: how
    sharp the mean prediction is.
    """
    target_LK, prediction_LK = means["target_mean_LK"], means["prediction_mean_LK"]
    return {
        "distill_constant": float(special.entr(target_LK).sum(-1).mean()),
        "distill_uniform": float(np.log(target_LK.shape[-1])),
        "student_mean_entropy": float(special.entr(prediction_LK).sum(-1).mean()),
    }
