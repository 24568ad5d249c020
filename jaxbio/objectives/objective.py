"""What an objective is: a few pure functions, in the manner of an Optax transformation.

The trainer knows nothing of teachers, codebooks or masks; it carries `state` and calls these functions.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

Tree = Any  # nested dictionaries of arrays
Batch = Mapping[str, jax.Array]
Metrics = Mapping[str, jax.Array]


class Aux(NamedTuple):
    """What a loss hands to `update`.

    means: means over the batch (a centre, batch statistics); those of microbatches are averaged.
    samples: arrays that lead with rows of the batch, such as features to start a dead code anew from; those of
        microbatches are put together in the order of the batch. An objective that hands over every row sees the same
        samples whatever the number of microbatches.
    """

    means: Tree
    samples: Tree = ()


@dataclass(frozen=True)
class Network:
    """A network from an export that an objective uses and does not train: `module.apply(variables, x_BCT)`.

    `card` is what the export says of it, by field. `variables` are arrays, or only their shapes where nothing is
    computed: in a plan, and on resume, where the checkpoint has the arrays.
    """

    module: nn.Module
    card: Mapping[str, Any]
    variables: Tree

    def without_weights(self) -> "Network":
        """Return the network with no variables: what an objective may close over."""
        return dataclasses.replace(self, variables=None)


@dataclass(frozen=True)
class Objective:
    """The pure functions of a pretraining objective.

    init(key, batch, frozen) -> params, state: `batch` is the global batch of step 0 (a codebook may start from it),
        `frozen` the variables of the networks by name, which belong into `state`.
    loss(params, state, batch, keys, progress, train) -> loss, (aux, metrics): `keys` has "augment" (of the step) and
        "dropout" (of the step and microbatch); `progress` is step / steps; metrics are means over the batch, so that
        microbatches do not change them; outside training there may be others, of the batch as a whole, and arrays:
        means over the batch that `conclude` needs. One named "still", the share of segments in which nothing moves
        (`single_segments.share_still`), is told where an update is refused.
    update(params, state, aux, key, progress) -> state, metrics: once a step, after the optimiser; `key` is the step's.
    encoders: name -> (module, variables(params, state)), the first the default; module.apply(variables, x_BCT).
    windows: name -> samples, of an encoder that sees windows of a segment, one at a time.
    judged: term -> (what the best constant prediction gives, the least possible): names of metrics that a term can be
        judged by; an evaluation adds `<term>_explained`, the share of the way from the one to the other, and
        `<term>_explainable`, its length: a teacher's targets may become all the same. Not where `targets_given` says
        that they come with the segments, as labels and spectra do, and so cannot.
    frozen: name -> shapes of the variables that `init` wants; `make_objective` fills it in.
    coupled: the loss of a pair depends on the others of its batch, so that accumulation would change it.
    show(params, state, batch) -> what a report draws of some held-out rows, or None: "segment" x_BMCT float32,
        prepared, not augmented, and curves by name, each (target, output), such as "amplitude": two arrays (B, C, S).
        Where there are any, "curve_samples": samples of which the curves are the spectra, not the whole segment;
        "maps" by name, (B, A) between 0 and 1, over the patches of the segments; "waveforms" by name, each {"number_N",
        "share_N", "mean_NT"}: mean waveforms of numbers that patches have, and how many have them.
    outputs(params, state, batch) -> arrays by name that lead with the rows of the batch, or None; an evaluation gathers
        them over all its batches and calls
    measure(outputs) -> metrics by name, in NumPy: what is no mean over batches, such as perplexity or an AUROC.
    conclude(means) -> metrics by name, in NumPy: what follows of the arrays among the metrics, their means over all
        held-out batches, and is no mean itself, such as the entropy of the mean target; None where there are none.
    place(name, params, state, variables) -> params, state: with the variables of encoder `name` in their places; None
        where `encoders` hand them out as they lie there, so that the places are found from that.
    rate_scale(params) -> what the learning rate of each parameter is multiplied by, in their shape, floats or arrays
        that broadcast; None: 1 for all.
    """

    init: Callable[[jax.Array, Batch, Mapping[str, Tree]], tuple[Tree, Tree]]
    loss: Callable[[Tree, Tree, Batch, Mapping[str, jax.Array], jax.Array, bool], tuple[jax.Array, tuple[Aux, Metrics]]]
    update: Callable[[Tree, Tree, Aux, jax.Array, jax.Array], tuple[Tree, Metrics]]
    encoders: Mapping[str, tuple[nn.Module, Callable[[Tree, Tree], Tree]]]
    frozen: Mapping[str, Tree] = field(default_factory=dict)
    targets_given: bool = False
    coupled: bool = False
    windows: Mapping[str, int] = field(default_factory=dict)
    judged: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    show: Callable[[Tree, Tree, Batch], dict[str, Any]] | None = None
    outputs: Callable[[Tree, Tree, Batch], Mapping[str, jax.Array]] | None = None
    measure: Callable[[Mapping[str, np.ndarray]], Mapping[str, float]] | None = None
    conclude: Callable[[Mapping[str, np.ndarray]], Mapping[str, float]] | None = None
    place: Callable[[str, Tree, Tree, Tree], tuple[Tree, Tree]] | None = None
    rate_scale: Callable[[Tree], Tree] | None = None
