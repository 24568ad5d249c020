"""The reference arrays of SIGMA-PPG, our networks with its weights, and how the two are compared."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxbio.config import fields
from jaxbio.config.families import sigma_ppg
from jaxbio.export.torch_import import arrays_from_table, trees_from_table
from jaxbio.export.torch_names_sigma_ppg import MASK_GENERATOR, STUDENT, TOKENIZER

PROGRESS = jnp.float32(0)
TOKENIZER_FIELDS = {
    "width": 48,
    "layers": 2,
    "heads": 4,
    "channels": 8,
    "patch": 100,
    "tokens": 120,
    "codes": 64,
    "code_width": 16,
}
STUDENT_FIELDS = {"width": 72, "layers": 2, "heads": 6, "channels": 12, "patch": 100, "tokens": 120}
MASK_FIELDS = {"width": 16, "layers": 2, "heads": 4, "patch": 100, "tokens": 120}
ROWS_IN_USE = ("encoder.pos_embed", "student.pos_embed")
# zero by construction, so that their first Adam step is that of rounding noise
SILENT = ("attn.k_norm.bias", "norm.bias", "head.bias")


class Reference:
    """The arrays, and our networks' variables made of them."""

    def __init__(self, arrays):
        self.arrays = {name: arrays[name] for name in arrays.files}
        self.x_BCT = self["x_BCT"]
        tables = {
            "tokenizer": (TOKENIZER, TOKENIZER_FIELDS),
            "student": (STUDENT, STUDENT_FIELDS),
            "mask_generator": (MASK_GENERATOR, MASK_FIELDS),
        }
        self.tokenizer, self.student, self.mask_generator = (
            jax.tree.map(jnp.asarray, trees_from_table(table, self.stored(name), own, name))
            for name, (table, own) in tables.items()
        )

    def __getitem__(self, name):
        return self.arrays[name]

    def stored(self, prefix):
        return {
            name.removeprefix(f"{prefix}/"): array
            for name, array in self.arrays.items()
            if name.startswith(f"{prefix}/")
        }

    @property
    def codebook(self):
        return self.tokenizer["codebook"]["encoder"]["code_KZ"]

    @property
    def tokenizer_state(self):
        vectors = self["codes_BA"].size
        return {"code_KZ": self.codebook, "use_K": jnp.asarray(self["tokenizer/quantize.cluster_size"]) / vectors}

    @property
    def tokenizer_variables(self):
        tree = self.tokenizer
        return {"params": tree["params"]["encoder"], "codebook": tree["codebook"]["encoder"]}


def config_of(model, objective, section, **changes):
    config = fields.defaults(model, objective)
    fields.change(config, sigma_ppg.DATA)
    still = {"data.scaling": "physical", "data.band_hz": None, "data.standardise": "none", "train.batch": 2}
    own = {f"model.{name}": value for name, value in section.items()}
    return fields.change(config, {**still, **own, **{name.replace("__", "."): v for name, v in changes.items()}})


def assert_norms_close(table, grads, norms, rtol):
    ours = arrays_from_table(table, grads)
    for name, norm in norms.items():
        if name.endswith(SILENT) and norm < 1e-5:
            assert np.linalg.norm(ours[name]) < 1e-5, name
        else:
            np.testing.assert_allclose(np.linalg.norm(ours[name]), norm, rtol=rtol, err_msg=name)


def assert_stepped_alike(table, params, grads, stored):
    """Compare parameters after a first step of Adam.

    It turns a gradient that is zero but for rounding into a step of up to the learning rate. Gradients agree to 1e-4 of
    their norms, so the sign of an entry that is smaller than that beside the largest is nobody's: those are left out.
    Of tables whose other rows nothing reads we have those in use.
    """
    ours, gradients = arrays_from_table(table, params), arrays_from_table(table, grads)
    differences, entries = [], 0
    for name, after in stored.items():
        size = np.abs(gradients[name])
        in_use = np.any(size > 0, axis=-1, keepdims=True) if name in ROWS_IN_USE else np.ones_like(size)
        counted = (in_use > 0) & (size >= 1e-4 * size.max())
        entries += np.broadcast_to(in_use > 0, size.shape).sum()
        differences.append(np.abs(np.asarray(ours[name]) - after)[counted])
    difference = np.concatenate(differences)
    assert difference.max() < 1e-4
    assert np.mean(difference < 1e-6) > 0.99
    assert difference.size > 0.95 * entries


def norm_of(tree):
    """Return the length of all gradients together."""
    return np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in jax.tree.leaves(tree)))
