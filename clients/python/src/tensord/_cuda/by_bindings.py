"""The driver by NVIDIA's ``cuda.bindings``, where that is installed: it knows more places than the loader does."""

from __future__ import annotations

import importlib
import re
from typing import Any

from . import driver
from .driver import Driver


class BindingsDriver(Driver):
    """Raises ``ImportError`` where there is no such package, or one that this does not know."""

    def __init__(self) -> None:
        module: Any = importlib.import_module("cuda.bindings.driver")
        try:
            self._fd_type = module.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
            self._location_type = module.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
            self._pinned = module.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
            self._minimum = module.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
            self._uuid_call = "cuDeviceGetUuid_v2" if hasattr(module, "cuDeviceGetUuid_v2") else "cuDeviceGetUuid"
        except AttributeError as error:
            raise ImportError(f"cuda.bindings is another one than this package knows: {error}") from error
        self._module = module

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            result, *answer = getattr(self._module, name)(*arguments)
        except ValueError as error:
            # Of a result that is newer than the package it makes no other word.
            match = re.match(r"(\d+) is not a valid CUresult", str(error))
            if match is None:
                raise
            self._refuse(name, int(match[1]))
        self._check(name, int(result))
        return answer[0] if answer else None

    def _device(self, ordinal: int) -> Any:
        return self._call("cuDeviceGet", ordinal)

    def init(self) -> None:
        self._call("cuInit", 0)

    def device_count(self) -> int:
        return int(self._call("cuDeviceGetCount"))

    def device_uuid(self, ordinal: int) -> bytes:
        return bytes(self._call(self._uuid_call, self._device(ordinal)).bytes)

    def retain_context(self, ordinal: int) -> int:
        return int(self._call("cuDevicePrimaryCtxRetain", self._device(ordinal)))

    def release_context(self, ordinal: int) -> None:
        self._call("cuDevicePrimaryCtxRelease", self._device(ordinal))

    def push_context(self, context: int) -> None:
        self._call("cuCtxPushCurrent", context)

    def pop_context(self) -> None:
        self._call("cuCtxPopCurrent")

    def synchronize(self) -> None:
        self._call("cuCtxSynchronize")

    def granularity(self, ordinal: int) -> int:
        return int(self._call("cuMemGetAllocationGranularity", self._properties(ordinal), self._minimum))

    def create(self, byte_size: int, ordinal: int) -> int:
        return int(self._call("cuMemCreate", byte_size, self._properties(ordinal), 0))

    def _properties(self, ordinal: int) -> Any:
        properties = self._module.CUmemAllocationProp()
        properties.type = self._pinned
        properties.location.type = self._location_type
        properties.location.id = ordinal
        return properties

    def import_fd(self, fd: int) -> int:
        return int(self._call("cuMemImportFromShareableHandle", fd, self._fd_type))

    def release(self, handle: int) -> None:
        self._call("cuMemRelease", handle)

    def reserve(self, byte_size: int) -> int:
        return int(self._call("cuMemAddressReserve", byte_size, 0, 0, 0))

    def free_range(self, address: int, byte_size: int) -> None:
        self._call("cuMemAddressFree", address, byte_size)

    def map(self, address: int, byte_size: int, handle: int) -> None:
        self._call("cuMemMap", address, byte_size, 0, handle, 0)

    def unmap(self, address: int, byte_size: int) -> None:
        self._call("cuMemUnmap", address, byte_size)

    def set_access(self, address: int, byte_size: int, ordinal: int, flags: int) -> None:
        access = self._module.CUmemAccessDesc()
        access.location.type = self._location_type
        access.location.id = ordinal
        access.flags = self._module.CUmemAccess_flags(flags)
        self._call("cuMemSetAccess", address, byte_size, [access], 1)

    def copy_to_device(self, address: int, host_address: int, byte_size: int) -> None:
        self._call("cuMemcpyHtoD", address, host_address, byte_size)

    def copy_to_host(self, host_address: int, address: int, byte_size: int) -> None:
        self._call("cuMemcpyDtoH", host_address, address, byte_size)

    def _describe(self, result: int) -> tuple[str | None, str | None]:
        return self._text("cuGetErrorName", result), self._text("cuGetErrorString", result)

    def _text(self, call: str, result: int) -> str | None:
        try:
            known = self._module.CUresult(result)
        except ValueError:
            return None
        found, text = getattr(self._module, call)(known)
        return text.decode(errors="replace") if int(found) == driver.SUCCESS and text else None
