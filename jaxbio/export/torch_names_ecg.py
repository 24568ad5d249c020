"""What the reference implementations of 12-lead encoders call their arrays: tables as in `torch_names`.

Both keep their fixed position tables among the weights. They are no weights of ours: an import compares them with what
they must be, an export for the reference adds them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbio.export.torch_names import Arrays, Name, Reference, Shapes
from jaxbio.models.ecg_jepa import ECGJEPA, TimePredictor
from jaxbio.models.lead_patches import grid_positions, time_positions
from jaxbio.models.st_mem import STMEM, LeadDecoder
from jaxbio.models.vq_vae import VQVAE, VQVAEDecoder

_OURS = {"weight": "kernel", "bias": "bias"}
_NORM = {"weight": "scale", "bias": "bias"}

# ---- ST-MEM: github.com/bakqui/ST-MEM, commit 69ec702. The encoder's position is trained where it is fine-tuned.

_ST_MEM_BLOCK = {
    "attn.norm": ("attention_norm", _NORM, "none"),
    "attn.fn.to_qkv": ("attention/qkv", _OURS, "qkv"),
    "attn.fn.to_out.0": ("attention/output", _OURS, "inputs"),
    "ff.norm": ("feedforward_norm", _NORM, "none"),
    "ff.fn.net.0": ("feedforward_in", _OURS, "none"),
    "ff.fn.net.3": ("feedforward_out", _OURS, "none"),
}


def st_mem_names(shapes: Shapes) -> Iterator[Name]:
    """Yield the table of ST-MEM."""
    encoder, decoder = "params/encoder", "params/decoder"
    yield Name("encoder.sep_embedding", f"{encoder}/sep")
    for lead in range(shapes[f"{encoder}/lead"].shape[0] if f"{encoder}/lead" in shapes else 0):
        yield Name(f"encoder.lead_embeddings.{lead}", f"{encoder}/lead", layer=lead)
    yield from _pairs("encoder.to_patch_embedding.1", f"{encoder}/patch_norm", _NORM)
    yield from _pairs("encoder.to_patch_embedding.2", f"{encoder}/patch_embed", _OURS)
    yield from _pairs("encoder.to_patch_embedding.3", f"{encoder}/embed_norm", _NORM)
    yield from _blocks(shapes, "encoder.block{}", encoder, _ST_MEM_BLOCK)
    yield from _pairs("encoder.norm", f"{encoder}/norm", _NORM)
    yield Name("mask_embedding", f"{decoder}/mask", "token")
    yield from _pairs("to_decoder_embedding", f"{decoder}/embed", _OURS)
    yield from _blocks(shapes, "decoder_blocks.{}", decoder, _ST_MEM_BLOCK)
    yield from _pairs("decoder_norm", f"{decoder}/norm", _NORM)
    yield from _pairs("decoder_head", f"{decoder}/output", _OURS)


def st_mem_shapes(arrays: Arrays, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return our trees as shapes; leads and the decoder's size, which no field holds, come from `arrays`."""
    encoder, key = STMEM(**fields), jax.random.key(0)
    leads = max(sum(name.startswith("encoder.lead_embeddings.") for name in arrays), 1)
    width, layers = _width_of(arrays, "to_decoder_embedding.weight", 256), _count(arrays, "decoder_blocks.", 4)
    qkv = _width_of(arrays, "decoder_blocks.0.attn.fn.to_qkv.weight", 12 * encoder.head_width)
    hidden = _width_of(arrays, "decoder_blocks.0.ff.fn.net.0.weight", 4 * width)
    heads = qkv // (3 * encoder.head_width)
    decoder = LeadDecoder(width, layers, heads, hidden, encoder.patch, encoder.head_width)

    def init() -> dict[str, Any]:
        own = encoder.init(key, jnp.zeros((1, leads, 2 * encoder.patch)))
        tok_BCSD = jnp.zeros((1, leads, 3, encoder.width))
        return {
            "params": {
                "encoder": own["params"],
                "decoder": decoder.init(key, tok_BCSD, jnp.zeros((1, leads, 2), jnp.int32))["params"],
            }
        }

    return jax.eval_shape(init)


def st_mem_table(name: str, array: np.ndarray) -> np.ndarray | None:
    """Return the fixed positions (1, N + 2, D) that `name` must hold, zero at SEP tokens; None for another name."""
    if name not in ("encoder.pos_embedding", "decoder_pos_embed") or array.ndim != 3 or array.shape[1] < 2:
        return None
    return _st_mem_table(*array.shape[1:])


