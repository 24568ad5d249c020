"""The files of an evaluation: results.json with every number, predictions.parquet with every answer.

write_results(out, result)
write_predictions(out, segments, {"": compared})
evaluation = read_evaluation(out)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.whole_files import whole_file
from jaxbio.evaluation.comparison import Comparison
from jaxbio.evaluation.measure import Answer, Truth
from jaxbio.evaluation.tasks import Segments

RESULTS, PREDICTIONS = "results.json", "predictions.parquet"


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation: its result, and by target keys (N,) of the segments, the truth, and answers by entrant."""

    result: dict[str, Any]
    key_N: dict[str, np.ndarray]
    truths: dict[str, Truth]
    answers: dict[str, dict[str, list[Answer]]]
    subject_N: dict[str, np.ndarray]


def write_results(out: Path, result: Mapping[str, Any]) -> Path:
    """Write results.json in one move; return its path."""
    with whole_file(out / RESULTS) as unfinished:
        unfinished.write_text(json.dumps(result, indent=1) + "\n")
    return out / RESULTS


def write_predictions(out: Path, segments: Segments, compared: Mapping[str, Comparison]) -> Path:
    """Write a row for every tested segment and entrant, of every target and seed; return the path."""
    tables = []
    for target, found in compared.items():
        assert found.truth is not None
        row_N = found.row_N
        for entrant, answers in found.answers.items():
            for seed, answer in enumerate(answers):
                columns = {
                    "target": [target] * len(row_N),
                    "source": segments.source_B[row_N].tolist(),
                    "subject": segments.subject_B[row_N].tolist(),
                    "recording": segments.recording_B[row_N].tolist(),
                    "start_s": segments.start_s_B[row_N],
                    "label": pa.array(list(found.truth.label_N.astype(np.float64))),
                    "scale": found.truth.scale_N,
                    "entrant": [entrant] * len(row_N),
                    "seed": np.full(len(row_N), seed, np.int32),
                    "score": pa.array(list(answer.score_NK.astype(np.float64)), pa.list_(pa.float64())),
                    "decision": answer.decision_N.astype(np.float64),
                }
                tables.append(pa.table(columns))
    with whole_file(out / PREDICTIONS) as unfinished:
        pq.write_table(pa.concat_tables(tables), unfinished, compression="zstd")
    return out / PREDICTIONS


def read_evaluation(folder: Path | str) -> Evaluation:
    """Return what `tools/evaluate.py` wrote into a folder; raises UserError where it is none."""
    folder = Path(folder)
    remedy = f"no evaluation: name the --out folder of tools/evaluate.py, which holds {RESULTS} and {PREDICTIONS}"
    try:
        result = json.loads((folder / RESULTS).read_text())
        table = pq.read_table(folder / PREDICTIONS)
        columns = {name: np.array(table[name].to_pylist()) for name in table.column_names if name != "score"}
        score = table["score"].to_pylist()
    except (OSError, ValueError, KeyError) as error:
        raise UserError(Fault(str(folder), type(error).__name__, remedy)) from None
    keys: dict[str, np.ndarray] = {}
    truths: dict[str, Truth] = {}
    subjects: dict[str, np.ndarray] = {}
    answers: dict[str, dict[str, list[Answer]]] = {}
    for target in dict.fromkeys(columns["target"].tolist()):
        answers[target] = {}
        mine = columns["target"] == target
        for entrant in dict.fromkeys(columns["entrant"][mine].tolist()):
            own = mine & (columns["entrant"] == entrant)
            seeds = []
            for seed in np.unique(columns["seed"][own]):
                rows = np.flatnonzero(own & (columns["seed"] == seed))
                seeds.append(Answer(np.array([score[row] for row in rows]), columns["decision"][rows]))
            answers[target][entrant] = seeds
        names = ("source", "recording", "start_s")
        keys[target] = np.array([" ".join(map(str, parts)) for parts in zip(*(columns[name][rows] for name in names))])
        subjects[target] = columns["subject"][rows]
        codes = np.unique(subjects[target], return_inverse=True)[1]
        truths[target] = Truth(columns["label"][rows], codes, columns["scale"][rows])
    return Evaluation(result, keys, truths, answers, subjects)
