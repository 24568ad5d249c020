"""Every recipe resolves, with each preset, to its text in tests/golden: a changed default shows wherever it matters."""

from pathlib import Path

import pytest

from jaxbio.config import families, fields
from jaxbio.config.command_line import load_recipe
from jaxbio.config.resolve import resolve

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
QUALITYFM = [
    f"qualityfm_{size}{preset}"
    for size in ("base", "medium", "large")
    for preset in ("", ":author", ":short", ":long", ":smoke")
]
SIAMQUALITY = [f"siamquality_resnet{depth}{preset}" for depth in (50, 152) for preset in ("", ":author", ":smoke")]
BASELINES = ["siamquality_simclr", "siamquality_simclr:single", "siamquality_byol"]
ST_MEM = [f"st_mem_{size}{preset}" for size in ("small", "base") for preset in ("", ":author", ":smoke")]
ECG_JEPA = [
    f"ecg_jepa_{size}{preset}"
    for size in ("small", "base")
    for preset in ("", ":author", ":smoke", ":blocks", ":twelve")
]
HYBRID = [f"{recipe}:hybrid" for recipe in ("st_mem_small", "ecg_jepa_base")]
ECG_CODES = [f"ecg_vqvae{preset}" for preset in ("", ":author", ":smoke")]
ECG_TRIPLET = [f"ecg_triplet{preset}" for preset in (":smoke", ":smoke,semi_hard", ":smoke,author")]
SIGMA_PPG = [
    *(f"sigma_ppg_tokenizer{preset}" for preset in ("", ":author", ":smoke", ":phase", ":patch50")),
    *(f"sigma_ppg_pro{preset}" for preset in ("", ":author", ":smoke", ":patch50", ":prior", ":random")),
    *(f"sigma_ppg_{size}" for size in ("base", "large", "huge")),
]
FINETUNE = [
    f"finetune:{preset}"
    for preset in ("vt_alarm", "smoke", "superclass,layerwise,st_mem_base", "heart_rate,sigma_ppg_base")
]
RECIPES = [
    *QUALITYFM,
    *SIAMQUALITY,
    *BASELINES,
    *ST_MEM,
    *ECG_JEPA,
    *HYBRID,
    *ECG_CODES,
    *ECG_TRIPLET,
    *SIGMA_PPG,
    *FINETUNE,
    "quickstart",
]


def resolved_text(recipe: str) -> str:
    name, _, preset = recipe.partition(":")
    config = load_recipe(f"{ROOT / 'configs' / name}.py:{preset}")
    for network in families.OBJECTIVES[config.objective.name].frozen:  # which no recipe can name
        config.objective[network] = "EXPORT"
    return "".join(f"{name} = {value!r}\n" for name, value in sorted(fields.flatten(resolve(config)).items()))


def golden_path(recipe: str) -> Path:
    return GOLDEN / f"{recipe.replace(':', '.')}.txt"


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_resolves_to_its_golden_text(recipe):
    text = resolved_text(recipe)
    golden = golden_path(recipe).read_text()
    assert text == golden, "the resolved recipe changed; if that is meant, run `make golden` and commit the difference"


def test_every_recipe_has_a_golden_text():
    assert {recipe.partition(":")[0] for recipe in RECIPES} == {path.stem for path in (ROOT / "configs").glob("*.py")}
    assert {golden_path(recipe).name for recipe in RECIPES} == {path.name for path in GOLDEN.glob("*.txt")}


if __name__ == "__main__":
    for each in RECIPES:
        golden_path(each).write_text(resolved_text(each))
