"""The seam to C: calls for mapped memory through ctypes, one checked function a call and no policy.

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
PROT_NONE = 0
PROT_READ = 1
PROT_WRITE = 2
MAP_SHARED = 0x01
MAP_PRIVATE = 0x02
MAP_FIXED = 0x10
MAP_ANONYMOUS = 0x20
MAP_NORESERVE = 0x4000
MADV_POPULATE_WRITE = 23
MREMAP_MAYMOVE = 1
MREMAP_FIXED = 2
MLOCK_ONFAULT = 1
MS_INVALIDATE = 2
ADVICE = {"normal": 0, "random": 1, "sequential": 2, "willneed": 3, "dontneed": 4}

# What one entry of a page table's middle level maps, on x86-64 and on arm64 with pages of 4 KiB.
LARGE_PAGE_SIZE = 2 << 20

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
    # int mprotect(void *addr, size_t length, int prot);
    library.mprotect.restype = ctypes.c_int
    library.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    # void *mremap(void *old_address, size_t old_size, size_t new_size, int flags, ... /* void *new_address */);
    library.mremap.restype = ctypes.c_void_p
    library.mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
    # int mlock(const void *addr, size_t length);
    library.mlock.restype = ctypes.c_int
    library.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    # int mlock2(const void *addr, size_t length, unsigned int flags);
    library.mlock2.restype = ctypes.c_int
    library.mlock2.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
    # int msync(void *addr, size_t length, int flags);
    library.msync.restype = ctypes.c_int
    library.msync.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    # int mincore(void *addr, size_t length, unsigned char *vec);
    library.mincore.restype = ctypes.c_int
    library.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    return library


def mmap(address: int | None, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
    """mmap(2). Returns the address; raises ``OSError``."""
    result = _library().mmap(address, length, prot, flags, fd, offset)
    if result is None or result == _MAP_FAILED:
        raise _failed("mmap")
    return int(result)


def mmap_aligned(length: int, prot: int, flags: int, fd: int, offset: int) -> int:
    """As ``mmap``, at an address that lies in its large page as ``offset`` does in the file's: only there large pages
    of the file are mapped whole. A range smaller than one, and one for which there is no such address, is anywhere.
    """
    if length < LARGE_PAGE_SIZE:
        return mmap(None, length, prot, flags, fd, offset)
    shift = offset % LARGE_PAGE_SIZE
    # Where the last one was it is often free again, and then one call does; the kernel takes it for a wish.
    address = mmap(_last_place[0] + shift, length, prot, flags, fd, offset)
    if address % LARGE_PAGE_SIZE == shift:
        return address
    pages = -(-length // PAGE_SIZE) * PAGE_SIZE
    around = pages + LARGE_PAGE_SIZE
    try:
        reserved = mmap(None, around, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    except OSError:
        # No room for so much more: ulimit -v, ulimit -l in a locked address space, vm.max_map_count.
        return address
    place = reserved + (shift - reserved) % LARGE_PAGE_SIZE
    try:
        mmap(place, length, prot, flags | MAP_FIXED, fd, offset)
    except OSError:
        munmap(reserved, around)
        return address
    munmap(address, pages)
    if place > reserved:
        munmap(reserved, place - reserved)
    munmap(place + pages, reserved + around - place - pages)
    _last_place[0] = place - shift
    return place


# Where the large page begins in which a map was put that had to be moved; 0 is no wish.
_last_place = [0]


def trim_heap() -> None:
    """malloc_trim(3): gives back to the kernel what this process has freed. Of glibc; others have no such call."""
    call = getattr(_library(), "malloc_trim", None)
    if call is not None:
        # int malloc_trim(size_t pad);
        call.restype, call.argtypes = ctypes.c_int, (ctypes.c_size_t,)
        call(0)


def munmap(address: int, length: int) -> None:
    """munmap(2). Runs in finalizers, where nobody could act on a failure, so it reports none."""
    _library().munmap(address, length)


def mprotect(address: int, length: int, prot: int) -> None:
    """mprotect(2) on the whole pages around the range. Raises ``OSError``."""
    start, size = _pages_around(address, length)
    if _library().mprotect(start, size, prot) != 0:
        raise _failed("mprotect")


def move(address: int, length: int, target: int) -> None:
    """mremap(2) of a mapping onto the place of another, which goes in the same step. Raises ``OSError``."""
    result = _library().mremap(address, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, target)
    if result is None or result == _MAP_FAILED:
        raise _failed("mremap")


def mlock(address: int, length: int) -> None:
    """mlock(2): the pages are in memory, and stay. Raises ``OSError``."""
    if _library().mlock(address, length) != 0:
        raise _failed("mlock")


def lock_on_fault(address: int, length: int) -> None:
    """mlock2(2) with ``MLOCK_ONFAULT`` on the whole pages around the range: each is locked once it is there, and a
    private one is not copied for it. Raises ``OSError``.
    """
    start, size = _pages_around(address, length)
    if _library().mlock2(start, size, MLOCK_ONFAULT) != 0:
        raise _failed("mlock2")


def is_locked(address: int, length: int) -> bool:
    """Whether any page around the range is locked, by ``mlock`` or ``mlockall``. Changes nothing: msync(2) answers
    ``EBUSY`` then to ``MS_INVALIDATE``, which does nothing else on Linux. Raises ``OSError``.
    """
    start, size = _pages_around(address, length)
    if _library().msync(start, size, MS_INVALIDATE) == 0:
        return False
    if ctypes.get_errno() == errno.EBUSY:
        return True
    raise _failed("msync")


def locks_new_maps() -> bool:
    """Whether what this process maps from now on is locked: it called ``mlockall(MCL_FUTURE)``. Raises ``OSError``."""
    address = mmap(None, PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    try:
        return is_locked(address, PAGE_SIZE)
    finally:
        munmap(address, PAGE_SIZE)


def _pages_around(address: int, length: int) -> tuple[int, int]:
    start = address & -PAGE_SIZE
    return start, address + length - start


def _failed(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")


def populate_for_writing(address: int, length: int) -> None:
    """madvise(2) with ``MADV_POPULATE_WRITE`` on the whole pages around the range.

    Kernels before 5.14 do not know it (``EINVAL``); the pages then come one by one with the first touch. Raises
    ``OSError`` with ``EFAULT`` if the file ends before the range, where a touch would be SIGBUS.
    """
    start, size = _pages_around(address, length)
    while _library().madvise(start, size, MADV_POPULATE_WRITE) != 0:
        number = ctypes.get_errno()
        if number == errno.EINVAL:
            return
        if number != errno.EINTR:
            raise _failed("madvise")


def advise(address: int, length: int, advice: str) -> None:
    """madvise(2) with one of ``ADVICE`` on the whole pages around the range. ``dontneed`` takes private pages that were
    written to away: whoever calls it has looked. Raises ``OSError``.
    """
    start, size = _pages_around(address, length)
    if _library().madvise(start, size, ADVICE[advice]) != 0:
        raise _failed("madvise")


def resident_pages(address: int, length: int) -> int:
    """mincore(2): how many of the whole pages around the range are in memory. Of a file that this process neither owns
    nor may write to the kernel says all. Raises ``OSError``.
    """
    start, size = _pages_around(address, length)
    found = (ctypes.c_ubyte * -(-size // PAGE_SIZE))()
    if _library().mincore(start, size, ctypes.addressof(found)) != 0:
        raise _failed("mincore")
    # Of each byte the lowest bit counts.
    return sum(byte & 1 for byte in bytes(found))
