"""Files as torch.save writes them, and as nobody should, without PyTorch."""

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np


def torch_name(module, name):
    """A stand-in that pickles by the name that PyTorch's own would have."""
    function = types.FunctionType((lambda *_: None).__code__, {}, name)
    function.__module__, function.__qualname__ = module, name
    return function


class Tensor:
    def __init__(self, array, storage="FloatStorage", offset=0, size=None, stride=None):
        self.array = np.asarray(array)
        self.storage, self.offset = storage, offset
        self.size = tuple(self.array.shape) if size is None else size
        steps = [step // self.array.itemsize for step in self.array.copy(order="C").strides]
        self.stride = tuple(steps) if stride is None else stride


class TorchPickler(pickle.Pickler):
    """Writes what torch.save writes, without PyTorch: tensors as calls by name, storages as references."""

    def __init__(self, file, modules):
        super().__init__(file, protocol=2)
        self.modules, self.storages = modules, []

    def persistent_id(self, value):
        if isinstance(value, tuple) and value[:1] == ("a storage",):
            tensor = value[1]
            self.storages.append(np.ascontiguousarray(tensor.array).tobytes())
            kind = getattr(self.modules["torch"], tensor.storage)
            return ("storage", kind, str(len(self.storages) - 1), "cpu", tensor.array.size)
        return None

    def reducer_override(self, value):
        if isinstance(value, Tensor):
            call = self.modules["torch._utils"]._rebuild_tensor_v2
            return call, (("a storage", value), value.offset, value.size, value.stride, False, OrderedDict())
        return NotImplemented


def torch_save(tmp_path, monkeypatch, value, name="weights.pth"):
    """Write what torch.save(value, file) writes; return the file."""
    modules = {"torch": types.ModuleType("torch"), "torch._utils": types.ModuleType("torch._utils")}
    for kind in ("FloatStorage", "HalfStorage", "BFloat16Storage", "LongStorage", "OddStorage"):
        setattr(modules["torch"], kind, torch_name("torch", kind))
    for call in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        setattr(modules["torch._utils"], call, torch_name("torch._utils", call))
    with monkeypatch.context() as context:
        for module, stand_in in modules.items():
            context.setitem(sys.modules, module, stand_in)
        stream = io.BytesIO()
        pickler = TorchPickler(stream, modules)
        pickler.dump(value)
    path = write_raw(tmp_path / name, stream.getvalue(), pickler.storages)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("weights/byteorder", "little")
    return path


def write_raw(path, program, storages=(), packed=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr("weights/data.pkl", program)
        for key, raw in enumerate(storages):
            archive.writestr(f"weights/data/{key}", raw)
    return path


class Call:
    """What a pickle with code looks like: loading it would call `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call
