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
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
from etils import epath

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.given_files import open_given
from jaxbio.data.recordings.regular_files import size_of
from jaxbio.export.weights import shown

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
# Types that came after storage classes: their tensors name them, and lie in storages of plain bytes.
TYPES = {
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "float8_e8m0fnu": ml_dtypes.float8_e8m0fnu,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
}
_KINDS = {
    **{("torch", name): kind for name, kind in (STORAGE_TYPES | TYPES).items()},
    ("torch.storage", "UntypedStorage"): np.uint8,
}
_PythonUnpickler: Any = pickle._Unpickler
_MOST_PROGRAM = 2**23  # bytes of the pickle, which holds names and shapes: some hundred bytes a tensor
# What torch.save has no use for, and a pickle can be made to take time or memory without end with.
_UNUSED = {
    *("BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER", "LONG4", "DICT", "EMPTY_SET", "ADDITEMS", "FROZENSET"),
    *("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"),
}
_MOST_AXES = 64  # NumPy's
# The tensors of a file may share storages (tied weights, a best epoch beside the last), but not come to more values
# than so many times the file's bytes.
_MOST_SHARED = 16
# What the names of a file may come to; a name counts its characters and 32. Dictionaries that hold one another twice
# have 2**n names in n of them.
_MOST_NAMED = 10**7


def read_tensors(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Return every tensor of the file by its name, the names of nested dictionaries joined by a dot.

    Numbers and strings beside the tensors (an epoch, a configuration) are left out. Raises UserError for a file that
    is no zip archive of `torch.save` (PyTorch before 1.6 wrote another format), is damaged, or asks for any code.
    """
    with open_given(path, missing="name a file of weights that exists") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                program = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                stream = io.BytesIO(_read_program(archive, program))
                unpickler = _TensorUnpickler(stream, archive, program.removesuffix("data.pkl"), size_of(file))
                return _name_tensors(unpickler.load(), _MOST_SHARED * size_of(file))
        except _Refused as refusal:
            remedy = "save the state_dict alone: torch.save(model.state_dict(), file)"
            raise UserError(Fault(str(path), str(refusal), remedy)) from refusal
        except Exception as error:  # a damaged program can fail in any way; each is the file's fault
            said = f"no whole file of torch.save ({shown(str(error))})"
            remedy = f"{said}; copy it again, or save it with PyTorch 1.6 or later"
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
    if not all(isinstance(axes, (tuple, list)) and len(axes) <= _MOST_AXES for axes in (size, stride)):
        raise _Refused("a malformed tensor")
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
    raw = values[offset:].view(np.uint8)  # NumPy takes no buffer of the types of ml_dtypes
    return _Tensor(np.ndarray(size, values.dtype, raw, strides=steps))


def _tensor_of_type(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _Tensor:
    """Return what `torch._utils._rebuild_tensor_v3` describes: `_tensor` of a storage of bytes as the type `kind`."""
    _, _, kind, *_ = rest
    if not isinstance(storage, _Storage) or not isinstance(kind, _StorageType):
        raise _Refused("a malformed tensor")
    return _tensor(_Storage(storage.content.view(kind.content)), offset, size, stride)


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _ordered() -> OrderedDict[Any, Any]:
    return OrderedDict()


NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_of_type,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _TensorUnpickler(_PythonUnpickler):
    """An unpickler that knows tensors, their storages and ordered dictionaries, and no other name.

    It is Python's own in Python, because only that lets the keys of dictionaries be looked at before they are hashed:
    the hash of a tuple that holds another twice, which holds another twice, never ends.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(_PythonUnpickler.dispatch)

    def __init__(self, stream: Any, archive: zipfile.ZipFile, folder: str, most_bytes: int):
        super().__init__(stream)
        self._archive, self._folder, self._left = archive, folder, most_bytes
        self._raw: dict[str, bytes] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KINDS:
            return _StorageType(np.dtype(_KINDS[module, name]))
        if (module, name) not in NAMES:
            raise _Refused(f"it asks for {shown(f'{module}.{name}')}, which is no tensor")
        return _Function(NAMES[module, name])

    def persistent_load(self, reference: Any) -> _Storage:
        match reference:
            case ("storage", _StorageType() as kind, str(key), str(), int(elements)) if key.isdecimal():
                size = elements * kind.content.itemsize
                if key not in self._raw:
                    if size > self._left:
                        raise _Refused("storages of more bytes than the file has")
                    self._raw[key] = _read_plain(self._archive, f"{self._folder}data/{key}", size)
                    self._left -= len(self._raw[key])
                raw = self._raw[key]
                if len(raw) != size:
                    raise _Refused(f"storage {key} has {len(raw)} bytes, its reference says {size}")
                return _Storage(np.frombuffer(raw, kind.content))
        raise _Refused("a reference to something that is no storage")

    def load_setitem(self) -> None:
        self._check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        self._check_keys(self.stack[::2])  # the items since the mark
        super().load_setitems()

    def _check_keys(self, keys: list[Any]) -> None:
        if not all(key is None or type(key) in (str, int, float, bool) for key in keys):
            raise _Refused("a dictionary whose keys are neither texts nor numbers")

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems


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
        if operation.name in _UNUSED:
            raise _Refused(f"its pickle uses {operation.name}, which torch.save does not")
        if "PUT" in operation.name and isinstance(argument, int) and argument > len(program):
            raise _Refused(f"it keeps an object number {argument}")
    return program


def _name_tensors(value: Any, most_values: int) -> dict[str, np.ndarray]:
    """Return the tensors within nested dictionaries by their joined names, each of which must be the only one."""
    found: dict[str, np.ndarray] = {}
    named = values = 0
    for name, item in _walk(value):
        named += 32 + len(name)
        if named > _MOST_NAMED:
            raise _Refused("dictionaries that hold each other without end")
        if isinstance(item, _Tensor):
            if name in found:
                raise _Refused(f"two tensors with the name {shown(name)}")
            found[name] = item.content
            values += item.content.size
            if values > most_values:
                raise _Refused("tensors that share their storages too many times")
    return found


def _walk(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    yield prefix, value
    if isinstance(value, dict):
        for key, item in dict.items(value):  # not what the file may have set instead
            if isinstance(key, str):
                yield from _walk(item, f"{prefix}.{key}" if prefix else key)
