"""DLPack: a tensor's memory for any library that speaks it, bf16 and fp8 included.

numpy makes the capsule, and sees to its life in C, where no interpreter is needed at its end. What numpy has no type
for goes out as integers of the same width, whose type code in the capsule is then set right.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from tensord._errors import FeatureUnavailable
from tensord._mapping.mapping import Access, View
from tensord._wire.tensors import TensorInfo

from .dtype import to_numpy_dtype

# kDLCPU, and its only device.
CPU_DEVICE = (1, 0)
# kDLCUDA
CUDA_DEVICE_TYPE = 2

# What is no type of numpy's own: integers of its width, and its DLDataTypeCode in <dlpack.h>.
_FOREIGN: dict[str, tuple[np.dtype[Any], int]] = {
    "BF16": (np.dtype(np.uint16), 4),
    "F8_E4M3": (np.dtype(np.uint8), 10),
    "F8_E4M3FNUZ": (np.dtype(np.uint8), 11),
    "F8_E5M2": (np.dtype(np.uint8), 12),
    "F8_E5M2FNUZ": (np.dtype(np.uint8), 13),
    "F8_E8M0": (np.dtype(np.uint8), 14),
}

# Where dtype.code is in DLTensor {void *data; {int32 type, id} device; int32 ndim; {uint8 code, bits; uint16 lanes}
# dtype; …}. That is the first member of DLManagedTensor, and comes after {uint32 major, minor; void *manager_ctx,
# *deleter; uint64 flags} in DLManagedTensorVersioned.
_CODE_OFFSETS = {b"dltensor": 20, b"dltensor_versioned": 52}
_FROM_CODE_TO_DEVICE = -12

# int PyCapsule_IsValid(PyObject *capsule, const char *name);
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
# void *PyCapsule_GetPointer(PyObject *capsule, const char *name);
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def to_capsule(view: View, info: TensorInfo, options: dict[str, Any]) -> object:
    """What ``__dlpack__`` answers to a consumer's ``options``. Raises ``FeatureUnavailable``, ``BufferError``."""
    if view.access is Access.STRICT:
        raise FeatureUnavailable(
            f"Cannot export tensor {info.name!r} by DLPack: it is attached with strict=True, and a consumer that wrote "
            "to it would be killed",
            hint="attach without strict: such writes then stay private to this process",
        )
    return _make_capsule(_to_raw(view, info, options), info, options, None)


def to_device_capsule(view: View, info: TensorInfo, options: dict[str, Any], ordinal: int) -> object:
    """As ``to_capsule``, of memory that is on the device of that number in this process. No stream is waited for: what
    is there was written by others, and their protocols say when it is done.
    """
    wanted, copied = options.get("dl_device"), options.get("copy")
    if copied or wanted not in (None, (CUDA_DEVICE_TYPE, ordinal)):
        raise BufferError(f"Cannot export tensor {info.name!r} by DLPack but as it is, on device {ordinal}, uncopied")
    # numpy, which makes the capsule, knows of no other device than its own, and of no streams.
    known = {"max_version": options["max_version"]} if options.get("max_version") is not None else {}
    return _make_capsule(_to_raw(view, info, options), info, known, ordinal)


def _make_capsule(raw: npt.NDArray[np.uint8], info: TensorInfo, options: dict[str, Any], ordinal: int | None) -> object:
    carrier, code = _FOREIGN.get(info.dtype) or (to_numpy_dtype(info.dtype), None)
    capsule: object = raw.view(carrier).reshape(info.shape).__dlpack__(**options)
    name = next(name for name in _CODE_OFFSETS if _is_valid(capsule, name))
    at_code = _get_pointer(capsule, name) + _CODE_OFFSETS[name]
    if code is not None:
        ctypes.c_uint8.from_address(at_code).value = code
    if ordinal is not None:
        at_device = at_code + _FROM_CODE_TO_DEVICE
        ctypes.c_int32.from_address(at_device).value = CUDA_DEVICE_TYPE
        ctypes.c_int32.from_address(at_device + 4).value = ordinal
    return capsule


def _to_raw(view: View, info: TensorInfo, options: dict[str, Any]) -> npt.NDArray[np.uint8]:
    # Consumers write where it says read-only, as torch does. It stays private, as with torch().
    raw = view.writable(info.byte_offset, info.byte_size)
    version = options.get("max_version")
    # Before 1.0 a capsule could not say so.
    raw.flags.writeable = view.access is Access.WRITE or version is None or version[0] < 1
    return raw
