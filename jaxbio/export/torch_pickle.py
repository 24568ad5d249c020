"""Tensors out of a file of `torch.save`, without PyTorch and without running anything the file asks for.

A `.pth` file is a zip archive of a pickle and raw storages. A pickle is a program; this reader gives it the few names
that tensors need, and refuses the file at the first other name, so nothing but tensors ever comes to life.

    arrays = read_tensors("weights.pth")      # {"encoder.output.weight": float32 array, ...}
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from jaxbio.config.faults import Fault, UserError

# Storage classes of PyTorch by name; they stand for the type of their elements.
STORAGE_TYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


def read_tensors(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Return every tensor of the file by its name, the names of nested dictionaries joined by a dot.

    Numbers and strings beside the tensors (an epoch, a configuration) are left out. Raises UserError for a file that
    is no zip archive of `torch.save` (PyTorch before 1.6 wrote another format), is damaged, or asks for any code.
    """
    path = epath.Path(path)
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            program = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(program) as stream:
                return dict(_tensors(_TensorUnpickler(stream, archive, program.removesuffix("data.pkl")).load()))
    except _Refused as refusal:
        raise UserError(
            Fault(str(path), str(refusal), "save the state_dict alone: torch.save(model.state_dict(), file)")
        ) from refusal
    except Exception as error:  # a damaged program can fail in any way; each is the file's fault
        remedy = f"no whole file of torch.save ({error}); copy it again, or save it with PyTorch 1.6 or later"
        raise UserError(Fault(str(path), "unreadable", remedy)) from error


class _Refused(Exception):
    """The pickle asked for something that is no tensor."""


@dataclass(frozen=True)
class _Storage:
    values: np.ndarray


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """Return what `torch._utils._rebuild_tensor_v2` describes, a copy that lies within `storage`."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise _Refused("a malformed tensor")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    entries = math.prod(size)
    if len(size) != len(stride) or entries > len(storage.values) or (entries and last >= len(storage.values)):
        raise _Refused("a tensor that reaches beyond its storage")
    if not entries:
        return np.empty(size, storage.values.dtype)
    steps = [step * storage.values.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage.values[offset:], size, steps).copy()


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that knows tensors, their storages and ordered dictionaries, and no other name."""

    def __init__(self, stream: Any, archive: zipfile.ZipFile, folder: str):
        super().__init__(stream)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGE_TYPES:
            return np.dtype(STORAGE_TYPES[name])
        if (module, name) not in NAMES:
            raise _Refused(f"it asks for {module}.{name}, which is no tensor")
        return NAMES[module, name]

    def persistent_load(self, reference: Any) -> _Storage:
        match reference:
            case ("storage", np.dtype() as dtype, str(key), str(), int()) if key.isdecimal():
                raw = self._archive.read(f"{self._folder}data/{key}")
                return _Storage(np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype))
        raise _Refused("a reference to something that is no storage")


def _tensors(value: Any, prefix: str = "") -> Any:
    if isinstance(value, np.ndarray):
        yield prefix, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _tensors(item, f"{prefix}.{key}" if prefix else key)
