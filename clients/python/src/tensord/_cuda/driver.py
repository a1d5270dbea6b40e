"""The seam to CUDA's driver: one checked method a call, and no policy. Two classes have it: by ctypes, and by
NVIDIA's ``cuda.bindings``. It never calls the runtime API.

Handles, addresses and contexts are plain integers; a device is its number in this process, its ordinal.
"""

from __future__ import annotations

import abc
from typing import NoReturn

from tensord._errors import DriverFailed

# <cuda.h>
SUCCESS = 0
OUT_OF_MEMORY = 2
NOT_INITIALIZED = 3
NO_DEVICE = 100
OPERATING_SYSTEM = 304
POSIX_FD = 1
ALLOCATION_PINNED = 1
LOCATION_DEVICE = 1
GRANULARITY_MINIMUM = 0
ACCESS_READ = 1
ACCESS_READ_WRITE = 3


class Driver(abc.ABC):
    """The calls. Every method raises ``DriverFailed``, with the driver's own name and text."""

    @abc.abstractmethod
    def init(self) -> None:
        """``cuInit``: once in a process, and before everything else."""

    @abc.abstractmethod
    def device_count(self) -> int:
        """``cuDeviceGetCount``: of the devices that this process can see."""

    @abc.abstractmethod
    def device_uuid(self, ordinal: int) -> bytes:
        """``cuDeviceGetUuid_v2``: 16 bytes; of an instance of a card (MIG) its own."""

    @abc.abstractmethod
    def retain_context(self, ordinal: int) -> int:
        """``cuDevicePrimaryCtxRetain``: the context that this process's libraries share. Each needs its release."""

    @abc.abstractmethod
    def release_context(self, ordinal: int) -> None:
        """``cuDevicePrimaryCtxRelease_v2``: the last one ends it."""

    @abc.abstractmethod
    def push_context(self, context: int) -> None:
        """``cuCtxPushCurrent_v2``: makes it this thread's."""

    @abc.abstractmethod
    def pop_context(self) -> None:
        """``cuCtxPopCurrent_v2``: gives this thread the one back that it had before."""

    @abc.abstractmethod
    def synchronize(self) -> None:
        """``cuCtxSynchronize``: returns when all that was begun in this thread's context is done."""

    @abc.abstractmethod
    def granularity(self, ordinal: int) -> int:
        """``cuMemGetAllocationGranularity``, the least: what the size of every allocation there is a multiple of."""

    @abc.abstractmethod
    def create(self, byte_size: int, ordinal: int) -> int:
        """``cuMemCreate``: a handle of new memory of a device, which only this process can map."""

    @abc.abstractmethod
    def import_fd(self, fd: int) -> int:
        """``cuMemImportFromShareableHandle``: a handle of the memory behind a descriptor, which stays the caller's."""

    @abc.abstractmethod
    def release(self, handle: int) -> None:
        """``cuMemRelease``: each handle once. What is mapped stays until it is unmapped."""

    @abc.abstractmethod
    def reserve(self, byte_size: int) -> int:
        """``cuMemAddressReserve``: an address range with nothing behind it."""

    @abc.abstractmethod
    def free_range(self, address: int, byte_size: int) -> None:
        """``cuMemAddressFree``: a whole range, of which nothing is mapped."""

    @abc.abstractmethod
    def map(self, address: int, byte_size: int, handle: int) -> None:
        """``cuMemMap``: nobody may access it yet."""

    @abc.abstractmethod
    def unmap(self, address: int, byte_size: int) -> None:
        """``cuMemUnmap``: a whole mapping. It does not wait for what runs on the device."""

    @abc.abstractmethod
    def set_access(self, address: int, byte_size: int, ordinal: int, flags: int) -> None:
        """``cuMemSetAccess``: what that device may do with the mapping."""

    @abc.abstractmethod
    def copy_to_device(self, address: int, host_address: int, byte_size: int) -> None:
        """``cuMemcpyHtoD_v2``: returns when the host's bytes may change."""

    @abc.abstractmethod
    def copy_to_host(self, host_address: int, address: int, byte_size: int) -> None:
        """``cuMemcpyDtoH_v2``: returns when the bytes are there."""

    @abc.abstractmethod
    def _describe(self, result: int) -> tuple[str | None, str | None]:
        """The driver's name of a result, and its text; ``None`` for one that it does not know."""

    def _check(self, call: str, result: int) -> None:
        if result != SUCCESS:
            self._refuse(call, result)

    def _refuse(self, call: str, result: int) -> NoReturn:
        name, text = self._describe(result)
        said = f"result {result}, which this driver has no name for" if name is None else f"{name} ({result}): {text}"
        raise DriverFailed(f"{call} failed with {said}", fields={"call": call, "result": result, "result_name": name})
