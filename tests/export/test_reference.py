import json
import pickle
import runpy
import zipfile

import jax
import numpy as np
import pytest

import jaxbio
from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.config.resolve import resolve
from jaxbio.export import reference, torch_import
from jaxbio.export.card import WEIGHTS, read_card
from jaxbio.export.torch_names_sigma_ppg import STUDENT
from jaxbio.models.sigma import SigmaEncoder


@pytest.fixture(scope="module")
def parity_config():
    return resolve(fields.change(fields.defaults(), {"model.layers": 1, "model.feedforward": 32}))


def import_small(config, path, out, **options):
    return reference.import_reference("qualityfm", config, path, out, **options)


def test_import_export_import_is_the_identity(small_config, encoder, small_input, tmp_path):
    written = reference.write_reference(tmp_path / "reference", *encoder, small_input)
    import_small(small_config, written["reference"], tmp_path / "first")
    model = jaxbio.load_pretrained(tmp_path / "first")
    again = reference.write_reference(tmp_path / "again", encoder[0], model.variables, small_input)
    import_small(small_config, again["reference"], tmp_path / "second")
    first, second = ((tmp_path / name / WEIGHTS).read_bytes() for name in ("first", "second"))
    assert first == second


def test_the_references_weights_give_the_references_features(parity_config, parity_dir, tmp_path):
    import_small(parity_config, parity_dir / "qualityfm.npz", tmp_path / "teacher", prefix="teacher/")
    model = jaxbio.load_pretrained(tmp_path / "teacher")
    arrays = np.load(parity_dir / "qualityfm.npz")
    x_BCT = arrays["high_BCT"].astype(np.float32) / 32767
    np.testing.assert_allclose(model.encode(x_BCT), arrays["teacher_features_BLD"], atol=2e-5)
    ten_seconds = model.encode(x_BCT[..., :3000])
    np.testing.assert_allclose(ten_seconds, arrays["teacher_features_10s_BLD"], atol=2e-5)
    assert read_card(tmp_path / "teacher").source == "reference weights qualityfm.npz"


def test_published_weights_of_a_second_stage_are_imported_without_a_tokenizer(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    own = {"width": 16, "layers": 2, "heads": 2, "channels": 4, "patch": 50, "tokens": 8}
    module, rng = SigmaEncoder(**own), np.random.default_rng(0)
    x_BCT = rng.normal(size=(2, 1, 400)).astype(np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x_BCT)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    arrays = torch_import.arrays_from_table(STUDENT, {"params": {"encoder": variables["params"]}})
    unread = {"lm_head.weight": (32, 16), "lm_head.bias": (32,), "student.lm_head.bias": (32,)}
    arrays |= {name: np.zeros(shape, np.float32) for name, shape in unread.items()}
    np.savez(tmp_path / "sigma.npz", **arrays)
    changes = [f"--config.model.{name}={value}" for name, value in own.items()]
    main = runpy.run_path(str(repository / "tools/import_torch.py"))["main"]
    line = ["--family", "sigma_ppg", "--config", "configs/sigma_ppg_pro.py", "--config.data.segment_s=8", *changes]
    main([*line, "--weights", str(tmp_path / "sigma.npz"), "--out", str(tmp_path / "out")])
    model = jaxbio.load_pretrained(tmp_path / "out")
    np.testing.assert_allclose(model.encode(x_BCT), jax.jit(module.apply)(variables, x_BCT), atol=1e-5)


def test_weights_of_another_size_are_refused(small_config, encoder, small_input, tmp_path):
    written = reference.write_reference(tmp_path / "reference", *encoder, small_input)
    deeper = resolve(fields.change(small_config.copy_and_resolve_references(), {"model.layers": 2}))
    with pytest.raises(UserError, match=r"12 names or shapes.*and 7 more"):
        import_small(deeper, written["reference"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_recipe_of_another_family_is_refused(small_config, tmp_path):
    with pytest.raises(UserError, match="--family"):
        reference.import_reference("nobody", small_config, tmp_path / "w.npz", tmp_path / "out")


class Bomb:
    """What a pickle with code looks like: loading it would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pth_that_carries_code_is_refused_and_nothing_runs(small_config, tmp_path):
    path, mark = tmp_path / "w.pth", tmp_path / "it_ran"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", pickle.dumps({"encoder.weight": Bomb(mark)}))
    with pytest.raises(UserError, match=r"w\.pth"):
        import_small(small_config, path, tmp_path / "out")
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


def test_the_written_names_are_the_references(encoder, small_input, tmp_path):
    written = reference.write_reference(tmp_path, *encoder, small_input)
    names = torch_import.read_reference(written["reference"])
    assert "encoder.patch_embed.conv1.weight" in names
    assert names["encoder.patch_embed.conv1.weight"].shape == (5, 2, 201)
    assert json.dumps(written)
