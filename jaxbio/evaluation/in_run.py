"""Linear probes while a run goes on: what its encoders tell of segments held out, by the store's columns and labels.

    questions = choose_questions(store, config)                      # before a device is touched
    probes = [make_probe(program, store, questions)]                 # for training.loop.train

They follow a run; what an export is worth, on labels that somebody else made, tools/evaluate.py says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.pairs import class_edges, class_of, split_codes
from jaxbio.data.several import Stores, as_stores, list_joined_labels, open_joined_labels
from jaxbio.data.splits import SPLITS
from jaxbio.data.store import Store, StoreView, subject_codes
from jaxbio.evaluation import metrics, probes
from jaxbio.training.program import Program
from jaxbio.training.sharding import batch_sharding, replicated
from jaxbio.training.state import State
from jaxbio.training.step import gather_fsdp, pool
from jaxbio.transforms.per_row import rows_on
from jaxbio.transforms.prepare_input import Input, prepare_crops

FIT_ROWS, TEST_ROWS = 512, 256  # segments at most: three seconds for base on two cores
CONSTANT = "constant"
QUALITY_CLASS = "quality_class"
_COLUMNS = {  # of the store's table, by task
    "heart_rate": "heart_rate_bpm",
    "pulse_rate": "pulse_rate_bpm",
    "quality_score": "quality_{variant}",
}


@dataclass(frozen=True)
class Question:
    """What a probe is asked: its kind, how the answer is measured, and every row's label, NaN where it has none."""

    probe: probes.Probe
    metric: tuple[str, metrics.Metric]
    label_R: np.ndarray


@dataclass(frozen=True)
class Questions:
    """The questions by task, the rows of the train split to learn from, and those of validation to be asked about."""

    by_task: Mapping[str, Question]
    fit_rows: np.ndarray
    test_rows: np.ndarray


def choose_questions(store: Store | Stores, config: ConfigDict, left_out_R: np.ndarray | None = None) -> Questions:
    """Return what `eval.tasks` asks of `store`: always of the same rows, spread over the splits.

    Rows that `left_out_R` (rows,) marks, as the run's training does, are not among them.

    Raises UserError, all faults together, for a task that is none, one whose labels the store lacks, and a missing
    scikit-learn.
    """
    if not config.eval.tasks:
        return Questions({}, np.zeros(0, np.int64), np.zeros(0, np.int64))
    stores = as_stores(store)
    known = (*_COLUMNS, QUALITY_CLASS, *list_joined_labels(stores))
    faults = [
        Fault("eval.tasks", name, f"no such task: one of {', '.join(known)}; tools/add_labels.py adds labels")
        for name in config.eval.tasks
        if name not in known
    ]
    code_R = split_codes(store) if left_out_R is None else np.where(left_out_R, -1, split_codes(store))
    train_rows, test_rows = (
        _spread(np.flatnonzero(code_R == SPLITS.index(split)), most)
        for split, most in (("train", FIT_ROWS), ("validation", TEST_ROWS))
    )
    by_task = {}
    for name in config.eval.tasks:
        if name in known:
            question = _ask(name, stores, config)
            if question is None or not all(_known(question, rows).any() for rows in (train_rows, test_rows)):
                faults.append(
                    Fault("eval.tasks", name, "this store has no label for it in its two splits: leave it out")
                )
            else:
                by_task[name] = question
    try:
        probes.check_installed()
    except UserError as error:
        faults += error.faults
    if faults:
        raise UserError(*faults)
    return Questions(by_task, train_rows, test_rows)


