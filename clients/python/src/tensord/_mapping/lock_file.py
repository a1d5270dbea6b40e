"""An open description of a region's file that only holds locks: a new one for each that is to exclude the others.

Locks of one description do not exclude each other, neither in threads nor in forked children, and a description stays
as long as any copy of it does. So these are never mapped, and a forked child closes its copies at once: then a lock
ends with the process that took it. ``docs/protocol.md`` has the steps.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import struct
import sys
import time
from collections.abc import Iterator

from tensord._errors import Closed, MappingFailed

from .attach import Mismatch, Place, open_unleased

if sys.platform != "win32":
    # Not at the first lock, as in lease.py.
    import fcntl

# <fcntl.h>
_F_OFD_GETLK = 36
_F_OFD_SETLK = 37
_F_OFD_SETLKW = 38
_F_UNLCK = 2
# struct flock, as in lease.py.
_FLOCK = struct.Struct("@hhqqi0q")

# The kernel can wait without end or not at all. Who waits for a while looks again, at first often.
SHORTEST_PAUSE = 0.0001
LONGEST_PAUSE = 0.005

_open_descriptors: set[int] = set()
# Kept, since every use asks for it, and a system call costs as much as the lock.
_this_process = os.getpid()


class LockKind(enum.Enum):
    """Many may hold a read lock of the same bytes, or one a write lock."""

    READ = 0
    WRITE = 1


def to_flock(kind: LockKind | None, start: int, length: int) -> bytes:
    """The lock of a range of bytes as the kernel wants it, for who asks for the same one often; ``None`` unlocks."""
    assert length > 0, "a length of 0 means to infinity"
    return _FLOCK.pack(_F_UNLCK if kind is None else kind.value, os.SEEK_SET, start, length, 0)


class LockFile:
    """Holds locks until ``close``, or until nobody refers to it. Thread-safe; of no use in a forked child."""

    def __init__(self, place: Place, kind: LockKind) -> None:
        self._pid = _this_process
        self._fd = -1
        self._region = place.region
        self._place = place
        try:
            self._fd = open_unleased(place, writable=kind is LockKind.WRITE)
        except Mismatch as mismatch:
            raise mismatch.to_error() from mismatch
        _open_descriptors.add(self._fd)

    def check(self) -> int:
        """The descriptor. Raises ``Closed`` after ``close``, and in a child made by ``fork``."""
        if self._pid != _this_process:
            raise Closed(
                f"Cannot use a lock of region {self._region}: process {self._pid} took it, and this is its forked "
                f"child {_this_process}",
                hint="take locks, and make rings, in the process that uses them",
            )
        if self._fd < 0:
            raise Closed(f"Cannot use a lock of region {self._region}: it was released")
        return self._fd

    def try_lock(self, kind: LockKind, start: int, length: int) -> bool:
        """Locks a range of bytes unless somebody else's lock is in the way. Raises ``Closed``."""
        try:
            self._fcntl(_F_OFD_SETLK, kind.value, start, length)
        except BlockingIOError:
            return False
        return True

    def try_flock(self, flock: bytes) -> bool:
        """As ``try_lock`` or ``unlock``, which ``to_flock`` has made ready. Raises ``Closed``."""
        try:
            fcntl.fcntl(self.check(), _F_OFD_SETLK, flock)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._failed(error) from error
        return True

    def is_locked_elsewhere(self, start: int, length: int) -> bool:
        """Whether another description, any process's, has a lock in the range. Takes nothing. Raises ``Closed``."""
        try:
            answer = fcntl.fcntl(self.check(), _F_OFD_GETLK, to_flock(LockKind.WRITE, start, length))
        except OSError as error:
            raise self._failed(error) from error
        return bool(_FLOCK.unpack(answer)[0] != _F_UNLCK)

    def lock(self, kind: LockKind, start: int, length: int, timeout: float | None) -> bool:
        """Locks a range of bytes. Sleeps in the kernel without a timeout; returns false when it is over."""
        if timeout is None:
            self._fcntl(_F_OFD_SETLKW, kind.value, start, length)
            return True
        return any(self.try_lock(kind, start, length) for _ in rounds(timeout))

    def unlock(self, start: int, length: int) -> None:
        """Lets go of a range. Does nothing where there is nothing to let go of: closed, or in a forked child."""
        with contextlib.suppress(Closed):
            self._fcntl(_F_OFD_SETLK, _F_UNLCK, start, length)

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the file; fewer where it ends. Raises ``Closed``."""
        return os.pread(self.check(), length, start)

    def reopen(self) -> int:
        """A description of the same file that holds none of the locks, for reading, whatever became of the file's name.
        The caller closes it. Raises ``Closed``, ``MappingFailed``, and as ``map_place`` does.
        """
        path = f"/proc/self/fd/{self.check()}"
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EACCES:
                # Its mode lets this user open nothing, though somebody has handed the description out.
                return open_unleased(self._place, writable=False)
            raise MappingFailed(
                f"Cannot open region {self._region} once more: {error}", hint="is there a /proc?"
            ) from error

    def close(self) -> None:
        """Lets go of every lock. Safe to call twice, and in a forked child, where it leaves the parent's alone."""
        fd, self._fd = self._fd, -1
        if fd < 0 or self._pid != _this_process:
            return
        _open_descriptors.discard(fd)
        try:
            # First by word: a child made by a fork that Python does not see has a copy, which would keep the locks.
            fcntl.fcntl(fd, _F_OFD_SETLK, _FLOCK.pack(_F_UNLCK, os.SEEK_SET, 0, 0, 0))
        finally:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def _fcntl(self, command: int, kind: int, start: int, length: int) -> None:
        assert length > 0, "a length of 0 means to infinity"
        try:
            fcntl.fcntl(self.check(), command, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise BlockingIOError(error.errno, "somebody else holds it") from error
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> MappingFailed:
        return MappingFailed(f"Cannot lock bytes of region {self._region}: {error}")


def rounds(timeout: float | None) -> Iterator[None]:
    """Tries with pauses between them, at least one, until the time is over. ``None``: without end."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = SHORTEST_PAUSE
    while True:
        yield
        left = LONGEST_PAUSE if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE)


def _forget_in_child() -> None:
    global _this_process  # noqa: PLW0603  # there is one process
    _this_process = os.getpid()
    # Closed and not unlocked: the locks are the parent's, and shall end with it.
    for fd in _open_descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)
    _open_descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
