"""A region on a device as regions and tensors share it: what ``Attachment`` is for host memory, over addresses that
only the device reaches. It asks no server but through ``place.asked``.

The anchor is a ctypes object over the device's addresses, and its end unmaps, as for host memory. Nobody may read it:
the processor finds nothing there.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import stat
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from tensord._errors import (
    Closed,
    DriverFailed,
    FeatureUnavailable,
    NotFound,
    RegionDraining,
    ServerFault,
    TensordError,
)
from tensord._mapping.attach import HandedDevice, Mismatch, NotHandedOut, Place
from tensord._mapping.attachment import Attachment
from tensord._mapping.mapping import Access, Bytes, Mapping, View

from .devices import FORK_HINT, Device, find_device, usable_driver
from .memory import DeviceMemory

HANDLE_TYPE = "posix_fd"

_log = logging.getLogger("tensord")


@dataclass(frozen=True, slots=True)
class DeviceStorage:
    """What a region's memory is, as its descriptor says: ``allocation_bytes`` are what must be mapped, all of them."""

    device_uuid: str
    handle_type: str
    allocation_bytes: int


class DeviceMapping(Mapping):
    """Pages of a device. They have no protection that the processor knows of; the device's is set by its driver."""

    __slots__ = ("memory",)

    def __init__(self, anchor: Any, memory: DeviceMemory, access: Access) -> None:
        super().__init__(anchor, 0, access, 1)
        self.attached_by = "descriptor"
        self.memory = memory

    def will_write(self, root: Bytes, address: int, length: int) -> None:
        """Nothing: what may be written is the device's to say."""

    def protect(self) -> None:
        """Not of a device's memory."""
        raise FeatureUnavailable("Cannot pin memory of a device: it is there already")

    def change(self, access: Access, lease_fd: int) -> None:
        """Changes in place what the device may do, and takes the lease over. Raises ``DriverFailed``, ``Closed``."""
        anchor = self._held()
        self.memory.set_access(writable=access is Access.WRITE)
        self.memory.swap_lease(lease_fd)
        self._access = access
        del anchor


class DeviceAttachment(Attachment):
    """Holds a view of a region on ``device`` until ``close``. Every use after that, and in a child made by ``fork``,
    raises ``Closed``.
    """

    def __init__(self, place: Place, storage: DeviceStorage, view: View, end: _End) -> None:
        super().__init__(place, view)
        self.storage = storage
        self._end = end

    @property
    def memory(self) -> DeviceMemory:
        return self._end.memory

    @property
    def device(self) -> Device:
        return self.memory.device

    @property
    def view(self) -> View:
        """The view. Raises ``Closed``."""
        if self.memory.is_inherited and not self.closed:
            raise Closed(
                f"Cannot use region {self.place.region} on {self.device.shown}: process {self.memory.pid} mapped it, "
                f"and this is its forked child {os.getpid()}, where CUDA does not work",
                hint=FORK_HINT,
            )
        return super().view

    def close(self) -> None:
        """Lets go, once the device has done what it was told. Raises ``DriverFailed``, once, if the driver refused."""
        super().close()
        failure = self._end.take_failure()
        if failure is not None:
            raise failure

    def remap(self, access: Access) -> None:
        """Changes what the device may do, and which locks this process holds; every address stays. Raises
        ``Mismatch``, ``DriverFailed``, ``Closed``, and what the server says.
        """
        _ = self.view
        mapping = self._view.mapping
        assert isinstance(mapping, DeviceMapping)
        access = access if access is Access.WRITE else Access.STRICT
        handed = hand_out(self.place, writable=access is Access.WRITE)
        os.close(handed.device_fd)
        try:
            _check_lease(handed, self.place)
            mapping.change(access, handed.fd)
        except BaseException as error:
            if self.memory.lease_fd != handed.fd:
                os.close(handed.fd)
            if isinstance(error, DriverFailed):
                _say_what(error, "change", self.place, self.device.shown)
            raise
        if self.on_remap is not None:
            self.on_remap(access, self.is_makers)

    def part(self, byte_offset: int, byte_size: int) -> NoReturn:
        """Not of a device's memory."""
        raise FeatureUnavailable(f"Cannot open a part of region {self.place.region}: it is memory of a device")