def make_probe(program: Program, store: StoreView, questions: Questions) -> Callable[[State], Mapping[str, float]]:
    """Return a probe of the loop: `probe_<task>_<metric>_<encoder>` for each task and encoder, and for the constant
    that sees no segment. Every process reads the same rows and comes to the same numbers.
    """
    row_N = np.concatenate([questions.fit_rows, questions.test_rows])
    fit, test = np.arange(len(questions.fit_rows)), np.arange(len(questions.fit_rows), len(row_N))
    subject_R, _ = subject_codes(store)
    extract = _make_extractor(program, store)

    def probe(state: State) -> Mapping[str, float]:
        features = extract(state, row_N)
        values: dict[str, float] = {}
        for task, question in questions.by_task.items():
            label_N, subject_N, known_N = question.label_R[row_N], subject_R[row_N], _known(question, row_N)
            splits = [(fit[known_N[fit]], test[known_N[test]])]
            answers = {
                name: probes.predict_held_out(feature_ND, label_N, subject_N, splits, question.probe)
                for name, feature_ND in features.items()
            }
            answers[CONSTANT] = probes.predict_constant(label_N, subject_N, splits, question.probe)
            measured, metric = question.metric
            true_N = label_N[probes.tested_rows(splits)]
            values |= {f"probe_{task}_{measured}_{name}": metric(true_N, answer) for name, answer in answers.items()}
        return values

    return probe


def _make_extractor(program: Program, store: StoreView) -> Callable[[State, np.ndarray], dict[str, np.ndarray]]:
    """Return `extract(state, row_N)`: each encoder's features (N, D), unaugmented, computed a batch at a time."""
    config, mesh, shardings = program.config, program.mesh, program.placement.shardings
    encoders, placed, inputs = program.objective.encoders, batch_sharding(mesh), Input.of(config)

    def features_of(state: State, segment_BCT: jax.Array, scale_BC2: jax.Array) -> dict[str, jax.Array]:
        state = gather_fsdp(state, shardings)
        with rows_on(mesh):
            x_BCT = prepare_crops(segment_BCT, scale_BC2, inputs)
            return {
                name: pool(module, variables(state.params, state.objective_state), x_BCT, inputs.crops)
                for name, (module, variables) in encoders.items()
            }

    compiled = jax.jit(features_of, in_shardings=(shardings, placed, placed), out_shardings=replicated(mesh))

    def on_devices(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(array.shape, placed, lambda where: array[where])

    def extract(state: State, row_N: np.ndarray) -> dict[str, np.ndarray]:
        parts: list[dict[str, np.ndarray]] = []
        for first in range(0, len(row_N), config.train.batch):
            row_B = np.resize(
                row_N[first : first + config.train.batch], config.train.batch
            )  # the last one repeats rows
            arrays = (on_devices(store.read(row_B)), on_devices(store.scale_NC2[row_B]))
            parts.append(jax.device_get(compiled(state, *arrays)))
        return {name: np.concatenate([part[name] for part in parts])[: len(row_N)] for name in encoders}

    return extract


def _spread(row_N: np.ndarray, most: int) -> np.ndarray:
    """Return at most `most` of the rows, spread evenly over them."""
    return row_N[np.arange(min(most, len(row_N))) * len(row_N) // max(min(most, len(row_N)), 1)]


def _known(question: Question, row_N: np.ndarray) -> np.ndarray:
    return np.isfinite(question.label_R[row_N])


def _ask(name: str, stores: Stores, config: ConfigDict) -> Question | None:
    """Return the question of task `name`; None where a store has no such column."""
    if name == QUALITY_CLASS:
        quality_R = stores.column(f"quality_{config.quality.variant}")
        edges = class_edges(quality_R[split_codes(stores) >= 0], config)
        return _of_classes(class_of(quality_R, edges))
    column = _COLUMNS.get(name, name).format(variant=config.quality.variant)
    if name in _COLUMNS and not stores.has_column(column):
        return None
    (label,) = open_joined_labels(stores, [column])
    if label.classes or np.isin(label.value_R[np.isfinite(label.value_R)], (0, 1)).all():
        return _of_classes(label.value_R)
    return Question(probes.NUMBERS, ("mae", metrics.mae), label.value_R)


def _of_classes(class_R: np.ndarray) -> Question:
    return Question(probes.CLASSES, ("balanced_accuracy", metrics.balanced_accuracy), class_R)
