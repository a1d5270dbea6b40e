"""Memory of this process that is mapped as a region's file is: what the client has of a region that no process maps
(``heap``). Its maker fills it before the seal uploads it; a reader's is filled by one download, and shared by all that
attach the region here.

It is a memfd of this process, so that views, seals in place, private writes and pins are those of every other region.
Who downloads and uploads is the caller's business.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable

from tensord._errors import FeatureUnavailable, MappingFailed, refuse_without_descriptor

from . import lease

if sys.platform != "win32":
    # As in lease.py.
    import fcntl

# What the kernel calls it in /proc/<pid>/maps, before the region's id.
COPY_NAME = "tensord-copy."

# <linux/fcntl.h>; the module `fcntl` has them too, but not under every C library.
_F_ADD_SEALS = 1033
_F_SEAL_SHRINK_GROW = 0x2 | 0x4
_F_SEAL_WRITE = 0x8


class LocalMemory:
    """``byte_size`` bytes of zeros of this process, and of its forked children, until it and its last mapping are gone.

    Raises ``FeatureUnavailable`` where there is no such memory, ``OutOfDescriptors``, ``MappingFailed`` without room.
    """

    def __init__(self, region: str, byte_size: int) -> None:
        self.region = region
        self.byte_size = byte_size
        # Before anything can fail: it is what the finalizer closes.
        self._fd = -1
        try:
            self._fd = os.memfd_create(f"{COPY_NAME}{region}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self._fd, byte_size)
        except AttributeError as error:
            raise FeatureUnavailable(
                f"Cannot have a copy of region {region}: this system has no memfd_create, want Linux",
                hint="run the worker where the server runs",
            ) from error
        except OSError as error:
            refuse_without_descriptor(error, f"have a copy of region {region}")
            raise MappingFailed(
                f"Cannot have {byte_size} bytes of memory for a copy of region {region}: {error}",
                hint="is the process's memory limited (ulimit -f, ulimit -v)?",
            ) from error
        # It cannot change its size under its views.
        self._add_seals(_F_SEAL_SHRINK_GROW)

    def open(self, *, writable: bool) -> int:
        """A descriptor of its own open file description, which the caller closes. Of one that is written to the kernel
        knows until its last mapping ends. Raises ``OutOfDescriptors``, ``MappingFailed``.
        """
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
        try:
            fd = os.open(f"/proc/self/fd/{self._fd}", flags)
        except OSError as error:
            refuse_without_descriptor(error, f"map region {self.region}")
            raise MappingFailed(
                f"Cannot open this process's copy of region {self.region}: {error.strerror}",
                hint="is /proc mounted here?",
            ) from error
        if writable:
            lease.take_writer_lease(fd)
        return fd

    @property
    def has_writer(self) -> bool:
        """Whether it is still mapped for writing: by a forked child, since this process has given that up."""
        return lease.has_writer(f"/proc/self/fd/{self._fd}")

    def write(self, byte_offset: int, data: bytes | bytearray | memoryview) -> None:
        """Puts bytes into it. Raises ``MappingFailed`` if there is no memory left."""
        rest = memoryview(data)
        try:
            while rest:
                written = os.pwrite(self._fd, rest, byte_offset)
                byte_offset += written
                rest = rest[written:]
        except OSError as error:
            raise MappingFailed(f"Cannot fill this process's copy of region {self.region}: {error}") from error

    def seal(self) -> None:
        """Makes its bytes final by the kernel's word, unless somebody maps it for writing still."""
        with contextlib.suppress(OSError):
            self._add_seals(_F_SEAL_WRITE)

    def _add_seals(self, seals: int) -> None:
        if sys.platform != "win32":
            fcntl.fcntl(self._fd, _F_ADD_SEALS, seals)

    def __del__(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


_copies: weakref.WeakValueDictionary[str, LocalMemory] = weakref.WeakValueDictionary()
# One a region, so that one download serves all threads that attach it; a region's goes with the last that waits for it.
_turns: weakref.WeakValueDictionary[str, _Turn] = weakref.WeakValueDictionary()
_turns_lock = [threading.Lock()]


class _Turn:
    """The right to download one region, for one thread at a time."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()


def share_copy(region: str, download: Callable[[], LocalMemory]) -> LocalMemory:
    """This process's copy of a sealed region, by its id; ``download`` makes it if there is none."""
    with _turns_lock[0]:
        turn = _turns.get(region)
        if turn is None:
            turn = _turns[region] = _Turn()
    with turn.lock:
        copy = _copies.get(region)
        if copy is None:
            copy = _copies[region] = download()
        return copy


def publish_copy(copy: LocalMemory) -> None:
    """What its maker has sealed is what others who attach it here get."""
    _copies.setdefault(copy.region, copy)


def _begin_in_child() -> None:
    # Another thread of the parent may have held any of them.
    _turns_lock[0] = threading.Lock()
    _turns.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
