"""affect: at rest, under stress, amused or meditating? From wrist PPG and chest ECG in a laboratory."""

from jaxbio.evaluation.class_measures import SEVERAL_CLASSES
from jaxbio.evaluation.tasks.task import Task, named
from jaxbio.evaluation.tasks.wearables import state_label, wearable

_CODES = (1, 2, 3, 4)  # of WESAD's readme; 0 is between conditions, 5 to 7 are to be ignored

AFFECT = Task(
    "the condition of a laboratory protocol, as a sign of affect",
    "",
    named(*SEVERAL_CLASSES),
    (wearable("WESAD", state_label("label", 700.0, _CODES), "label"),),
    classes=("baseline", "stress", "amusement", "meditation"),
    labels_are="the conditions of the protocol, each at one time of the session, and no subject's own report; windows "
    "that are not spent in one condition are left out",
    published="Schmidt et al. 2018: baseline, stress and amusement, windows of 60 s that overlap; SIGMA-PPG: these "
    "four, 60 s without overlap; both leave one of 15 subjects out by turns; here: the encoder's own length "
    "(--window_s 60), no overlap, folds of whole subjects (--folds 15)",
)
