"""Memory of a device, mapped in this process's primary context from a descriptor; and the way back, which goes on from
where a call failed. The lease's descriptor is kept until after the unmap: what is mapped is leased.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator

from tensord._errors import DriverFailed, refuse_without_descriptor

from .devices import Device
from .driver import ACCESS_READ, ACCESS_READ_WRITE, OPERATING_SYSTEM, OUT_OF_MEMORY, Driver

# A call that fails on the way back is made once more at once; what fails again is tried with the next attach.
_TRIES = 2

STAYS_HINT = (
    "the driver refuses to take something back: it stays, leased, until the next attach has it tried again, or this "
    "process ends. A result from 700 on ends a context for good: end the process then"
)

_mutex = threading.Lock()
_stuck: list[DeviceMemory] = []
# Of this process: a forked child closes its copies, so that a lease ends with who can use what is leased.
_leases: set[int] = set()


class DeviceMemory:
    """A mapping of ``byte_size`` bytes at ``address``. ``let_go`` takes everything back that stands, whatever failed on
    the way here. It owns ``lease_fd``; the descriptor that it is imported from stays the caller's.
    """

    def __init__(self, driver: Driver, device: Device, byte_size: int, lease_fd: int) -> None:
        self.device = device
        self.byte_size = byte_size
        self.address = 0
        self._driver = driver
        self._pid = os.getpid()
        self._context: int | None = None
        self._handle: int | None = None
        self._is_mapped = False
        self._lease_fd = lease_fd
        _leases.add(lease_fd)

    @property
    def is_inherited(self) -> bool:
        """Whether a parent mapped it, and this is a forked child: no call may be made here."""
        return self._pid != os.getpid()

    @property
    def pid(self) -> int:
        """The process that mapped it."""
        return self._pid

    @property
    def lease_fd(self) -> int:
        """The lease's descriptor, or -1 once all is let go."""
        return self._lease_fd

    def bring(self, fd: int, *, writable: bool) -> None:
        """Imports what is behind ``fd``, and maps it. Raises ``DriverFailed``, ``OutOfDescriptors``; leaves nothing of
        this behind then but what the driver refuses to take back.
        """
        retry_stuck()
        driver = self._driver
        try:
            self._context = driver.retain_context(self.device.ordinal)
            with self.current():
                self._handle = driver.import_fd(fd)
                self.address = driver.reserve(self.byte_size)
                driver.map(self.address, self.byte_size, self._handle)
                self._is_mapped = True
                self._set_access(writable=writable)
                # The mapping keeps the memory from here on.
                driver.release(self._handle)
                self._handle = None
        except BaseException as error:
            again = self.let_go()
            if isinstance(error, DriverFailed):
                if again is not None:
                    error.hint = again.hint
                refuse_without_room(error)
            raise

    def set_access(self, *, writable: bool) -> None:
        """Changes what the device may do with it, in place, once what runs there is done. Raises ``DriverFailed``."""
        with self.current():
            self._driver.synchronize()
            self._set_access(writable=writable)

    def swap_lease(self, lease_fd: int) -> None:
        """Takes another lease over; the one before ends."""
        old, self._lease_fd = self._lease_fd, lease_fd
        _leases.add(lease_fd)
        _close_lease(old)

    def copy_in(self, byte_offset: int, host_address: int, byte_size: int) -> None:
        """Copies bytes of the host to an offset. Raises ``DriverFailed``."""
        with self.current():
            self._driver.copy_to_device(self.address + byte_offset, host_address, byte_size)

    def copy_out(self, byte_offset: int, host_address: int, byte_size: int) -> None:
        """Copies bytes from an offset to the host. Raises ``DriverFailed``."""
        with self.current():
            self._driver.copy_to_host(host_address, self.address + byte_offset, byte_size)

    def let_go(self) -> DriverFailed | None:
        """Waits for the device, unmaps, and ends the lease. Safe to repeat. Returns the first failure, if there was
        one; whether something is left then, ``is_there`` says. In a forked child nothing is done.
        """
        if self.is_inherited:
            return None
        steps = (self._unmap, self._free_range, self._release_handle, self._release_context, self._end_lease)
        first: DriverFailed | None = None
        for step in steps:
            for _ in range(_TRIES):
                try:
                    failed = step()
                except DriverFailed as error:
                    first = first or error
                else:
                    first = first or failed
                    break
            else:
                # The steps after it need it; the lease among them, since what is mapped is in use.
                with _mutex:
                    if self not in _stuck:
                        _stuck.append(self)
                break
        if first is not None:
            first.hint = STAYS_HINT if self.is_there else "it worked when it was tried again: nothing is left"
        return first

    @property
    def is_there(self) -> bool:
        """Whether anything of it stands."""
        return self._lease_fd >= 0

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes its context this thread's for a while. The thread's own comes back."""
        assert self._context is not None
        self._driver.push_context(self._context)
        try:
            yield
        finally:
            _again(self._driver.pop_context)

    def _set_access(self, *, writable: bool) -> None:
        flags = ACCESS_READ_WRITE if writable else ACCESS_READ
        self._driver.set_access(self.address, self.byte_size, self.device.ordinal, flags)

    def _unmap(self) -> DriverFailed | None:
        if not self._is_mapped:
            return None
        failed: DriverFailed | None = None
        with self.current():
            try:
                # It does not wait by itself, and what still ran would find nothing there.
                self._driver.synchronize()
            except DriverFailed as error:
                # What runs there has failed: there is nothing to wait for.
                failed = error
            self._driver.unmap(self.address, self.byte_size)
            self._is_mapped = False
        return failed

    def _free_range(self) -> None:
        if self.address:
            with self.current():
                self._driver.free_range(self.address, self.byte_size)
                self.address = 0

    def _release_handle(self) -> None:
        if self._handle is not None:
            with self.current():
                self._driver.release(self._handle)
                self._handle = None

    def _release_context(self) -> None:
        if self._context is not None:
            self._driver.release_context(self.device.ordinal)
            self._context = None

    def _end_lease(self) -> None:
        fd, self._lease_fd = self._lease_fd, -1
        if fd >= 0:
            _close_lease(fd)


def retry_stuck() -> None:
    """Tries once more to take back what the driver refused."""
    with _mutex:
        waiting, _stuck[:] = _stuck[:], []
    for memory in waiting:
        memory.let_go()


def refuse_without_room(error: DriverFailed) -> None:
    """Raises ``OutOfDescriptors`` if a call failed because this process has no descriptor left, which the driver calls
    a lack of memory, or a failure of the operating system.
    """
    if error.fields["result"] not in (OUT_OF_MEMORY, OPERATING_SYSTEM):
        return
    try:
        os.close(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as no_room:
        if no_room.errno in (errno.EMFILE, errno.ENFILE):
            refuse_without_descriptor(no_room, f"map memory of a device ({error.detail})")


def _again(call: Callable[[], None]) -> None:
    """Calls once more what failed, and raises what it raised all the same: nobody else can take it back."""
    try:
        call()
    except DriverFailed:
        with contextlib.suppress(DriverFailed):
            call()
        raise


def _close_lease(fd: int) -> None:
    _leases.discard(fd)
    os.close(fd)


def _forget_in_child() -> None:
    global _mutex  # noqa: PLW0603  # another thread may have held the parent's
    _mutex = threading.Lock()
    for fd in _leases:
        with contextlib.suppress(OSError):
            os.close(fd)
    _leases.clear()
    _stuck.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
