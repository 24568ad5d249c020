"""A task's labels as lines of a table for tools/add_labels.py: one for each window of a recording that has any.

They are read as an evaluation reads them, by the layouts of the task. No signal is scored, and none is read but where
labels are made of one.

    rows_of = read_label_rows("af", AF, find_sources(AF, ["cinc2017"]), window_s=10.0)      # by the name of the source
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jaxbio.config import fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.data.ecg_archives import Row
from jaxbio.data.recordings import Recording, Source
from jaxbio.data.shard_plan import plan_recording, settings_of
from jaxbio.evaluation.tasks.reading import (
    check_names,
    find_asked,
    find_layout,
    label_windows,
    list_entries,
    subjects_of,
)
from jaxbio.evaluation.tasks.task import Subjects, Task
from jaxbio.signals.segments import Measured

# Labels of data sets are in their files: what is measured of signals has no part in them.
_UNMEASURED = Measured(np.zeros((0, 0, 0), np.float32), np.zeros(0, np.uint8), np.zeros((0, 0), bool), {})


def read_label_rows(name: str, task: Task, sources: Sequence[Source], window_s: float) -> dict[str, list[Row]]:
    """Return the labelled windows of `window_s` of every recording, by the name of their source.

    Windows lie where a preparation with that `data.segment_s` has its segments; of a task that asks about one window of
    a recording it is that one. A row's cells are `start_s`, `end_s` and a value for each target of the task: a number,
    or the name of a class; its subject is empty (`known_subjects`).

    Raises UserError for a task that needs no table (`check_tabled`), for two sources of one name, and where no window
    has a label.
    """
    check_tabled(name, task)
    check_names(sources)
    config = fields.change(
        fields.defaults(), {"data.segment_s": window_s, "prepare.missing_channel": "mask"}
    )  # a recording without PPG or without ECG has labels all the same
    refused: Counter[str] = Counter()
    rows_of = {source.name: list(_read_source(name, task, source, config, refused)) for source in sources}
    if refused := +refused:  # without zeros
        logging.info("without a label: %s", ", ".join(f"{reason} {count}" for reason, count in refused.most_common()))
    if not any(rows_of.values()):
        raise UserError(Fault("--data", ", ".join(rows_of), f"no window of {window_s:g} s has a label of {task.title}"))
    return rows_of


def label_columns(name: str, task: Task) -> list[str]:
    """Return the columns of a task's table: its name, of several targets behind which theirs."""
    return [f"{name}_{target}" if target else name for target in task.targets]


def check_tabled(name: str, task: Task) -> None:
    """Raise UserError for a task whose answer a prepared store holds without a table of labels."""
    if task.classes_are_subjects:
        remedy = "the subject is the question, whom a store names: no label"
    elif task.course_hz:
        remedy = f"a channel is learnt, no label: prepare {', '.join(task.labels)} with the others, and "
        remedy += f"configs/finetune.py:{name}"
    elif not task.layouts:
        remedy = "a label that a store has"
    elif not all(layout.source for layout in task.layouts):
        remedy = "jaxbio's own score, which every store has: data.labels=('quality_waveform',)"
    else:
        return
    raise UserError(Fault("--task", name, remedy))


def known_subjects(task: Task, sources: Sequence[Source]) -> Subjects:
    """Return {(source, recording): subject} of what files beside the signals say.

    Raises UserError where they say nothing.
    """
    known: Subjects = {}
    for source in sources:
        known |= subjects_of(find_layout(task, Path(source.folder), source.name), source)
    if not known:
        names = ", ".join(source.name for source in sources)
        remedy = (
            f"no file beside the signals of {names} names patients: leave it out, paths tell who they are or nobody"
        )
        raise UserError(Fault("--subjects", names, remedy))
    return known


def _read_source(name: str, task: Task, source: Source, config: ConfigDict, refused: Counter[str]) -> Iterator[Row]:
    layout, columns = find_layout(task, Path(source.folder), source.name), label_columns(name, task)
    settings = settings_of(config)
    for entry in list_entries(layout, source, config, subjects_of(layout, source)):
        if not isinstance(entry, Recording):
            refused[entry.reason] += 1
            continue
        asked = find_asked(layout, entry, source, settings.segment_s, refused)
        if asked is None:
            continue
        recording, first_s = asked
        start_s_B = np.arange(plan_recording(recording, settings)[0]) * settings.segment_s
        label_BK, known_BK = label_windows(layout, recording, source, start_s_B, settings.segment_s, _UNMEASURED)
        refused["no_label"] += int(np.sum(~known_BK.any(axis=1)))
        for row in np.flatnonzero(known_BK.any(axis=1)).tolist():
            start_s = first_s + float(start_s_B[row])
            span = {"start_s": repr(start_s), "end_s": repr(start_s + settings.segment_s)}
            said = [_say(task, *told) for told in zip(label_BK[row].tolist(), known_BK[row].tolist(), strict=True)]
            yield Row(recording.recording, "", {**span, **dict(zip(columns, said, strict=True))})


def _say(task: Task, value: float, known: bool) -> str:
    if not known:
        return ""
    return task.classes[int(value)] if task.classes else repr(value)
