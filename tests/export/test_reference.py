import json
import pickle
import zipfile

import numpy as np
import pytest

import jaxbio
from jaxbio.config import fields
from jaxbio.config.faults import UserError
from jaxbio.config.resolve import resolve
from jaxbio.export import reference, torch_import
from jaxbio.export.card import WEIGHTS, read_card


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
