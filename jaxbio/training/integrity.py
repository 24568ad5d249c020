"""Whether what was read back is what was saved: sums of bits by leaf, checksums by file.

Orbax restores flipped bits silently. So a checkpoint carries one uint32 sum of bits for every leaf, computed on the
device before saving and again after restoring, and, once it is finished, a checksum of every file.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxbio.data.whole_files import UNFINISHED, whole_file
from jaxbio.training.state import leaf_paths

SEAL = "files.json"
_CHUNK_BYTES = 2**22


def sum_bits(tree: Any) -> dict[str, int]:
    """Return, by leaf path, the sum modulo 2^32 of the leaf's words read as unsigned integers.

    Computed where the leaves lie; the order of summation does not matter, so another mesh gives the same. A single
    flipped bit changes the sum always.
    """
    leaves = leaf_paths(tree)
    if not leaves:
        return {}
    first = next(iter(leaves.values())).sharding
    out = NamedSharding(first.mesh, PartitionSpec()) if isinstance(first, NamedSharding) else first
    sums = np.asarray(jax.jit(_sum_leaves, out_shardings=out)(list(leaves.values())))
    return dict(zip(leaves, sums.tolist()))


def sum_bits_host(array: np.ndarray) -> int:
    """Return the same sum of a NumPy array."""
    words = np.ascontiguousarray(array).reshape(-1).view(f"u{array.dtype.itemsize}")
    return int(words.sum(dtype=np.uint64)) & 0xFFFFFFFF


def _sum_leaves(leaves: list[jax.Array]) -> jax.Array:
    return jnp.stack([_sum_leaf(leaf) for leaf in leaves])


def _sum_leaf(leaf: jax.Array) -> jax.Array:
    leaf = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf
    word = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
    return jax.lax.bitcast_convert_type(leaf, word).astype(jnp.uint32).sum(dtype=jnp.uint32)


def seal(folder: Path) -> None:
    """Write the checksums of all files below `folder` into its `files.json`, which carries its own."""
    files = {str(path.relative_to(folder)): _checksum(path) for path in _files(folder)}
    with whole_file(folder / SEAL) as unfinished:
        unfinished.write_text(json.dumps({"files": files, "crc32": checksum_json(files)}))


def find_broken_files(folder: Path, share: int = 0, shares: int = 1) -> list[str] | None:
    """Return the files below `folder` that are not what was sealed; None where it was never sealed.

    Of `shares` callers each reads the files of its own `share`; which files there are is seen by all.
    """
    path = folder / SEAL
    if not path.exists():
        return None
    try:
        sealed = json.loads(path.read_text())
        files: Mapping[str, int] = sealed["files"]
        if set(sealed) != {"files", "crc32"} or checksum_json(files) != sealed["crc32"]:
            return [SEAL]
    except (ValueError, KeyError, TypeError):
        return [SEAL]
    found = {str(path.relative_to(folder)): path for path in _files(folder)}
    read = sorted(files.keys() & found.keys())[share::shares]
    return sorted((files.keys() ^ found.keys()) | {name for name in read if _checksum(found[name]) != files[name]})


def checksum_json(value: Any) -> int:
    """Return the CRC-32 of `value` as JSON with sorted keys."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith((SEAL, UNFINISHED)))


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc
