"""SIGMA-PPG's names: github.com/ZonghengGuo/SigmaPPG, commit 0bfd4ef (tokenizer, student, mask generator).

Of the student's checkpoint the backbone and the head in use are read; a second head and a projection are there too, and
unused. Of its channel table of 129 rows one is used, of the tokenizer's two.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxbio.export.torch_names import Arrays, Name, Reference, Shapes
from jaxbio.models.sigma import CodeHead, MaskGenerator, SigmaEncoder
from jaxbio.models.sigma_tokenizer import SigmaTokenizer, SpectrumDecoder

_CHANNEL_ROWS = 129
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_BLOCK = {
    "attention_norm": "norm1",
    "attention/q_norm": "attn.q_norm",
    "attention/k_norm": "attn.k_norm",
    "attention/output": "attn.proj",
    "feedforward_norm": "norm2",
    "feedforward_in": "mlp.fc1",
    "feedforward_out": "mlp.fc2",
}
_BLOCK_ALONE = {
    "attention/qkv/kernel": ("attn.qkv.weight", "qkv"),
    "attention/q_bias": ("attn.q_bias", "flat"),
    "attention/v_bias": ("attn.v_bias", "flat"),
    "attention/output/kernel": ("attn.proj.weight", "inputs"),
    "attention_scale": ("gamma_1", "none"),
    "feedforward_scale": ("gamma_2", "none"),
}
_TASK_LAYERS = {
    "code_hidden": "encode_task_layer.0",
    "code_output": "encode_task_layer.2",
    "amplitude_hidden": "decode_task_layer.0",
    "amplitude_output": "decode_task_layer.2",
    "phase_hidden": "decode_task_layer_angle.0",
    "phase_output": "decode_task_layer_angle.2",
}


def _layer(module: str, leaf: str) -> str:
    return f"{module}.{_LEAVES[leaf]}"


def _block_names(path: str, prefix: str, inside: str, layers: int) -> Iterator[Name]:
    """Yield the names of one array of all blocks; `inside` is its path within a block."""
    alone = _BLOCK_ALONE.get(inside)
    module, _, leaf = inside.rpartition("/")
    reference, joined = alone or (_layer(_BLOCK[module], leaf), "none")
    for layer in range(layers):
        yield Name(f"{prefix}blocks.{layer}.{reference}", path, joined, layer)


def _shared_name(path: str, inside: str, prefix: str, convolutions: str, projection: str) -> Name:
    """Return the name of an array that every network of the family has alike."""
    *modules, leaf = inside.split("/")
    match modules:
        case ["embedding"] if leaf.startswith("conv"):
            convolution, kind = leaf.split("_")
            return Name(
                f"{prefix}{convolutions}.{_layer(convolution, kind)}", path, "height" if kind == "kernel" else "none"
            )
        case ["embedding", "projection"]:
            return Name(f"{prefix}{_layer(projection, leaf)}", path)
        case ["embedding", norm]:
            return Name(f"{prefix}{convolutions}.{_layer(norm, leaf)}", path)
        case ["time"]:
            return Name(f"{prefix}time_embed", path, "table")
        case []:
            return Name(prefix + {"class_token": "cls_token", "mask_token": "mask_token"}[leaf], path, "token")
        case _:
            return Name(f"{prefix}{_layer('.'.join(modules), leaf)}", path)


def _names(shapes: Shapes, name_of: Callable[[str, str, Shapes], Name], prefixes: Mapping[str, str]) -> Iterator[Name]:
    """Yield the names of all arrays: those of blocks by the common rule, the others by `name_of(path, inside part)`."""
    for path, leaf in shapes.items():
        _, part, *rest = path.split("/")
        inside = "/".join(rest)
        if inside.startswith("transformer/blocks/"):
            within = inside.removeprefix("transformer/blocks/")
            yield from _block_names(path, prefixes[part], within, leaf.shape[0])
        else:
            yield name_of(path, inside, shapes)


def tokenizer_names(shapes: Shapes) -> Iterator[Name]:
    """Yield the table of the tokenizer and its decoder."""
    return _names(shapes, _tokenizer_name, {"encoder": "encoder.", "decoder": "decoder."})


def _tokenizer_name(path: str, inside: str, shapes: Shapes) -> Name:
    part = path.split("/")[1]
    module, _, leaf = inside.rpartition("/")
    if inside == "code_KZ":
        return Name("quantize.embedding.weight", path, "transposed")
    if module in _TASK_LAYERS:
        return Name(_layer(_TASK_LAYERS[module], leaf), path)
    if inside == "position_table":
        tokens = shapes["params/encoder/time/time_table"].shape[0]
        return Name("encoder.pos_embed", path, "table", rows=(0, tokens + 1))
    if module == "patch_norm":
        return Name(_layer("encoder.fc_norm", leaf), path)
    if part == "decoder" and module == "embedding":
        return Name(_layer("decoder.patch_embed.proj", leaf), path, "pointwise" if leaf == "kernel" else "none")
    return _shared_name(path, inside, f"{part}.", "patch_embed", "patch_proj")


def student_names(shapes: Shapes) -> Iterator[Name]:
    """Yield the table of the student and its head."""
    return _names(shapes, _student_name, {"encoder": "student."})


def _student_name(path: str, inside: str, shapes: Shapes) -> Name:
    module, _, leaf = inside.rpartition("/")
    if module == "output":
        return Name(_layer("lm_head", leaf), path)
    if inside == "position":
        return Name("student.pos_embed", path, "table", rows=(1, _CHANNEL_ROWS))
    return _shared_name(path, inside, "student.", "patch_embed_conv", "patch_embed_projection")


def mask_generator_names(shapes: Shapes) -> Iterator[Name]:
    """Yield the table of the mask generator."""
    return _names(shapes, _mask_generator_name, {"encoder": ""})


def _mask_generator_name(path: str, inside: str, shapes: Shapes) -> Name:
    if inside == "time/time_table":
        return Name("pos_embed", path, "table")
    return _shared_name(path, inside, "", "patch_embed", "proj")


def tokenizer_shapes(arrays: Arrays, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return our trees as shapes; depth and heads of the decoder come from `arrays`."""
    encoder = SigmaTokenizer(**fields)
    layers = len({name.split(".")[2] for name in arrays if name.startswith("decoder.blocks.")})
    phase = any(name.startswith("decode_task_layer_angle.") for name in arrays)
    decoder = SpectrumDecoder(encoder.width, layers or 1, encoder.heads, encoder.tokens, encoder.patch, phase)

    def init() -> dict[str, Any]:
        key = jax.random.key(0)
        own = encoder.init(key, jnp.zeros((1, 1, encoder.tokens * encoder.patch)))
        theirs = decoder.init(key, jnp.zeros((1, encoder.tokens, encoder.code_width)))
        return {
            "params": {"encoder": own["params"], "decoder": theirs["params"]},
            "codebook": {"encoder": own["codebook"]},
        }

    return jax.eval_shape(init)


