"""Weights of the PyTorch reference implementations: their names as one table, read both ways.

    arrays = read_reference("weights.pth")                                # or .npz, .safetensors; no PyTorch needed
    variables = from_reference("qualityfm", arrays, {"width": 512, ...})    # of the encoder, for module.apply
    params = params_from_reference("qualityfm", arrays, {...})              # decoder and heads too
    arrays = to_reference("qualityfm", params)

Every array turns by one rule: reverse the axes (PyTorch keeps outputs first), then split or join the heads.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxbio.config.faults import Fault, UserError
from jaxbio.export.torch_pickle import read_tensors
from jaxbio.export.weights import flatten_tree, match_weights, read_flat_weights, unflatten_tree
from jaxbio.models.qualityfm import QualityFMEncoder, SpectrumHead

Arrays = Mapping[str, np.ndarray]

# Which axes of ours are one axis of the reference's, before all are reversed.
JOINED: dict[str, Callable[[Any], Any]] = {
    "none": lambda a: a,
    "outputs": lambda a: a.reshape(a.shape[0], -1),
    "inputs": lambda a: a.reshape(-1, a.shape[-1]),
    "all": lambda a: a.reshape(-1),
}


@dataclass(frozen=True)
class Name:
    """One array under both names; `layer` is its place in our stacked array, `joined` a key of JOINED."""

    reference: str
    path: str
    joined: str = "none"
    layer: int | None = None


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
    ("self_attn.in_proj_weight", "attention/qkv/kernel", "outputs"),
    ("self_attn.in_proj_bias", "attention/qkv/bias", "all"),
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


def qualityfm_names(layers: int) -> Iterator[Name]:
    """Yield the table of QualityFM (github.com/ZonghengGuo/Multimodal_PhyFM_on_Quality, commit 41f6a18)."""
    for part in ("encoder", "decoder"):
        for reference, path in _TOKENIZER:
            yield Name(f"{part}.{reference}", f"{part}/{path}")
        for layer in range(layers):
            for reference, path, joined in _BLOCK:
                yield Name(
                    f"{part}.longformer_encoder.layers.{layer}.{reference}",
                    f"{part}/transformer/blocks/{path}",
                    joined,
                    layer,
                )
        for leaf in ("weight", "bias"):
            yield Name(f"{part}.output_feature_layer.{leaf}", f"{part}/output/{_OURS[leaf]}")
    for reference, part in _HEADS.items():
        for number, layer_name in ((0, "hidden"), (2, "output")):
            for leaf in ("weight", "bias"):
                yield Name(f"{reference}.{number}.{leaf}", f"{part}/{layer_name}/{_OURS[leaf]}")


def qualityfm_shapes(arrays: Arrays, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return our parameters as shapes; the numbers of input channels, which no field holds, come from `arrays`."""
    encoder = QualityFMEncoder(**fields)
    head = SpectrumHead(encoder.width)
    key = jax.random.key(0)

    def network(part: str) -> Any:
        kernel = arrays.get(f"{part}.patch_embed.conv1.weight")
        channels = kernel.shape[1] if kernel is not None and kernel.ndim == 3 else 1
        return encoder.init(key, jnp.zeros((1, channels, encoder.width)))["params"]

    def init() -> dict[str, Any]:
        heads = {part: head.init(key, jnp.zeros((1, 1, encoder.width)))["params"] for part in _HEADS.values()}
        return {"encoder": network("encoder"), "decoder": network("decoder"), **heads}

    return jax.eval_shape(init)


@dataclass(frozen=True)
class Family:
    """How one reference implementation's arrays become ours."""

    names: Callable[[int], Iterator[Name]]
    shapes: Callable[[Arrays, Mapping[str, Any]], dict[str, Any]]


FAMILIES = {"qualityfm": Family(qualityfm_names, qualityfm_shapes)}


def read_reference(path: epath.PathLike, prefix: str = "") -> dict[str, np.ndarray]:
    """Return the arrays of `path` whose names begin with `prefix`, by the rest of their names; floats as float32.

    `.npz` by array name; `.safetensors` by key; `.pth` and `.pt` as `torch.save` writes them, nested names joined by a
    dot. Raises UserError for another or unreadable file, one that holds more than tensors, and an unused prefix.
    """
    path = epath.Path(path)
    readers = {".npz": _read_npz, ".safetensors": read_flat_weights, ".pth": read_tensors, ".pt": read_tensors}
    if path.suffix not in readers:
        raise UserError(Fault(str(path), path.suffix, f"a file of {', '.join(sorted(readers))}"))
    if not path.is_file():
        raise UserError(Fault(str(path), "missing", "name a file of weights that exists"))
    arrays = readers[path.suffix](path)
    chosen = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    if not chosen:
        first = ", ".join(sorted(arrays)[:5])
        raise UserError(Fault("--prefix", prefix, f"a prefix of the names in {path}, which begin {first}"))
    return {name: _widen(array) for name, array in chosen.items()}


def from_reference(family: str, arrays: Arrays, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the encoder's variables, for `ENCODERS[family](**fields).apply`; raises as `params_from_reference`."""
    return {"params": params_from_reference(family, arrays, fields)["encoder"]}


def params_from_reference(family: str, arrays: Arrays, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the objective's parameters (float32 NumPy) from the reference's `arrays`; a file may hold a part of them.

    `fields` construct the encoder. A part (encoder, decoder, a head) of which `arrays` have no name is left out, the
    encoder never. Raises UserError for a family without a table, and WeightsMismatch, which names every missing,
    unknown and misshapen array.
    """
    table = _table(family, fields["layers"])
    shapes = flatten_tree(FAMILIES[family].shapes(arrays, fields))
    present = {_part(name) for name in table if name.reference in arrays} | {"encoder"}
    wanted = [name for name in table if _part(name) in present]
    match_weights(arrays, {name.reference: _turned_shape(name, shapes) for name in wanted}, f"{family} weights")
    stacked: dict[str, list[np.ndarray]] = {}
    for name in wanted:
        shape = shapes[name.path].shape[name.layer is not None :]
        stacked.setdefault(name.path, []).append(np.asarray(arrays[name.reference], np.float32).T.reshape(shape))
    flat = {
        path: np.stack(layers) if "/blocks/" in path else np.ascontiguousarray(layers[0])
        for path, layers in stacked.items()
    }
    return unflatten_tree(flat)


def to_reference(family: str, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the objective's parameters, or some parts of them, under the reference's names and in its layout."""
    flat = flatten_tree(params)
    layers = max((leaf.shape[0] for path, leaf in flat.items() if "/blocks/" in path), default=0)
    return {
        name.reference: np.ascontiguousarray(_turn(name, np.asarray(flat[name.path])))
        for name in _table(family, layers)
        if name.path in flat
    }


def _table(family: str, layers: int) -> list[Name]:
    if family not in FAMILIES:
        raise UserError(Fault("--family", family, f"one of {', '.join(sorted(FAMILIES))}"))
    return list(FAMILIES[family].names(layers))


def _part(name: Name) -> str:
    return name.path.split("/")[0]


def _turn(name: Name, array: Any) -> Any:
    layer = array if name.layer is None else array[name.layer]
    return JOINED[name.joined](layer).T


def _turned_shape(name: Name, shapes: Mapping[str, Any]) -> Any:
    return jax.eval_shape(lambda array: _turn(name, array), shapes[name.path])


def _read_npz(path: epath.Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(Fault(str(path), "unreadable", f"no whole .npz of plain arrays ({error})")) from error


def _widen(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.kind in "fV" else array
