"""Fine-tuning from an export to a detector: the whole way at the smallest size, and what it refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from simulated import xla_flags

import jaxbio
from jaxbio.config import changes
from jaxbio.config.command_line import parse_command
from jaxbio.config.faults import UserError
from jaxbio.data.labels import Label, open_label, write_labels
from jaxbio.data.pairs import make_pairs
from jaxbio.data.prepare import prepare_store
from jaxbio.data.quantise import dequantise
from jaxbio.data.recordings import parse_source
from jaxbio.data.seen import SEEN, seen_of
from jaxbio.data.store import open_store
from jaxbio.evaluation.calibration import calibrate_run
from jaxbio.export import folder, from_run
from jaxbio.export.detector import NO_SIGNAL
from jaxbio.objectives import make_objective
from jaxbio.training.run_data import open_run_data
from jaxbio.training.writers import read_metrics
from jaxbio.transforms.prepare_input import Input
from launch import run as launch

TINY = str(Path(__file__).with_name("tiny_recipe.py"))
FAST = 60.0  # beats a minute, above which a synthetic segment is called fast
SETTINGS = {
    "data.labels": "('fast',)",
    "objective.classes": "('slow','fast')",
    "prepare.split": "(0.4,0.4,0.2)",
    "train.batch": "8",
    "train.steps": "6",
    "eval.every_steps": "3",
    "checkpoint.every_steps": "3",
    "checkpoint.every_s": "None",
    "log.every_steps": "1",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, repository):
    """A folder with a labelled store and the export of a small encoder with random weights."""
    root = tmp_path_factory.mktemp("finetune")
    _, tiny = parse_command(["--config", TINY], launch.make_parser())
    module, _ = make_objective(tiny).encoders["student"]
    inputs = Input.of(tiny)
    variables = jax.jit(module.init)(jax.random.key(3), np.zeros((1, *inputs.shape), np.float32))
    origin = folder.Origin("a test", "student")
    folder.write_export(root / "export", module, variables, inputs=inputs, origin=origin)
    words = line(repository, root, "lora")
    _, config = parse_command(words[:-2], launch.make_parser())
    store = prepare(root / "store", config)
    rate_R = open_label(store, "true_heart_rate").value_R
    write_labels(store, [Label("fast", (rate_R > np.nanmedian(rate_R)).astype(np.float32), ("slow", "fast"))])
    return root


def prepare(path, config):
    prepare_store([parse_source("synthetic:160")], config, path, progress=False)
    make_pairs(open_store(path), config)
    return open_store(path)


def line(repository, root, presets="", **more):
    """The words of the launch line; `more` with two underscores for a dot."""
    settings = SETTINGS | {name.replace("__", "."): str(value) for name, value in more.items()}
    recipe = ["--config", f"{repository / 'configs/finetune.py'}:{presets}"]
    named = [f"--config.train.init_from={root / 'export'}", f"--config.data.store={root / 'store'}"]
    return [*recipe, *named, *(f"--config.{name}={value}" for name, value in settings.items()), "--workdir", "run"]


def command(repository, root, tool, *arguments, code=0):
    environment = os.environ | {"PYTHONPATH": str(repository), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags(1)}
    words = [sys.executable, str(repository / tool), *map(str, arguments)]
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == code, done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def lora(place, repository):
    command(repository, place, "launch/run.py", *line(repository, place, "lora"))
    command(repository, place, "tools/export_params.py", "--workdir", "run", "--out", "detector")
    return place


def losses(workdir):
    return [record["train/loss"] for record in read_metrics(workdir / "metrics.jsonl") if "train/loss" in record]


@pytest.mark.slow
def test_adapters_resume_bit_for_bit(lora, repository):
    shutil.copytree(lora / "run", lora / "again")
    words = line(repository, lora, "lora")
    command(repository, lora, "launch/run.py", *words[:-1], "again", "--from_step", 3)
    assert len(losses(lora / "run")) == 6
    assert losses(lora / "again") == losses(lora / "run")
    ours, theirs = (from_run.load_encoder(lora / name).variables for name in ("run", "again"))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.slow
def test_predict_on_a_raw_record_is_the_runs_own_evaluation(lora):
    """The held-out rows of the store as signals in physical units, against what the evaluation step says of them."""
    model = jaxbio.load_pretrained(lora / "detector")
    loaded = from_run.load_encoder(lora / "run")
    config = changes.from_plain(loaded.meta.config)
    objective = make_objective(config)
    data = open_run_data(config, str(lora / "store"))
    row_N = np.asarray(data.validation.rows_NM[:8, 0])
    segment_BMCT, scale_BMC2 = data.store.read(row_N)[:, None], data.store.scale_NC2[row_N][:, None]
    batch = {"segment_BMCT": segment_BMCT, "scale_BMC2": scale_BMC2, "row_BM": row_N[:, None]}
    batch["label_BMK"] = data.by_row["label_BMK"][row_N][:, None]
    _, items, _ = from_run.checkpoint.restore_items(lora / "run", step=loaded.meta.step)
    outputs = jax.jit(objective.outputs)(items["params"], items["objective"], batch)
    own_BK = np.asarray(jax.nn.softmax(outputs["answer_all"][:, 0] / model.detector.temperature))
    x_BCT = dequantise(segment_BMCT[:, 0], scale_BMC2[:, 0])
    said = model.predict(ppg=x_BCT[:, 0], ecg=x_BCT[:, 1], rate_hz=config.data.rate_hz)
    np.testing.assert_allclose(said.probability_BK, own_BK, atol=1e-5)
    assert set(said.decision_B) <= {"slow", "fast"}
    assert ((said.quality_B >= 0) & (said.quality_B <= 1)).all()
    alone = model.predict(ppg=x_BCT[:, 0], rate_hz=config.data.rate_hz)
    own_BK = np.asarray(jax.nn.softmax(outputs["answer_ppg"][:, 0] / model.detector.temperature))
    np.testing.assert_allclose(alone.probability_BK, own_BK, atol=1e-5)


@pytest.mark.slow
def test_the_program_gives_the_probabilities_without_jaxbio(lora):
    from jax import export as jax_export

    from jaxbio.export.weights import read_weights

    x_BCT = np.load(lora / "detector" / "example.npz")["x_BCT"]
    program = jax_export.deserialize(bytearray((lora / "detector" / "encoder.stablehlo").read_bytes()))
    probability_BK = np.asarray(program.call(read_weights(lora / "detector" / "params.safetensors"), x_BCT))[:, 0]
    np.testing.assert_allclose(probability_BK.sum(axis=1), 1.0, atol=1e-5)
    model = jaxbio.load_pretrained(lora / "detector")
    said = model.predict(ppg=x_BCT[:, 0], ecg=x_BCT[:, 1], rate_hz=model.card.rate_hz)
    np.testing.assert_allclose(said.probability_BK, probability_BK, atol=1e-4)  # predict goes through int16


@pytest.mark.slow
def test_what_is_no_signal_gets_no_class(lora):
    model = jaxbio.load_pretrained(lora / "detector")
    t_T = np.arange(20 * 125) / 125
    beats = np.sin(2 * np.pi * t_T)
    flat = np.full(t_T.size, 3.3)
    said = model.predict(ppg=flat, ecg=flat, rate_hz=125)
    assert said.decision_B.tolist() == [NO_SIGNAL] * 4
    assert np.isnan(said.probability_BK).all()
    mostly = np.where(t_T % 5 < 4, 1.0, beats)  # still for four seconds of five
    assert set(model.predict(ppg=mostly, rate_hz=125).decision_B) == {NO_SIGNAL}
    one = model.predict(ppg=beats, ecg=flat, rate_hz=125)
    assert NO_SIGNAL not in one.decision_B
    np.testing.assert_allclose(one.probability_BK, model.predict(ppg=beats, rate_hz=125).probability_BK, atol=1e-6)
    for wrong in ({"ppg": beats[:300]}, {"ppg": np.where(t_T > 3, np.nan, beats)}, {}, {"abp": beats}):
        with pytest.raises(UserError):
            model.predict(**wrong, rate_hz=125)
    with pytest.raises(UserError, match="fine-tune it first"):
        jaxbio.load_pretrained(lora / "export").predict(ppg=beats, rate_hz=125)


@pytest.mark.slow
def test_a_detector_says_what_it_is_worth_by_its_channels(lora):
    model = jaxbio.load_pretrained(lora / "detector")
    detector = model.detector
    assert (detector.label, detector.classes, detector.positive) == ("fast", ("slow", "fast"), "fast")
    assert {(row["split"], row["channels"]) for row in detector.figures} == {
        (split, channels) for split in ("validation", "test") for channels in ("all", "ppg", "ecg")
    }
    validation = next(row for row in detector.figures if row["split"] == "validation" and row["channels"] == "all")
    assert validation["sensitivity"] >= detector.sensitivity
    told = {record["step"]: record for record in read_metrics(lora / "run" / "metrics.jsonl") if "eval/loss" in record}
    assert model.card.steps == min((step for step in told if step), key=lambda step: told[step]["eval/loss"])
    assert validation["auroc"] == pytest.approx(told[model.card.steps]["eval/auroc"], abs=1e-6)
    store = open_store(lora / "store")
    calibrated_R = folder.read_calibrated(lora / "detector").find_rows(store, np.arange(store.rows))
    np.testing.assert_array_equal(calibrated_R, store.column("split") == "validation")
    assert "What each channel is worth" in (lora / "run" / "report.html").read_text()


@pytest.mark.slow
def test_whom_pretraining_has_seen_calibrates_nothing(lora):
    shutil.copytree(lora / "run", lora / "leaking", ignore=shutil.ignore_patterns("report.html"))
    store = open_store(lora / "store")
    seen_of(store, np.arange(store.rows)).write(lora / "leaking" / SEEN)
    with pytest.raises(UserError, match="0 labelled segments of subjects that the encoder has not seen"):
        calibrate_run(lora / "leaking", from_run.load_encoder(lora / "leaking"))


@pytest.fixture
def refused(monkeypatch, place, repository, tmp_path):
    """A function that starts a run and returns what is said where it is refused, before a device is touched."""
    monkeypatch.setattr(launch.environment, "configure", lambda **_: {})
    monkeypatch.setattr(launch, "start", lambda *_, **__: {"step": 0})
    monkeypatch.chdir(tmp_path)

    def call(presets="lora", **more):
        with pytest.raises(UserError) as caught:
            launch.main(line(repository, place, presets, **more))
        return str(caught.value)

    return call


def test_labels_that_are_not_there_or_say_nothing_are_refused(refused, place):
    store = open_store(place / "store")
    fast = open_label(store, "fast")
    one = Label("one", np.where(fast.value_R == 1, 1.0, np.nan).astype(np.float32), fast.classes)
    none = Label("none", np.full(store.rows, np.nan, np.float32), fast.classes)
    write_labels(store, [one, none])
    assert "tools/add_labels.py" in refused(data__labels="('missing',)")
    assert "all of train is fast" in refused(data__labels="('one',)")
    assert "no segment of train and validation has it" in refused(data__labels="('none',)")
    assert "('slow', 'fast')" in refused(objective__classes="('fast','slow')")
    assert "a label of numbers" in refused(objective__answer="numbers", objective__classes="()")


def test_an_export_that_has_seen_all_validation_subjects_is_refused(refused, place, tmp_path):
    shutil.copytree(place / "export", tmp_path / "leaking")
    store = open_store(place / "store")
    seen_of(store, np.arange(store.rows)).write(tmp_path / "leaking" / SEEN)
    said = refused(train__init_from=tmp_path / "leaking")
    assert "validation segments are of subjects that the start has seen" in said
    assert "data.exclude_subjects" in said


def test_an_encoder_of_another_input_is_refused(refused):
    assert "rate" in refused(data__rate_hz=125.0)
    assert "channels" in refused(data__channels="('ppg',)")


def test_a_head_of_other_classes_does_not_resume(refused, place, repository, monkeypatch):
    _, config = parse_command(line(repository, place, "lora")[:-2], launch.make_parser())
    from jaxbio.training import resume
    from jaxbio.training.checkpoint import Meta

    meta = Meta(3, changes.to_plain(config), "", "", {}, {})
    monkeypatch.setattr(resume, "list_steps", lambda _: [3])
    monkeypatch.setattr(resume, "read_meta", lambda *_: meta)
    assert "objective.classes" in refused(objective__classes="('slow','fast','faster')")


def test_another_share_of_the_labels_does_not_resume(refused, place, repository, monkeypatch):
    _, config = parse_command(line(repository, place, "lora")[:-2], launch.make_parser())
    from jaxbio.training import resume
    from jaxbio.training.checkpoint import Meta

    meta = Meta(3, changes.to_plain(config), "", "", {}, {})
    monkeypatch.setattr(resume, "list_steps", lambda _: [3])
    monkeypatch.setattr(resume, "read_meta", lambda *_: meta)
    assert "data.label_share" in refused(data__label_share=0.5)


def test_the_line_takes_the_encoder_of_the_export(place, repository):
    _, tiny = parse_command(["--config", TINY], launch.make_parser())
    _, config = parse_command(line(repository, place, "lora")[:-2], launch.make_parser())
    assert {name: value for name, value in config.model.items() if name != "adapters"} == dict(tiny.model)
    assert Input.of(config) == Input.of(tiny)
    assert json.loads((place / "export" / "card.json").read_text())["encoder"] == config.model.name