def student_shapes(arrays: Arrays, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return our trees as shapes; the number of codes comes from `arrays`."""
    encoder = SigmaEncoder(**fields)
    head = CodeHead(len(arrays.get("lm_head.bias", [0])))

    def init() -> dict[str, Any]:
        key, x_BCT = jax.random.key(0), jnp.zeros((1, 1, encoder.tokens * encoder.patch))
        return {
            "params": {
                "encoder": encoder.init(key, x_BCT)["params"],
                "head": head.init(key, jnp.zeros((1, 1, encoder.width)))["params"],
            }
        }

    return jax.eval_shape(init)


def mask_generator_shapes(arrays: Arrays, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return our tree as shapes."""
    network = MaskGenerator(**fields)
    x_BCT = jnp.zeros((1, 1, network.tokens * network.patch))
    return jax.eval_shape(lambda: {"params": {"encoder": network.init(jax.random.key(0), x_BCT)["params"]}})


TOKENIZER = Reference(
    "sigma_tokenizer",
    tokenizer_names,
    tokenizer_shapes,
    (
        "quantize.cluster_size",
        "quantize.embedding.cluster_size",
        "quantize.embedding.embed_avg",
        "quantize.embedding.initted",
    ),
)
STUDENT = Reference("sigma_ppg", student_names, student_shapes, ("student.lm_head.", "projection_head."))
MASK_GENERATOR = Reference("", mask_generator_names, mask_generator_shapes)
