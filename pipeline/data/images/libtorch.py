"""torch's kernels without torch's Python: libtorch, by the C interface that it keeps stable.

`import torch` takes seconds and brings CUDA's libraries along, 300 MB of a process that only renders images.
The kernels themselves lie in libtorch_cpu; the interface is torch/csrc/stable/c/shim.h of torch 2.11.
"""

import ctypes
import functools
import importlib.util
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import UserError

BUILT_FOR = 2 << 56 | 11 << 48  # the interface's version, as libtorch writes it
NONE = 0  # where an operator takes an optional argument
# As libtorch numbers element types, devices and layouts; checked when it is loaded.
KINDS = {"B": 0, "f": 6}  # uint8, float32, by NumPy's letters
CPU, ANY, STRIDED = 0, -1, 0
Handle = ctypes.c_void_p
Number = ctypes.c_int64
Slot = ctypes.c_uint64  # an argument of any kind: an integer itself, a handle of all else
AXES = [struct.Struct(f"{axes}q") for axes in range(5)]  # packing takes a third of filling a ctypes array
SIGNATURES: dict[str, tuple[type, ...]] = {
    "torch_call_dispatcher": (ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Slot), Slot),
    "torch_from_blob": (
        ctypes.c_void_p, Number, ctypes.c_char_p, ctypes.c_char_p, Number, ctypes.c_int32,
        ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(Handle), ctypes.c_int32, ctypes.c_void_p, Number,
        ctypes.c_void_p, ctypes.c_void_p,
    ),
    "torch_new_list_reserve_size": (ctypes.c_size_t, ctypes.POINTER(Handle)),
    "torch_list_push_back": (Handle, Slot),
    "aoti_torch_delete_tensor_object": (Handle,),
}  # fmt: skip


def call(operator: str, overload: str, arguments: Sequence[int], returned: int) -> None:
    """Call an operator of aten that writes into its arguments.

    It takes all handles with it, and its results, `returned` tensors that are arguments again, are dropped.
    """
    stack = (Slot * max(len(arguments), returned))(*arguments)
    _check(_libtorch().torch_call_dispatcher(operator.encode(), overload.encode(), stack, BUILT_FOR))
    for tensor in stack[:returned]:
        _check(_libtorch().aoti_torch_delete_tensor_object(tensor))


def tensor(array: np.ndarray) -> int:
    """A tensor over the array's memory, for one call in which the array lives."""
    handle, axes, width = Handle(), array.ndim, array.itemsize
    sizes = AXES[axes].pack(*array.shape)
    strides = AXES[axes].pack(*[step // width for step in array.strides])
    data, kind, place = array.ctypes.data, KINDS[array.dtype.char], ctypes.byref(handle)
    make = _libtorch().torch_from_blob
    _check(make(data, axes, sizes, strides, 0, kind, CPU, ANY, place, STRIDED, None, 0, None, None))
    return _value(handle)


def several(items: Sequence[int]) -> int:
    """A list of integers or of tensors, for one call."""
    lib, handle = _libtorch(), Handle()
    _check(lib.torch_new_list_reserve_size(len(items), ctypes.byref(handle)))
    for item in items:
        _check(lib.torch_list_push_back(handle, item))
    return _value(handle)


def _value(handle: ctypes.c_void_p) -> int:
    assert handle.value is not None, "libtorch gave no handle"
    return handle.value


def _check(failed: int) -> None:
    if failed:
        raise RuntimeError(_libtorch().torch_exception_get_what_without_backtrace().decode())


@functools.cache
def _libtorch() -> ctypes.CDLL:
    found = importlib.util.find_spec("torch")  # found, not imported
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "lib"
    [path] = [*folder.glob("libtorch_cpu.*"), *folder.glob("torch_cpu.dll")]
    library = ctypes.CDLL(str(path))
    try:
        for name, kinds in SIGNATURES.items():
            getattr(library, name).argtypes = kinds
    except AttributeError:
        raise UserError(f"{path} is older than torch 2.11; install the versions of constraints.txt") from None
    numbers = (library.aoti_torch_dtype_uint8(), library.aoti_torch_dtype_float32())
    assert numbers == tuple(KINDS.values())
    assert library.aoti_torch_device_type_cpu() == CPU
    assert library.aoti_torch_layout_strided() == STRIDED
    library.torch_exception_get_what_without_backtrace.restype = ctypes.c_char_p
    return library
