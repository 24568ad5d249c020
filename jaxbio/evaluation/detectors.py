"""Detectors in an evaluation: what they answer by their own temperature and threshold, and the encoder within.

said = answer_all(detectors, segments, "vt_alarm", cache=None)
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.evaluation import comparison, embedding_cache
from jaxbio.evaluation.tasks import PREFIX, Segments
from jaxbio.export import folder as folders
from jaxbio.export.detector import Detector
from jaxbio.export.pretrained import Pretrained


def encoder_within(detector: Pretrained) -> Pretrained:
    """Return the encoder of a detector as a model of its own, which sees what the detector does."""
    whole, own = detector.card, detector.card.encoder_fields["encoder"]
    variables = {kind: tree["encoder"] for kind, tree in detector.variables.items() if "encoder" in tree}
    card = dataclasses.replace(whole, encoder=own["encoder"], encoder_fields=own["fields"], which="encoder")
    module = folders.make_encoder(card)
    x_BCT = jax.ShapeDtypeStruct((1, *card.inputs.shape), np.float32)
    _, tokens, width = jax.eval_shape(module.apply, variables, x_BCT).shape
    card = dataclasses.replace(
        card,
        width=width,
        token_s=card.inputs.samples / tokens / card.rate_hz,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
    )
    return Pretrained(card, module, variables)


def answer_all(
    detectors: Sequence[Pretrained], segments: Segments, task: str, *, cache: Path | None
) -> list[np.ndarray]:
    """Return what each detector says of the segments, (B, K): numbers, or probabilities in the order of the segments'
    classes and, last, the code of the class that it decides for by its threshold.

    A channel that a segment lacks is zeros, and segments that `predict` would call "no signal" are answered as all
    others. Raises UserError for a detector of another question.
    """
    found = []
    for model in detectors:
        assert model.detector is not None
        order = _order_of_classes(model.detector, segments.classes, task)
        said_BK = embedding_cache.embed_cached(model, segments.x_BCT, cache, comparison.embed_segments)
        comparison.check_features(comparison.DETECTOR, said_BK)
        if segments.classes:
            code_B = np.argsort(order)[model.detector.decide_codes(said_BK)]
            said_BK = np.column_stack([said_BK[:, order], code_B])
        found.append(said_BK)
    return found


def _order_of_classes(detector: Detector, classes: Sequence[str], task: str) -> list[int]:
    """Return which of the detector's classes each of the task's is: by name, or of the very label by code.

    Raises UserError where the detector answers another question.
    """
    asked = task.removeprefix(PREFIX)
    if detector.answer == "classes" and classes and sorted(detector.classes) == sorted(classes):
        return [detector.classes.index(name) for name in classes]
    answers = "classes" if classes else "numbers"
    if detector.answer == answers and detector.label == asked and len(detector.classes) == len(classes):
        return list(range(len(classes)))
    said = f"{detector.label}: {', '.join(detector.classes) or detector.answer}"
    remedy = f"this detector answers another question than {task} ({', '.join(classes) or 'numbers'}): evaluate the "
    remedy += "encoder within it, which tools/export_params.py --which encoder exports"
    raise UserError(Fault("--task", said, remedy))
