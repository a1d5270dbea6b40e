"""The driver by ctypes: ``libcuda.so.1`` as the loader finds it, which never looks in the working directory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from . import driver
from .driver import Driver

LIBRARY = "libcuda.so.1"

_POINTER = ctypes.c_void_p
_U64 = ctypes.c_uint64
_INT = ctypes.c_int
_SIZE = ctypes.c_size_t


class _AccessDesc(ctypes.Structure):
    # CUmemAccessDesc {CUmemLocation {int type, id} location; int flags}, 12 bytes.
    _fields_ = (("type", _INT), ("id", _INT), ("flags", _INT))


class _Properties(ctypes.Structure):
    # CUmemAllocationProp {int type, requestedHandleTypes; CUmemLocation {int type, id} location; void
    # *win32HandleMetaData; allocFlags}, 32 bytes.
    _fields_ = (
        ("type", _INT),
        ("handle_types", _INT),
        ("location_type", _INT),
        ("location_id", _INT),
        ("metadata", _POINTER),
        ("flags", ctypes.c_uint8 * 8),
    )


# CUresult name(…), by <cuda.h>. An output is the address of what it is written to.
_PARAMETERS: dict[str, Sequence[Any]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGetCount": (_POINTER,),
    "cuDeviceGet": (_POINTER, _INT),
    "cuDeviceGetUuid_v2": (_POINTER, _INT),
    "cuDevicePrimaryCtxRetain": (_POINTER, _INT),
    "cuDevicePrimaryCtxRelease_v2": (_INT,),
    "cuCtxPushCurrent_v2": (_POINTER,),
    "cuCtxPopCurrent_v2": (_POINTER,),
    "cuCtxSynchronize": (),
    "cuMemGetAllocationGranularity": (_POINTER, _POINTER, _INT),
    "cuMemCreate": (_POINTER, _SIZE, _POINTER, _U64),
    "cuMemImportFromShareableHandle": (_POINTER, _POINTER, _INT),
    "cuMemRelease": (_U64,),
    "cuMemAddressReserve": (_POINTER, _SIZE, _SIZE, _U64, _U64),
    "cuMemAddressFree": (_U64, _SIZE),
    "cuMemMap": (_U64, _SIZE, _SIZE, _U64, _U64),
    "cuMemUnmap": (_U64, _SIZE),
    "cuMemSetAccess": (_U64, _SIZE, _POINTER, _SIZE),
    "cuMemcpyHtoD_v2": (_U64, _POINTER, _SIZE),
    "cuMemcpyDtoH_v2": (_POINTER, _U64, _SIZE),
    "cuGetErrorName": (_INT, _POINTER),
    "cuGetErrorString": (_INT, _POINTER),
}


class CtypesDriver(Driver):
    """Raises ``OSError`` where there is no such library, ``AttributeError`` where it lacks a call."""

    def __init__(self) -> None:
        library = ctypes.CDLL(LIBRARY)
        self._calls: dict[str, Any] = {}
        for name, parameters in _PARAMETERS.items():
            call = library[name]
            call.restype, call.argtypes = _INT, parameters
            self._calls[name] = call

    def _call(self, name: str, *arguments: Any) -> None:
        self._check(name, self._calls[name](*arguments))

    def _device(self, ordinal: int) -> int:
        device = _INT()
        self._call("cuDeviceGet", ctypes.addressof(device), ordinal)
        return device.value

    def init(self) -> None:
        self._call("cuInit", 0)

    def device_count(self) -> int:
        count = _INT()
        self._call("cuDeviceGetCount", ctypes.addressof(count))
        return count.value

    def device_uuid(self, ordinal: int) -> bytes:
        uuid = (ctypes.c_char * 16)()
        self._call("cuDeviceGetUuid_v2", ctypes.addressof(uuid), self._device(ordinal))
        return uuid.raw

    def retain_context(self, ordinal: int) -> int:
        context = _U64()
        self._call("cuDevicePrimaryCtxRetain", ctypes.addressof(context), self._device(ordinal))
        return context.value

    def release_context(self, ordinal: int) -> None:
        self._call("cuDevicePrimaryCtxRelease_v2", self._device(ordinal))

    def push_context(self, context: int) -> None:
        self._call("cuCtxPushCurrent_v2", context)

    def pop_context(self) -> None:
        popped = _U64()
        self._call("cuCtxPopCurrent_v2", ctypes.addressof(popped))

    def synchronize(self) -> None:
        self._call("cuCtxSynchronize")

    def granularity(self, ordinal: int) -> int:
        granularity, properties = _SIZE(), _to_properties(ordinal)
        addresses = ctypes.addressof(granularity), ctypes.addressof(properties)
        self._call("cuMemGetAllocationGranularity", *addresses, driver.GRANULARITY_MINIMUM)
        return granularity.value

    def create(self, byte_size: int, ordinal: int) -> int:
        handle, properties = _U64(), _to_properties(ordinal)
        self._call("cuMemCreate", ctypes.addressof(handle), byte_size, ctypes.addressof(properties), 0)
        return handle.value

    def import_fd(self, fd: int) -> int:
        handle = _U64()
        self._call("cuMemImportFromShareableHandle", ctypes.addressof(handle), fd, driver.POSIX_FD)
        return handle.value

    def release(self, handle: int) -> None:
        self._call("cuMemRelease", handle)

    def reserve(self, byte_size: int) -> int:
        address = _U64()
        self._call("cuMemAddressReserve", ctypes.addressof(address), byte_size, 0, 0, 0)
        return address.value

    def free_range(self, address: int, byte_size: int) -> None:
        self._call("cuMemAddressFree", address, byte_size)

    def map(self, address: int, byte_size: int, handle: int) -> None:
        self._call("cuMemMap", address, byte_size, 0, handle, 0)

    def unmap(self, address: int, byte_size: int) -> None:
        self._call("cuMemUnmap", address, byte_size)

    def set_access(self, address: int, byte_size: int, ordinal: int, flags: int) -> None:
        access = _AccessDesc(driver.LOCATION_DEVICE, ordinal, flags)
        self._call("cuMemSetAccess", address, byte_size, ctypes.addressof(access), 1)

    def copy_to_device(self, address: int, host_address: int, byte_size: int) -> None:
        self._call("cuMemcpyHtoD_v2", address, host_address, byte_size)

    def copy_to_host(self, host_address: int, address: int, byte_size: int) -> None:
        self._call("cuMemcpyDtoH_v2", host_address, address, byte_size)

    def _describe(self, result: int) -> tuple[str | None, str | None]:
        return self._text("cuGetErrorName", result), self._text("cuGetErrorString", result)

    def _text(self, call: str, result: int) -> str | None:
        # Of an unknown result the call fails, and says NULL.
        text = ctypes.c_char_p()
        self._calls[call](result, ctypes.addressof(text))
        return None if text.value is None else text.value.decode(errors="replace")


def _to_properties(ordinal: int) -> _Properties:
    return _Properties(
        type=driver.ALLOCATION_PINNED, handle_types=0, location_type=driver.LOCATION_DEVICE, location_id=ordinal
    )
