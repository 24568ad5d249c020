"""What all processes of a run must have in common when it starts: compared before a device is touched.

check_same_start(peers, config, workdir, resume, data)          # EndedByPeer, in all of them, where something differs
"""

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import jaxbio
from jaxbio.config import changes
from jaxbio.training.checkpoint import Meta, list_steps
from jaxbio.training.peers import Peers

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")

# Where the store lies and how a host reads it are its own affair; what is in the store is compared by its hash.
OF_ONE_HOST = ("data.store", "data.cache", "data.read_threads", "data.prefetch")

_SAME_STORE = "the hosts read other data: name the same store, and the same index, on every host"
_SAME_CODE = "the hosts run other code: bring the same jaxbio and the same packages to every host"
_SAME_WORKDIR = "the hosts see other checkpoints: --workdir must be one folder that all hosts share"


def check_same_start(
    peers: Peers, config: ConfigDict, workdir: Path, resume: Meta | None, store_hash: str, index_hash: str
) -> None:
    """Compare configuration, code, checkpoints and data over the processes.

    Raises EndedByPeer in all of them, with exit code 2 and a line for each name that differs.
    """
    if peers.alone:
        return
    fields = {name: value for name, value in changes.to_plain(config).items() if name not in OF_ONE_HOST}
    others: dict[str, tuple[Any, str]] = {
        "data.store": (store_hash[:12], _SAME_STORE),
        "pairs": (index_hash[:12], _SAME_STORE),
        "code": (hash_code()[:12], _SAME_CODE),
        "checkpoints": (list_steps(workdir / "checkpoints"), _SAME_WORKDIR),
        "step to go on from": (resume.step if resume else None, _SAME_WORKDIR),
        **{f"version of {name}": (version, _SAME_CODE) for name, version in versions().items()},
    }
    remedies = {name: remedy for name, (_, remedy) in others.items()}
    peers.agree("the start", fields | {name: value for name, (value, _) in others.items()}, remedies)


def versions() -> Mapping[str, str]:
    """Return the versions of jaxbio and of the packages that a run depends on."""
    return {name: metadata.version(name) for name in PACKAGES} | {"jaxbio": jaxbio.__version__}


def hash_code() -> str:
    """Return the SHA-256 of jaxbio's source files, names and contents."""
    folder, digest = Path(jaxbio.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
