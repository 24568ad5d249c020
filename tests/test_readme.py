"""The README does what it says: its commands and its Python run as written, in a copy of the repository."""

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from simulated import xla_flags

import jaxbio
from jaxbio.config.command_line import load_recipe

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()

# What a test cannot run as written, and what it does instead; None: only that file and flags exist.
INSTEAD = {
    "make test": "make --dry-run test",  # it is what runs this test
    "source .venv/bin/activate": None,
    'python launch/run.py --config configs/qualityfm_base.py --config.data.store="((': (
        "ln -sfn runs/quickstart/store STORE2 && {} --config.train.steps=2"
    ),
    "python launch/run.py --config configs/qualityfm_base.py --config.data.store=STORE": "{} --config.train.steps=2",
    "python launch/run.py --config configs/finetune.py": "{} --config.train.steps=20",
    # full-size networks; tests/launch/test_two_stages.py runs both stages with small ones
    "python tools/prepare_store.py --config configs/sigma_ppg_tokenizer.py": None,
    "python launch/run.py --config configs/sigma_ppg": None,
    "python tools/export_params.py --workdir runs/tokenizer": None,
    # libtpu is no part of the environment: the same command for simulated devices
    "python tools/plan.py": "python tools/plan.py --config configs/qualityfm_base.py --topology cpu:8",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line.partition("    #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    inline = re.findall(r"`((?:sbatch|TPU=|kubectl|python ).*?)`", README)
    return [line for line in [*lines, *inline] if line]


@pytest.mark.parametrize("command", commands())
def test_every_file_preset_and_flag_of_a_command_exists(command):
    words = [word for word in shlex.split(command) if "=" not in word or word.startswith("--")]
    for word in words:
        if word.startswith(("tools/", "launch/", "configs/")):
            path, _, presets = word.partition(":")
            assert (ROOT / path).is_file(), word
            if path.startswith("configs/"):
                load_recipe(str(ROOT / path) + ":" + presets)
    scripts = [word for word in words if word.startswith(("tools/", "launch/")) and word.endswith(".py")]
    if scripts:
        said = subprocess.run(
            [sys.executable, ROOT / scripts[0], "--help"], capture_output=True, text=True, env=environment(ROOT)
        )
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        for flag in flags:
            assert flag in said.stdout or flag.startswith("--config."), (flag, said.stderr)


def test_every_file_the_readme_links_to_exists():
    links = re.findall(r"\]\((?!http)([^)#]+)", README) + re.findall(r'src="([^"]+)"', README)
    assert len(links) > 4
    for link in links:
        assert (ROOT / link).is_file(), link


def test_every_file_the_readme_names_in_the_repository_exists():
    for path in re.findall(r"`((?:jaxbio|configs|docs|launch|tools)/[\w/.]+)`", README):
        assert (ROOT / path).exists(), path


def environment(root: Path) -> dict[str, str]:
    """The surroundings of a reader of one device, whose .venv is this test's own environment."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ours = {"PATH": path, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags(1)}
    return {**os.environ, **ours}


@pytest.mark.slow
def test_who_follows_the_readme_gets_what_it_says(tmp_path, data_dir, monkeypatch):
    root = tmp_path / "jaxbio"
    copy_repository(root)
    (root / "RECORDS").symlink_to(data_dir / "cinc2015_vt")
    run_commands(root)
    check_files(root)
    check_weights(root)
    check_python(root, monkeypatch)
    check_program(root)


def copy_repository(root: Path) -> None:
    """Copy what git tracks, with this test's own environment as its .venv and fewer steps of the first recipe."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, root / name)
    recipe = root / "configs/quickstart.py"
    for steps, fewer in (('train.steps": 200', 'train.steps": 20'), ('eval.every_steps": 50', 'eval.every_steps": 10')):
        assert steps in recipe.read_text()
        recipe.write_text(recipe.read_text().replace(steps, fewer))
    (root / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        (root / ".venv" / part.name).symlink_to(part)
    (root / ".venv" / "installed").unlink(missing_ok=True)
    (root / ".venv" / "installed").touch()  # newer than setup.cfg: make installs nothing


def run_commands(root: Path) -> None:
    """Run every command of the README's blocks, in order."""
    in_blocks = [line.partition("    #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    for command in filter(None, in_blocks):
        instead = next((text for start, text in INSTEAD.items() if command.startswith(start)), "{}")
        if instead is None:
            continue
        done = subprocess.run(
            ["bash", "-c", instead.format(command)],
            cwd=root,
            env=environment(root),
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def check_files(root: Path) -> None:
    """The commands made what the README says."""
    made = [
        "look.html",
        "runs/quickstart/report.html",
        "runs/quickstart/metrics.jsonl",
        "runs/quickstart/export/card.json",
        "runs/quickstart/export/encoder.stablehlo",
        "STORE/manifest.json",
        "STORE/store_report.html",
        "runs/mine/report.html",
        "runs/base/config.json",
        "reference/reference.safetensors",
        "imported/card.json",
        "runs/mine/quality_score/results.json",
        "runs/alarm/report.html",
        "runs/alarm/detector/detector.json",
    ]
    assert [name for name in made if not (root / name).exists()] == []


def check_weights(root: Path) -> None:
    """Export and import give the same weights."""
    first, second = (load_file(root / name / "params.safetensors") for name in ("runs/quickstart/export", "imported"))
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def check_python(root: Path, monkeypatch) -> None:
    """The Python blocks run as written, one after the other."""
    monkeypatch.chdir(root)
    rng = np.random.default_rng(0)
    t_T = np.arange(60 * 125) / 125
    shelf = {
        "ppg": np.sin(2 * np.pi * 1.2 * t_T) + 0.1 * rng.normal(size=t_T.size),
        "ecg": np.sin(2 * np.pi * 1.2 * t_T) ** 63 + 0.1 * rng.normal(size=t_T.size),
    }
    for block in blocks("python"):
        if "encoder.stablehlo" not in block:
            exec(block, shelf)
    assert shelf["vectors"].shape == (2, shelf["model"].card.width)
    assert shelf["jaxbio"] is jaxbio


def check_program(root: Path) -> None:
    """The lines for encoder.stablehlo run where nothing is installed but what the README names beside them."""
    (named,) = re.findall(r"needs no jaxbio, only `pip install ([\w ]+)`", README)
    install_only(named.split(), root / "site")
    (block,) = [block for block in blocks("python") if "encoder.stablehlo" in block]
    code = (
        f"import sys; sys.path.insert(0, {str(root / 'site')!r})\nimport numpy\n"
        f"x_BCT = numpy.load('example.npz')['x_BCT']\n{block}\n"
        "numpy.testing.assert_allclose(tokens, numpy.load('example.npz')['tok_BLD'], atol=1e-5)\n"
        "assert not {'jaxbio', 'flax', 'ml_collections'} & sys.modules.keys()\n"
    )
    line = [sys.executable, "-I", "-S", "-c", code]  # no packages but those of that folder
    done = subprocess.run(line, cwd=root / "runs/quickstart/export", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def install_only(names: list[str], folder: Path) -> None:
    """Link these packages of this environment, and those that they require, into `folder`."""
    folder.mkdir()
    wanted, seen = list(names), set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = importlib.metadata.distribution(name)
        required = [text for text in distribution.requires or [] if "extra ==" not in text]
        wanted += [re.split(r"[^\w.-]", text)[0] for text in required]
        for top in {path.parts[0] for path in distribution.files or []} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))
