"""activity: which of eight activities? From wrist PPG and chest ECG of daily life."""

from jaxbio.evaluation.class_measures import SEVERAL_CLASSES
from jaxbio.evaluation.tasks.task import Task, named
from jaxbio.evaluation.tasks.wearables import state_label, wearable

_CODES = (1, 2, 3, 4, 5, 6, 7, 8)  # of PPG-DaLiA's readme; 0 is the way between two

ACTIVITY = Task(
    "the activity of daily life",
    "",
    named(*SEVERAL_CLASSES),
    (wearable("PPG-DaLiA", state_label("activity", 4.0, _CODES), "activity"),),
    classes=("sitting", "stairs", "table soccer", "cycling", "driving", "lunch", "walking", "working"),
    labels_are="the protocol's, by the clock: a pulse that moves with the arm tells much of them, the heart little",
    published="SIGMA-PPG: nine classes, the way between activities among them, windows of 8 s every 2 s by their "
    "commonest code, one of 15 subjects left out by turns; here: eight classes, windows that are spent in one of them, "
    "no overlap, folds of whole subjects (--window_s 8 --folds 15)",
)
