"""Leases: read locks of an open file description at three bytes far past any content (docs/protocol.md, "Constants").

A lease is taken here and never given back: it ends when the last mapping of the description does, however that happens.
"""

from __future__ import annotations

import enum
import os
import struct
import sys

if sys.platform != "win32":
    # Not at the first lock: a worker may have dropped the right to read Python's library by then.
    import fcntl

LEASE_BYTE = 1 << 62
MAKER_BYTE = LEASE_BYTE + 1
WRITER_BYTE = LEASE_BYTE + (1 << 61)

# <fcntl.h>; the module `fcntl` has them too, but not under every C library.
_F_OFD_GETLK = 36
_F_OFD_SETLK = 37
_F_RDLCK = 0
_F_WRLCK = 1
_F_UNLCK = 2

# struct flock {short l_type, l_whence; off_t l_start, l_len; pid_t l_pid;}, padded to 32 bytes on 64-bit Linux.
_FLOCK = struct.Struct("@hhqqi0q")


def _to_flock(kind: int, start: int, length: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, start, length, 0)


class Role(enum.Enum):
    """As what a process maps a region: the first byte that it locks, and how many."""

    CONSUMER = LEASE_BYTE, 1
    """It did not make it."""
    MAKER = MAKER_BYTE, 1
    """It made it, and is none of those for whom it is made."""
    BUILDER = LEASE_BYTE, 2
    """It made it, and uses it like the others."""

    def __init__(self, start: int, length: int) -> None:
        # Made once: each attach takes one, and to look it up by a member would cost a third of taking it.
        self.read_lock = _to_flock(_F_RDLCK, start, length)


_WRITER_READ_LOCK = _to_flock(_F_RDLCK, WRITER_BYTE, 1)


def take_lease(fd: int, role: Role = Role.CONSUMER) -> None:
    """Marks the file of ``fd`` as mapped. Raises ``OSError``; ``EAGAIN`` if somebody write-locks the byte."""
    _ofd_lock(fd, _F_OFD_SETLK, role.read_lock)


def take_writer_lease(fd: int) -> None:
    """Marks the file of ``fd`` as mapped for writing. Raises ``OSError``."""
    _ofd_lock(fd, _F_OFD_SETLK, _WRITER_READ_LOCK)


def let_go(fd: int) -> None:
    """Takes every lease back from a description that nobody has mapped yet. Raises ``OSError``."""
    _ofd_lock(fd, _F_OFD_SETLK, _to_flock(_F_UNLCK, LEASE_BYTE, 0))


def let_go_of_writing(fd: int) -> None:
    """As ``let_go``, of the writer's lease alone. Raises ``OSError``."""
    _ofd_lock(fd, _F_OFD_SETLK, _to_flock(_F_UNLCK, WRITER_BYTE, 1))


def is_leased(path: str) -> bool:
    """Whether any process maps the file, its maker too, as the server asks it. Takes nothing."""
    return _is_locked(path, LEASE_BYTE, 2)


def is_consumed(path: str) -> bool:
    """Whether any process but its maker maps the file. Takes nothing."""
    return _is_locked(path, LEASE_BYTE, 1)


def has_writer(path: str) -> bool:
    """Whether any process maps the file for writing. Takes nothing."""
    return _is_locked(path, WRITER_BYTE, 1)


def _is_locked(path: str, start: int, length: int) -> bool:
    # A fresh description: through one that holds the lock itself, the kernel would see no conflict.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        answer = _ofd_lock(fd, _F_OFD_GETLK, _to_flock(_F_WRLCK, start, length))
    finally:
        os.close(fd)
    return bool(_FLOCK.unpack(answer)[0] != _F_UNLCK)


def _ofd_lock(fd: int, command: int, flock: bytes) -> bytes:
    if sys.platform == "win32":
        raise OSError("no open-file-description locks on Windows")
    return fcntl.fcntl(fd, command, flock)
