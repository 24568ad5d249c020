"""What all processes of a run must have in common when it starts: compared before a device is touched.

check_same_start(peers, config, workdir, resume, data, weights=[])
"""

import hashlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from ml_collections import ConfigDict

import jaxbio
from jaxbio.config import changes
from jaxbio.training.checkpoint import Meta, list_steps
from jaxbio.training.peers import Peers

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")

# Where things lie and how a host reads them are its own affair; what is in store and file is compared by its hash.
OF_ONE_HOST = (
    "data.store",
    "data.exclude_subjects",
    "data.cache",
    "data.read_threads",
    "data.prefetch",
    "train.compile_cache",
)

_SAME_STORE = "the hosts read other data: name the same store, and the same index, on every host"
_SAME_PROGRAM = "the hosts would run other programs: give data.cache=device to every host, or to none"
_SAME_WEIGHTS = "the hosts start from other weights: name the same exports on every host"
_SAME_CODE = "the hosts run other code: bring the same jaxbio and the same packages to every host"
_SAME_WORKDIR = "the hosts see other checkpoints: --workdir must be one folder that all hosts share"


class SameData(Protocol):
    """What says which data a run reads."""

    @property
    def store_hash(self) -> str: ...
    @property
    def index_hash(self) -> str: ...
    @property
    def label_hashes(self) -> Mapping[str, str]: ...


def check_same_start(
    peers: Peers, config: ConfigDict, workdir: Path, resume: Meta | None, data: SameData, weights: Sequence[str]
) -> None:
    """Compare configuration, code, checkpoints, data and the hashes of `weights` to start from over the processes.

    Raises EndedByPeer in all of them, with exit code 2 and a line for each name that differs.
    """
    fields = {name: value for name, value in changes.to_plain(config).items() if name not in OF_ONE_HOST}
    others: dict[str, tuple[Any, str]] = {
        "data.store": (data.store_hash[:12], _SAME_STORE),
        "pairs": (data.index_hash, _SAME_STORE),
        "whether data.cache is device": (config.data.cache == "device", _SAME_PROGRAM),
        "values of data.labels": (dict(data.label_hashes), _SAME_STORE),
        "weights to start from": ([sha256[:12] for sha256 in weights], _SAME_WEIGHTS),
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
