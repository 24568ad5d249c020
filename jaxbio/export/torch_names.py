"""What the reference implementations call their arrays: a table for each family, from our paths to theirs.

Our paths begin with the collection (`params/encoder/...`, `batch_stats/encoder/...`); theirs are PyTorch's parameter
names. Every array turns by one rule: reverse the axes (PyTorch keeps outputs first), then split, join or drop some of
them (`torch_turns`). Tables of some families stand in files of their own.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbio.models.projection import Predictor, projected_resnet1d
from jaxbio.models.qualityfm import QualityFMEncoder, SpectrumHead

Arrays = Mapping[str, np.ndarray]
Shapes = Mapping[str, Any]  # our flat paths -> anything with a shape


@dataclass(frozen=True)
class Name:
    """One array under both names; `layer` is its place in our stacked array, `joined` how its axes differ (a name of
    `torch_turns.TURNS`). `rows`: ours are those rows of theirs from the first number on, of as many as the second.
    """

    reference: str
    path: str
    joined: str = "none"
    layer: int | None = None
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class Reference:
    """One reference implementation: the registry name of its encoder, its names, and our shapes for its arrays.

    `unread` begin the names of arrays that its checkpoints hold and nothing of it uses. Where it keeps tables among its
    weights that we compute, `table(name, array)` is what such an array must hold (None: it is no table), and
    `tables(shapes, (channels, samples))` are those of an input of this shape.
    """

    encoder: str
    names: Callable[[Shapes], Iterator[Name]]
    shapes: Callable[[Arrays, Mapping[str, Any]], dict[str, Any]]
    unread: tuple[str, ...] = ()
    table: Callable[[str, np.ndarray], np.ndarray | None] = lambda name, array: None
    tables: Callable[[Shapes, tuple[int, int]], dict[str, np.ndarray]] = lambda shapes, input_shape: {}


# ---- QualityFM: github.com/ZonghengGuo/Multimodal_PhyFM_on_Quality, commit 41f6a18

_TOKENIZER = [
    pair
    for i in (1, 2, 3)
    for pair in (
        (f"patch_embed.conv{i}.weight", f"tokenizer/conv{i}/kernel"),
        (f"patch_embed.conv{i}.bias", f"tokenizer/conv{i}/bias"),
        (f"patch_embed.norm{i}.weight", f"tokenizer/norm{i}/scale"),
        (f"patch_embed.norm{i}.bias", f"tokenizer/norm{i}/bias"),
    )
]
_BLOCK = [
    ("self_attn.in_proj_weight", "attention/qkv/kernel", "qkv"),
    ("self_attn.in_proj_bias", "attention/qkv/bias", "qkv"),
    ("self_attn.out_proj.weight", "attention/output/kernel", "inputs"),
    ("self_attn.out_proj.bias", "attention/output/bias", "none"),
    ("linear1.weight", "feedforward_in/kernel", "none"),
    ("linear1.bias", "feedforward_in/bias", "none"),
    ("linear2.weight", "feedforward_out/kernel", "none"),
    ("linear2.bias", "feedforward_out/bias", "none"),
    ("norm1.weight", "attention_norm/scale", "none"),
    ("norm1.bias", "attention_norm/bias", "none"),
    ("norm2.weight", "feedforward_norm/scale", "none"),
    ("norm2.bias", "feedforward_norm/bias", "none"),
]
_OURS = {"weight": "kernel", "bias": "bias"}
_HEADS = {"decoder_amp_layer": "amplitude_head", "decoder_pha_layer": "phase_head"}


def qualityfm_names(shapes: Shapes) -> Iterator[Name]:
    """Yield the table of QualityFM."""
    layers = max((leaf.shape[0] for path, leaf in shapes.items() if "/blocks/" in path), default=0)
    for part in ("encoder", "decoder"):
        for reference, path in _TOKENIZER:
            yield Name(f"{part}.{reference}", f"params/{part}/{path}")
        for layer in range(layers):
            for reference, path, joined in _BLOCK:
                theirs = f"{part}.longformer_encoder.layers.{layer}.{reference}"
                yield Name(theirs, f"params/{part}/transformer/blocks/{path}", joined, layer)
        for leaf in ("weight", "bias"):
            yield Name(f"{part}.output_feature_layer.{leaf}", f"params/{part}/output/{_OURS[leaf]}")
    for reference, part in _HEADS.items():
        for number, layer_name in ((0, "hidden"), (2, "output")):
            for leaf in ("weight", "bias"):
                yield Name(f"{reference}.{number}.{leaf}", f"params/{part}/{layer_name}/{_OURS[leaf]}")


def qualityfm_shapes(arrays: Arrays, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return our trees as shapes; the numbers of input channels, which no field holds, come from `arrays`."""
    encoder = QualityFMEncoder(**fields)
    head = SpectrumHead(encoder.width)
    key = jax.random.key(0)

    def network(part: str) -> Any:
        kernel = arrays.get(f"{part}.patch_embed.conv1.weight")
        channels = kernel.shape[1] if kernel is not None and kernel.ndim == 3 else 1
        return encoder.init(key, jnp.zeros((1, channels, encoder.width)))["params"]

    def init() -> dict[str, Any]:
        heads = {part: head.init(key, jnp.zeros((1, 1, encoder.width)))["params"] for part in _HEADS.values()}
        return {"params": {"encoder": network("encoder"), "decoder": network("decoder"), **heads}}

    return jax.eval_shape(init)


