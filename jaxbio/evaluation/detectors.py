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
from jaxbio.evaluation.tasks import PREFIX, Segments, Task, get_task, is_label, resample_course
from jaxbio.export import folder as folders
from jaxbio.export.detector import Detector
from jaxbio.export.pretrained import Pretrained


def encoder_within(detector: Pretrained) -> Pretrained:
    """Return the encoder of a detector as a model of its own, of segments as it sees them: where the detector cuts
    windows, as long as one of these.
    """
    whole, answering = detector.card, detector.card.encoder_fields
    own = answering["encoder"]
    variables = {kind: tree["encoder"] for kind, tree in detector.variables.items() if "encoder" in tree}
    length = answering["window"] or whole.length
    card = dataclasses.replace(
        whole, encoder=own["encoder"], encoder_fields=own["fields"], which="encoder", length=length
    )
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


def answer_segments(model: Pretrained, x_BCT: np.ndarray) -> np.ndarray:
    """Return what a detector's network says of segments in physical units at its rate, float32 (B, K), as `predict`."""
    return np.concatenate([model.answer_segments(**part).answer_BK for part in comparison.cut_parts(model, x_BCT)])


def answer_all(
    detectors: Sequence[Pretrained], segments: Segments, name: str, *, cache: Path | None
) -> list[np.ndarray]:
    """Return what each detector says of the segments of task `name`, (B, K): numbers; courses, at the rate of the
    task's; or probabilities in the order of the segments' classes and, last, the code of the class that it decides for
    by its threshold.

    A channel that holds no signal is zeros, as for `predict`, and segments that `predict` would call "no signal" are
    answered all the same. Raises UserError for a detector of another question.
    """
    task, found = get_task(name, segments.classes), []
    for model in detectors:
        assert model.detector is not None
        order = _order_of_classes(model.detector, task, name, segments.classes)
        said_BK = embedding_cache.embed_cached(model, segments.x_BCT, cache, answer_segments)
        comparison.check_features(comparison.DETECTOR, said_BK)
        if task.course_hz:
            said_BK = resample_course(said_BK, segments.label_BK.shape[1])
        elif segments.classes:
            code_B = np.argsort(order)[model.detector.decide_codes(said_BK)]
            said_BK = np.column_stack([said_BK[:, order], code_B])
        found.append(said_BK)
    return found


def _order_of_classes(detector: Detector, task: Task, name: str, classes: Sequence[str]) -> list[int]:
    """Return which of the detector's classes each of the task's is: by name, or of a label that asks the same by code.

    Names of classes alone tell the question of a task, but not that of any label: yes and no may be of everything.
    Raises UserError where the detector answers another question.
    """
    answers = "waveforms" if task.course_hz else "classes" if classes else "numbers"
    labels = (name.removeprefix(PREFIX),) if is_label(name) else (name, *task.labels)
    asks_the_same = detector.label in labels and len(task.targets) == 1
    if detector.answer == answers:
        if sorted(detector.classes) == sorted(classes) and (asks_the_same or (classes and not is_label(name))):
            return [detector.classes.index(known) for known in classes]
        if asks_the_same and len(detector.classes) == len(classes):
            return list(range(len(classes)))
    said = f"{detector.label}: {', '.join(detector.classes) or detector.answer}"
    asked = f"{' or '.join(labels)}: {', '.join(classes) or answers}"
    remedy = f"this detector answers another question than {name} ({asked}): evaluate the encoder within it, which "
    remedy += "tools/export_params.py --which encoder exports"
    raise UserError(Fault("--task", said, remedy))
