"""Tensors out of a file of `torch.save`, without PyTorch and without running anything the file asks for.

A `.pth` file is a zip archive of a pickle and raw storages. A pickle is a program; this reader gives it the few names
that tensors need, and refuses the file at the first other name, so nothing but tensors ever comes to life. Nothing
that it gets hold of takes attributes, and what is read and named is bounded by the size of the file.

    arrays = read_tensors("weights.pth")      # {"encoder.output.weight": float32 array, ...}
"""

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
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
_MOST_PROGRAM = 2**26  # bytes of the pickle, which holds names and shapes: some hundred bytes a tensor
# What the names of a file may come to; a name counts its characters and 32. Dictionaries that hold one another twice
# have 2**n names in n of them.
_MOST_NAMED = 10**7


def read_tensors(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Return every tensor of the file by its name, the names of nested dictionaries joined by a dot.

    Numbers and strings beside the tensors (an epoch, a configuration) are left out. Raises UserError for a file that
    is no zip archive of `torch.save` (PyTorch before 1.6 wrote another format), is damaged, or asks for any code.
    """
    path = epath.Path(path)
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            program = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            stream = io.BytesIO(_read_program(archive, program))
            return _name_tensors(_TensorUnpickler(stream, archive, program.removesuffix("data.pkl")).load())
    except _Refused as refusal:
        raise UserError(
            Fault(str(path), str(refusal), "save the state_dict alone: torch.save(model.state_dict(), file)")
        ) from refusal
    except Exception as error:  # a damaged program can fail in any way; each is the file's fault
        remedy = f"no whole file of torch.save ({error}); copy it again, or save it with PyTorch 1.6 or later"
        raise UserError(Fault(str(path), "unreadable", remedy)) from error


class _Refused(Exception):
    """The pickle asked for something that is no tensor."""


class _Handed:
    """What a pickle gets hold of: made anew for each use, and without attributes, which its opcode BUILD would set."""

    __slots__ = ("content",)
    content: Any

    def __init__(self, content: Any):
        object.__setattr__(self, "content", content)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused(f"it sets {name} of what its reader gave it")


class _Function(_Handed):
    __slots__ = ()

    def __call__(self, *arguments: Any) -> Any:
        return self.content(*arguments)


class _StorageType(_Handed):
    __slots__ = ()


class _Storage(_Handed):
    __slots__ = ()


class _Tensor(_Handed):
    __slots__ = ()


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    """Return what `torch._utils._rebuild_tensor_v2` describes, a view that lies within `storage`."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise _Refused("a malformed tensor")
    values = storage.content
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    entries = math.prod(size)
    if len(size) != len(stride) or entries > len(values) or (entries and last >= len(values)):
        raise _Refused("a tensor that reaches beyond its storage")
    if not entries:
        return _Tensor(np.empty(size, values.dtype))
    steps = [step * values.itemsize for step in stride]
    return _Tensor(np.lib.stride_tricks.as_strided(values[offset:], size, steps, writeable=False))


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
        self._raw: dict[str, bytes] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGE_TYPES:
            return _StorageType(np.dtype(STORAGE_TYPES[name]))
        if (module, name) not in NAMES:
            raise _Refused(f"it asks for {module}.{name}, which is no tensor")
        return _Function(NAMES[module, name])

    def persistent_load(self, reference: Any) -> _Storage:
        match reference:
            case ("storage", _StorageType() as kind, str(key), str(), int(elements)) if key.isdecimal():
                size = elements * kind.content.itemsize
                if key not in self._raw:
                    self._raw[key] = _read_plain(self._archive, f"{self._folder}data/{key}", size)
                raw = self._raw[key]
                if len(raw) != size:
                    raise _Refused(f"storage {key} has {len(raw)} bytes, its reference says {size}")
                return _Storage(np.frombuffer(raw, kind.content))
        raise _Refused("a reference to something that is no storage")


def _read_plain(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Return an entry of at most `most` bytes; a larger or packed one, as torch.save has none, is refused."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise _Refused(f"its entry {name} is compressed")
    if entry.file_size > most:
        raise _Refused(f"its entry {name} has {entry.file_size} bytes, at most {most} are read")
    return archive.read(entry)


def _read_program(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return the pickle, refused where it numbers what it keeps beyond its own length: there is room up to the last."""
    program = _read_plain(archive, name, _MOST_PROGRAM)
    for operation, argument, _ in pickletools.genops(program):
        if "PUT" in operation.name and isinstance(argument, int) and argument > len(program):
            raise _Refused(f"it keeps an object number {argument}")
    return program


def _name_tensors(value: Any) -> dict[str, np.ndarray]:
    """Return the tensors within nested dictionaries by their joined names, each of which must be the only one."""
    found: dict[str, np.ndarray] = {}
    named = 0
    for name, item in _walk(value):
        named += 32 + len(name)
        if named > _MOST_NAMED:
            raise _Refused("dictionaries that hold each other without end")
        if isinstance(item, _Tensor):
            if name in found:
                raise _Refused(f"two tensors with the name {name}")
            found[name] = item.content
    return found


def _walk(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    yield prefix, value
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _walk(item, f"{prefix}.{key}" if prefix else key)