# ---- SiamQuality: github.com/chengding0713/SiamQuality, commit 12b455a

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_SHORTCUT = {"shortcut": "shortcut.0", "shortcut_bn": "shortcut.1"}
_PROJECTOR = {"fc0": 0, "bn0": 1, "fc1": 3, "bn1": 4, "fc2": 6, "bn2": 7}  # places in the reference's Sequential
_PREDICTOR = {"fc0": 0, "bn0": 1, "fc1": 3}


def siamquality_names(shapes: Shapes) -> Iterator[Name]:
    """Yield the table of SiamQuality, whose layers have our names but for the three that are a Sequential there."""
    deep_projector = any("/projector/bn0/" in path for path in shapes)
    for path in shapes:
        _, part, *modules, leaf = path.split("/")
        if part == "projector":
            place = f"fc.{_PROJECTOR[modules[0]]}" if deep_projector else "fc"
            reference = f"encoder.{place}"
        elif part == "predictor":
            reference = f"predictor.{_PREDICTOR[modules[0]]}"
        else:
            reference = ".".join([part, *(_SHORTCUT.get(module, module.replace("_", ".")) for module in modules)])
        yield Name(f"{reference}.{_LEAVES[leaf]}", path)


def siamquality_shapes(arrays: Arrays, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return our trees as shapes; widths and depth of projector and predictor come from `arrays`."""
    deep = "encoder.fc.6.weight" in arrays
    stem, last = arrays.get("encoder.conv0.weight"), arrays.get("encoder.fc.6.weight" if deep else "encoder.fc.weight")
    hidden = arrays.get("predictor.0.weight")
    channels = 1 if stem is None or stem.ndim != 3 else stem.shape[1]
    width = 256 if last is None else last.shape[0]
    network = projected_resnet1d(**fields, projector_width=width, projector_layers=3 if deep else 1)
    predictor = Predictor(512 if hidden is None else hidden.shape[0], width)
    key = jax.random.key(0)

    def init() -> dict[str, Any]:
        whole = network.init(key, jnp.zeros((1, channels, 400)))
        head = predictor.init(key, jnp.zeros((1, width)), False)
        return {kind: {**whole[kind], "predictor": head[kind]} for kind in ("params", "batch_stats")}

    return jax.eval_shape(init)


QUALITYFM = Reference("qualityfm", qualityfm_names, qualityfm_shapes)
SIAMQUALITY = Reference("resnet1d", siamquality_names, siamquality_shapes)
