"""The seam to C: mmap, munmap and madvise through ctypes, one checked function a call and no policy.

The ``mmap`` module is not used because it has no ``MAP_FIXED`` and holds the GIL while it populates; ctypes releases
it.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import sys

from tensord._errors import FeatureUnavailable

# <sys/mman.h>, the same values on x86-64 and arm64.
PROT_READ = 1
PROT_WRITE = 2
MAP_SHARED = 0x01
MAP_PRIVATE = 0x02
MAP_FIXED = 0x10
MAP_NORESERVE = 0x4000
MADV_POPULATE_WRITE = 23

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

_MAP_FAILED = ctypes.c_void_p(-1).value


@functools.lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    # Loaded at the first call, so that the package imports on systems where it cannot map.
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":
        raise FeatureUnavailable(
            f"Cannot map shared memory: this is {sys.platform}, want 64-bit, little-endian Linux",
            hint="run the worker where the server runs",
        )
    library = ctypes.CDLL(None, use_errno=True)
    # void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
    )
    # int munmap(void *addr, size_t length);
    library.munmap.restype = ctypes.c_int
    library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    # int madvise(void *addr, size_t length, int advice);
    library.madvise.restype = ctypes.c_int
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return library


def mmap(address: int | None, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
    """mmap(2). Returns the address; raises ``OSError``."""
    result = _library().mmap(address, length, prot, flags, fd, offset)
    if result is None or result == _MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"mmap: {os.strerror(number)}")
    return int(result)


def munmap(address: int, length: int) -> None:
    """munmap(2). Runs in finalizers, where nobody could act on a failure, so it reports none."""
    _library().munmap(address, length)


def populate_for_writing(address: int, length: int) -> None:
    """madvise(2) with ``MADV_POPULATE_WRITE`` on the whole pages around the range.

    Kernels before 5.14 do not know it (``EINVAL``); the pages then come one by one with the first touch. Raises
    ``OSError`` with ``EFAULT`` if the file ends before the range, where a touch would be SIGBUS.
    """
    start = address & -PAGE_SIZE
    size = address + length - start
    while _library().madvise(start, size, MADV_POPULATE_WRITE) != 0:
        number = ctypes.get_errno()
        if number == errno.EINVAL:
            return
        if number != errno.EINTR:
            raise OSError(number, f"madvise: {os.strerror(number)}")
