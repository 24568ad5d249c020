"""The general rooms know no family: none of its names stands in their identifiers or strings.

Docstrings may cite a paper for a formula, and the tables that translate a reference implementation's weights name it.
"""

import ast
import re
from pathlib import Path

import pytest

from jaxbio.models import ENCODERS
from jaxbio.objectives import OBJECTIVES

ROOMS = (
    "jaxbio/data",
    "jaxbio/report",
    "jaxbio/transforms",
    "jaxbio/training",
    "jaxbio/planning",
    "jaxbio/export",
    "launch",
)
IMPORT_TABLES = {
    "jaxbio/export/torch_import.py",
    "jaxbio/export/torch_names.py",
    "jaxbio/export/torch_names_ecg.py",
    "jaxbio/export/torch_names_sigma_ppg.py",
}
# A deviation (`noise_sigma`) and a mask of signals (`sigmask`) are no family, SIGMA-PPG is.
PUBLISHED = (
    "qualityfm",
    "siamquality",
    "simsiam",
    "simclr",
    "byol",
    "moco",
    "swav",
    "st_?mem",
    "jepa",
    r"(?<!noise_)sigma(?!sk)",
)
NAMES = re.compile("|".join((*PUBLISHED, *map(re.escape, (*ENCODERS, *OBJECTIVES)))), re.IGNORECASE)


def words_of(source: str):
    """Yield (line, word) of every identifier and string of `source` but its docstrings."""
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(
            node
        ):
            docstrings.add(node.body[0].value)
    for node in ast.walk(tree):
        if node in docstrings:
            continue
        for _, value in ast.iter_fields(node):
            for word in value if isinstance(value, list) else [value]:
                if isinstance(word, str):
                    yield getattr(node, "lineno", 0), word


def named_in(source: str) -> list[tuple[int, str]]:
    return [(line, word) for line, word in words_of(source) if NAMES.search(word)]


@pytest.mark.parametrize("room", ROOMS)
def test_a_general_room_names_no_family(room, repository):
    files = sorted((repository / room).rglob("*.py"))
    assert files
    found = {
        f"{name}:{line}": word
        for path in files
        if (name := Path(path).relative_to(repository).as_posix()) not in IMPORT_TABLES
        for line, word in named_in(path.read_text())
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "def load_siamquality(): pass",
        "from jaxbio.models import qualityfm",
        "import jaxbio.models.qualityfm as model",
        "class SimCLRHead: pass",
        "run(byol=1)",
        "objective.jepa",
        "if name == 'resnet1d': pass",
        "log.info(f'{x} ST-MEM st_mem')",
        "def f(sigma_ppg): pass",
        "global quality_siamese",
    ],
)
def test_a_name_is_found_wherever_it_stands(source):
    assert named_in(source)


def test_docstrings_and_deviations_are_left_alone():
    assert named_in('"""SimCLR."""\ndef f(noise_sigma):\n    """QualityFM, section 2."""\n') == []