class _End:
    """What is done when the last view of a mapping is gone; its failure is raised by who closes, or else logged."""

    def __init__(self, memory: DeviceMemory, place: Place) -> None:
        self.memory = memory
        self._region = place.region
        self._failure: DriverFailed | None = None
        self._is_awaited = False

    def __call__(self) -> None:
        failure = self.memory.let_go()
        if failure is not None:
            failure.detail = f"Cannot let go of region {self._region} on {self.memory.device.shown}: {failure.detail}"
            self._failure = failure
            _log.warning("%s", failure)

    def take_failure(self) -> DriverFailed | None:
        failure, self._failure = self._failure, None
        return failure


def hand_out(place: Place, *, writable: bool) -> HandedDevice:
    """The lease's descriptor and the memory's, and what the region is. The caller closes both. Raises ``Mismatch``, and
    what the server says.
    """
    ask = None if place.asked is None else place.asked.hand_out_device
    if ask is None:
        raise FeatureUnavailable(
            f"Cannot map region {place.region}: it is memory of a device, and no server can be asked for it",
            hint="open it with a client: client.open(ref)",
        )
    try:
        return ask(place, writable)
    except NotHandedOut as nobody:
        error = nobody.error
        error.detail = f"Cannot map region {place.region}, which is memory of a device: {error.detail}"
        raise error from nobody


def attach_device(
    place: Place, access: Access, *, keep: Callable[[str], Callable[[], None] | None] | None = None
) -> DeviceAttachment:
    """Maps all of a region on the device that it is on, leased; for reading unless ``access`` is for writing. ``keep``
    leases by request what no lock can.

    Raises ``Mismatch`` if it is not the region that was meant, ``DriverFailed``, ``FeatureUnavailable``,
    ``OutOfDescriptors``, and what the server says. Neither mapping nor handle, descriptor or lease is left then.
    """
    access = access if access is Access.WRITE else Access.STRICT
    handed = hand_out(place, writable=access is Access.WRITE)
    end = None
    try:
        try:
            _check_lease(handed, place)
            storage = _check_storage(handed, place)
            if not handed.leased and keep is not None:
                with contextlib.suppress(NotFound, RegionDraining):
                    end = keep(place.region)
            driver = usable_driver()
            device = find_device(driver, storage.device_uuid)
        except BaseException:
            os.close(handed.fd)
            raise
        memory = DeviceMemory(driver, device, storage.allocation_bytes, handed.fd)
        memory.bring(handed.device_fd, writable=access is Access.WRITE)
    except BaseException as error:
        if end is not None:
            end()
        if isinstance(error, DriverFailed):
            _say_what(error, "map", place, handed.device_uuid or "a device")
        raise
    finally:
        os.close(handed.device_fd)
    anchor = (ctypes.c_ubyte * storage.allocation_bytes).from_address(memory.address)
    at_end = _End(memory, place)
    finalizer = weakref.finalize(anchor, at_end)
    # At interpreter exit the driver may have been torn down by whoever loaded it; the process's end frees everything.
    finalizer.atexit = False
    if end is not None:
        weakref.finalize(anchor, end).atexit = False
    mapping = DeviceMapping(anchor, memory, access)
    return DeviceAttachment(place, storage, View(mapping, anchor, 0), at_end)


def _check_lease(handed: HandedDevice, place: Place) -> None:
    """That the lease is of the region that was meant: of no other file system, nor of a region that took its name."""
    status = os.fstat(handed.fd)
    if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) != (place.dev, place.ino):
        raise Mismatch(
            place,
            f"is inode {status.st_ino} of device {status.st_dev} as the broker hands it out, want {place.ino} of "
            f"{place.dev}",
        )


def _check_storage(handed: HandedDevice, place: Place) -> DeviceStorage:
    if handed.handle_type != HANDLE_TYPE:
        raise FeatureUnavailable(
            f"Cannot map region {place.region}: its memory is shared as {handed.handle_type}, want {HANDLE_TYPE}",
            hint="this version of the package maps nothing else: is there a newer one?",
        )
    if handed.device_uuid is None or not handed.allocation_bytes:
        raise ServerFault(f"Cannot map region {place.region}: the server does not say on which device, or how large")
    return DeviceStorage(handed.device_uuid, handed.handle_type, handed.allocation_bytes)


def _say_what(error: TensordError, action: str, place: Place, device: str) -> None:
    error.detail = f"Cannot {action} region {place.region} on {device}: {error.detail}"