def st_mem_tables(shapes: Shapes, input_shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return the fixed positions of encoder and decoder, where there is one."""
    tokens = input_shape[1] // shapes["params/encoder/patch_norm/scale"].shape[0] + 2
    widths = {"encoder.pos_embedding": "params/encoder/sep", "decoder_pos_embed": "params/decoder/mask"}
    return {name: _st_mem_table(tokens, shapes[path].shape[-1]) for name, path in widths.items() if path in shapes}


def _st_mem_table(tokens: int, width: int) -> np.ndarray:
    return np.pad(np.asarray(time_positions(tokens - 2, width)), ((1, 1), (0, 0)))[None]


# ---- ECG-JEPA: github.com/sehunfromdaegu/ECG_JEPA, commit d937ad2

_JEPA_BLOCK = {
    "norm1": ("attention_norm", _NORM, "none"),
    "attn.qkv": ("attention/qkv", {"weight": "kernel"}, "qkv"),
    "attn.proj": ("attention/output", _OURS, "inputs"),
    "norm2": ("feedforward_norm", _NORM, "none"),
    "mlp.fc1": ("feedforward_in", _OURS, "none"),
    "mlp.fc2": ("feedforward_out", _OURS, "none"),
}
_NETWORKS = {"encoder": "encoder", "target_encoder": "teacher"}


def ecg_jepa_names(shapes: Shapes) -> Iterator[Name]:
    """Yield the table of ECG-JEPA: student (`encoder`), teacher and predictor."""
    for theirs, part in _NETWORKS.items():
        yield from _pairs(f"{theirs}.W_P", f"params/{part}/embed", _OURS)
        yield from _blocks(shapes, f"{theirs}.encoder_blocks.blocks.{{}}", f"params/{part}", _JEPA_BLOCK)
        yield from _pairs(f"{theirs}.norm", f"params/{part}/norm", _NORM)
    predictor = "params/predictor"
    yield Name("predictor.mask_token", f"{predictor}/mask", "token")
    yield from _pairs("predictor.predictor_embed", f"{predictor}/embed", _OURS)
    yield from _blocks(shapes, "predictor.predictor_blocks.blocks.{}", predictor, _JEPA_BLOCK)
    yield from _pairs("predictor.predictor_norm", f"{predictor}/norm", _NORM)
    yield from _pairs("predictor.predictor_proj", f"{predictor}/output", _OURS)


def ecg_jepa_shapes(arrays: Arrays, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return our trees as shapes; the predictor's size, which no field holds, comes from `arrays`."""
    encoder, key = ECGJEPA(**fields), jax.random.key(0)
    width = _width_of(arrays, "predictor.predictor_embed.weight", 192)
    hidden = _width_of(arrays, "predictor.predictor_blocks.blocks.0.mlp.fc1.weight", 4 * width)
    layers = _count(arrays, "predictor.predictor_blocks.blocks.", 4)
    predictor = TimePredictor(width, layers, 1, hidden)  # heads are in no shape

    def init() -> dict[str, Any]:
        own = encoder.init(key, jnp.zeros((1, 1, 2 * encoder.patch)))["params"]
        predicted = predictor.init(key, jnp.zeros((1, 1, 2, encoder.width)), jnp.zeros((1, 2), jnp.int32))
        return {"params": {"encoder": own, "teacher": own, "predictor": predicted["params"]}}

    return jax.eval_shape(init)


def ecg_jepa_table(name: str, array: np.ndarray) -> np.ndarray | None:
    """Return the fixed positions (C N, D) that `name` must hold; None for another name.

    Where the second half of the features is that of the first row, the rows are of the first lead.
    """
    if not name.endswith("pos_embed") or array.ndim != 2:
        return None
    rows, width = array.shape
    times = int(np.isclose(array[:, width // 2 :], array[:1, width // 2 :], atol=1e-5).all(-1).sum())
    leads = 1 if name.startswith("predictor") else max(rows // max(times, 1), 1)
    return np.asarray(grid_positions(leads, rows // leads, width)).reshape(-1, width)


def ecg_jepa_tables(shapes: Shapes, input_shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return the fixed positions of the networks that are there."""
    patch, width = shapes["params/encoder/embed/kernel"].shape
    leads, times = input_shape[0], input_shape[1] // patch
    own = np.asarray(grid_positions(leads, times, width)).reshape(-1, width)
    tables = {f"{theirs}.pos_embed": own for theirs, part in _NETWORKS.items() if f"params/{part}/norm/scale" in shapes}
    if "params/predictor/mask" in shapes:
        tables["predictor.pos_embed"] = np.asarray(grid_positions(1, times, shapes["params/predictor/mask"].shape[-1]))[
            0
        ]
    return tables


# ---- VQ-VAE: github.com/tenebrissilvam/smiles_ssl_biosignals, commit 6351e06


def vq_vae_names(shapes: Shapes) -> Iterator[Name]:
    """Yield the table of the VQ-VAE that is trained from scratch."""
    encoder, decoder = "params/encoder", "params/decoder"
    yield Name("encoder.pos_embedding", f"{encoder}/position", "table")
    yield from _pairs("encoder.to_patch_embedding.1", f"{encoder}/patch_norm", _NORM)
    yield from _pairs("encoder.to_patch_embedding.2", f"{encoder}/patch_embed", _OURS)
    yield from _pairs("encoder.to_patch_embedding.3", f"{encoder}/embed_norm", _NORM)
    yield from _blocks(shapes, "encoder.transformer_blocks.{}", encoder, _ST_MEM_BLOCK)
    yield from _pairs("encoder.norm", f"{encoder}/norm", _NORM)
    yield from _pairs("encoder.projection", f"{encoder}/output", _OURS)
    yield Name("vq.embeddings", "params/codebook/code", "transposed")
    yield Name("decoder.pos_embedding", f"{decoder}/position", "table")
    yield from _pairs("decoder.projection", f"{decoder}/embed", _OURS)
    yield from _blocks(shapes, "decoder.transformer_blocks.{}", decoder, _ST_MEM_BLOCK)
    yield from _pairs("decoder.norm", f"{decoder}/norm", _NORM)
    yield from _pairs("decoder.output", f"{decoder}/output", _OURS)


def vq_vae_shapes(arrays: Arrays, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return our trees as shapes; leads, patches and the decoder's size, which no field holds, come from `arrays`."""
    encoder, key = VQVAE(**fields), jax.random.key(0)
    leads = max(_width_of(arrays, "encoder.to_patch_embedding.1.weight", encoder.patch) // encoder.patch, 1)
    position = arrays.get("encoder.pos_embedding")
    patches = 30 if position is None or position.ndim != 3 else position.shape[1]
    width, layers = (
        _width_of(arrays, "decoder.projection.weight", 256),
        _count(arrays, "decoder.transformer_blocks.", 4),
    )
    prefix = "decoder.transformer_blocks.0"
    heads = _width_of(arrays, f"{prefix}.attn.fn.to_qkv.weight", 9 * encoder.head_width) // (3 * encoder.head_width)
    hidden = _width_of(arrays, f"{prefix}.ff.fn.net.0.weight", 4 * width)
    decoder = VQVAEDecoder(width, layers, heads, hidden, encoder.patch, leads, encoder.head_width)

    def init() -> dict[str, Any]:
        own = encoder.init(key, jnp.zeros((1, leads, patches * encoder.patch)))["params"]
        decoded = decoder.init(key, jnp.zeros((1, patches, encoder.latent)))["params"]
        code_KZ = jnp.zeros((encoder.codes, encoder.latent))
        return {"params": {"encoder": own, "decoder": decoded, "codebook": {"code": code_KZ}}}

    return jax.eval_shape(init)


def _pairs(theirs: str, ours: str, leaves: Mapping[str, str], joined: str = "none", layer: int | None = None):
    for leaf, own in leaves.items():
        yield Name(
            f"{theirs}.{leaf}", f"{ours}/{own}", "none" if (leaf, joined) == ("bias", "inputs") else joined, layer
        )


def _blocks(shapes: Shapes, theirs: str, ours: str, block: Mapping[str, Any]) -> Iterator[Name]:
    prefix = f"{ours}/transformer/blocks"
    layers = max((leaf.shape[0] for path, leaf in shapes.items() if path.startswith(prefix)), default=0)
    for layer in range(layers):
        for name, (module, leaves, joined) in block.items():
            yield from _pairs(f"{theirs.format(layer)}.{name}", f"{prefix}/{module}", leaves, joined, layer)


def _width_of(arrays: Arrays, name: str, default: int) -> int:
    return arrays[name].shape[0] if name in arrays and arrays[name].ndim else default


def _count(arrays: Arrays, prefix: str, default: int) -> int:
    numbers = {name.removeprefix(prefix).split(".")[0] for name in arrays if name.startswith(prefix)}
    return len(numbers) or default


ST_MEM = Reference("st_mem", st_mem_names, st_mem_shapes, table=st_mem_table, tables=st_mem_tables)
ECG_JEPA = Reference("ecg_jepa", ecg_jepa_names, ecg_jepa_shapes, table=ecg_jepa_table, tables=ecg_jepa_tables)
VQ_VAE = Reference("vq_vae", vq_vae_names, vq_vae_shapes)
