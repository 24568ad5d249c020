"""What judged embeddings mean, in words: what is read of the classes, and whether the encoder's training is why.

said = tell_encoder(judged, "runs/a/export", "random_initialisation of runs/a/export", label="superclass", share=1.0)
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxbio.evaluation import verdict
from jaxbio.evaluation.judging import NEIGHBOURS, READ, Judged, name_measure

# Who reads the features, and what of it: the first neighbours' macro F1 and the probe's balanced accuracy.
_ASKED = (
    (f"{NEIGHBOURS[0]} nearest neighbours", f"knn{NEIGHBOURS[0]}", "f1_macro"),
    ("a linear probe", "linear", "balanced_accuracy"),
)


class Said(NamedTuple):
    """A verdict in words; for each measure asked about whether the encoder is better (1) or worse (-1) than its fresh
    networks, or neither is shown (0).
    """

    text: str
    beats: tuple[int, ...]


def tell_encoder(judged: Judged, encoder: str, fresh: str, *, label: str, share: float) -> Said:
    """Return what is read of `label` from an encoder and from its network at random initialisation, by name, with a
    `share` of the labels.
    """
    sentences, beats = [], []
    for reader, prefix, score in _ASKED:
        name, (_, measures) = name_measure(prefix, score, share), READ[prefix]
        found, seeds = judged.intervals[name], judged.seeds[name]
        value = verdict.tell_value(measures[score].name, found[encoder], seeds.get(encoder, ()))
        better, beside = verdict.tell_training(found[encoder], found[fresh], judged.gains[name][encoder], seeds[fresh])
        sentences += [f"By {reader} {label} is told with {value}.", beside]
        beats.append(better)
    return Said(" ".join(sentences), tuple(beats))


def tell_trust(said: Sequence[Said], *, subjects: int, unnamed: float, seen_known: bool) -> str:
    """Return how far to trust all that is said; the arguments are as in `verdict.judge`."""
    beats = [one for each in said for one in each.beats]
    trust = verdict.tell_trust(subjects, unnamed, seen_known, decided=all(beats))
    trust.append(f"{len(beats)} differences are asked about: of twenty that are none one is beyond 0 by chance alone.")
    return " ".join(trust)
