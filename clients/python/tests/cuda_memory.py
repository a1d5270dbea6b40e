"""Memory of a stand-in's card as a server hands it out, made by the test's own process: what the layer that maps needs,
and no server. Imported by child processes that the stand-in's environment leads to it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
from cuda_stand_in import UUIDS, in_use, is_locked

from tensord._cuda import devices
from tensord._cuda.attachment import DeviceAttachment, attach_device
from tensord._cuda.by_bindings import BindingsDriver
from tensord._cuda.by_ctypes import CtypesDriver
from tensord._mapping import lease
from tensord._mapping.attach import Asked, HandedDevice, Place
from tensord._mapping.mapping import Access
from tensord._tensor.device_tensor import DeviceTensor
from tensord._wire.tensors import TensorInfo

FOLDER = Path(os.environ["STAND_IN_CUDA_DIR"])
REGION = "reg_abcdefghijklmnopqrstuvwxyz"
MIB = 1 << 20


class _Properties(ctypes.Structure):
    # CUmemAllocationProp, 32 bytes.
    _fields_ = (
        ("type", ctypes.c_int),
        ("handle_types", ctypes.c_int),
        ("location_type", ctypes.c_int),
        ("location_id", ctypes.c_int),
        ("security", ctypes.c_void_p),
        ("flags", ctypes.c_uint8 * 8),
    )


def use(backend: str) -> None:
    """Which of the two seams is used from here on."""
    devices._load = {"ctypes": CtypesDriver, "bindings": BindingsDriver}[backend]  # type: ignore[assignment]


class Memory:
    """``byte_size`` bytes of a card, the descriptor that leads to them, and the file that carries their locks."""

    def __init__(self, byte_size: int = 4 * MIB, ordinal: int = 0) -> None:
        devices.usable_driver()
        library = ctypes.CDLL("libcuda.so.1")
        handle, fd = ctypes.c_uint64(), ctypes.c_int()
        properties = _Properties(1, 1, 1, ordinal)
        made = library.cuMemCreate(
            ctypes.byref(handle), ctypes.c_size_t(byte_size), ctypes.byref(properties), ctypes.c_uint64(0)
        )
        assert made == 0
        assert library.cuMemExportToShareableHandle(ctypes.byref(fd), handle, 1, ctypes.c_uint64(0)) == 0
        assert library.cuMemRelease(handle) == 0
        self.fd = fd.value
        self.byte_size = byte_size
        self.uuid = UUIDS[ordinal]
        self.handle_type = "posix_fd"
        self.lease_file = os.memfd_create("lease", os.MFD_CLOEXEC)
        self.handed: list[bool] = []

    def hand_out(self, place: Place, writable: bool) -> HandedDevice:
        self.handed.append(writable)
        fd = os.open(f"/proc/self/fd/{self.lease_file}", os.O_RDWR | os.O_CLOEXEC)
        lease.take_lease(fd, place.role)
        if writable:
            lease.take_writer_lease(fd)
        return HandedDevice(fd, True, os.dup(self.fd), self.uuid, self.handle_type, self.byte_size)

    @property
    def place(self) -> Place:
        status = os.fstat(self.lease_file)
        asked = Asked(lambda _: True, hand_out_device=self.hand_out)
        return Place(REGION, None, status.st_dev, status.st_ino, 0, asked, storage="cuda_vmm", instance="test")

    def attach(self, *, writable: bool = False) -> DeviceAttachment:
        return attach_device(self.place, Access.WRITE if writable else Access.PRIVATE)

    @property
    def is_leased(self) -> bool:
        return is_locked(f"/proc/self/fd/{self.lease_file}", lease.LEASE_BYTE)

    @property
    def has_writer(self) -> bool:
        return is_locked(f"/proc/self/fd/{self.lease_file}", lease.WRITER_BYTE)

    def write(self, array: np.ndarray[Any, Any], byte_offset: int = 0) -> None:
        """As another process's device would have."""
        os.pwrite(self.fd, array.tobytes(), byte_offset)

    def read(self, byte_size: int, byte_offset: int = 0) -> bytes:
        return os.pread(self.fd, byte_size, byte_offset)


def tensor_of(
    attachment: DeviceAttachment, dtype: str = "F32", shape: tuple[int, ...] = (4, 8), byte_offset: int = 0
) -> DeviceTensor:
    bits = {"F32": 32, "BF16": 16, "U8": 8, "I64": 64, "BOOL": 8}[dtype]
    return DeviceTensor(attachment, TensorInfo("w", dtype, shape, byte_offset, int(np.prod(shape)) * bits // 8))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def what_is_there() -> list[str]:
    """What this process has of the cards, and how much it maps of anything."""
    with open("/proc/self/maps") as maps:
        mapped = [line.split()[-1] for line in maps if "/card" in line]
    return [*in_use(FOLDER), *sorted(mapped)]
