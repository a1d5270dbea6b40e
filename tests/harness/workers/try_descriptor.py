"""Tries all that a descriptor of a region may be good for, and prints what the kernel says to each, as JSON.

Usage: try_descriptor.py DESCRIPTOR [UID GID]. What is done is undone.
"""

import ctypes
import errno
import json
import os
import sys
from collections.abc import Callable

PR_SET_DUMPABLE = 4
PROT_READ, PROT_WRITE, MAP_SHARED, PAGE = 1, 2, 1, 4096
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def fail() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def write(fd: int) -> None:
    os.pwrite(fd, os.pread(fd, 1, 0), 0)


def resize(fd: int, change: int) -> None:
    size = os.fstat(fd).st_size
    os.ftruncate(fd, size + change)
    os.ftruncate(fd, size)


def map_shared(fd: int, protection: int) -> int:
    address = libc.mmap(None, PAGE, protection, MAP_SHARED, fd, 0)
    if address == ctypes.c_void_p(-1).value:
        raise fail()
    return int(address)


def map_readable(fd: int) -> None:
    libc.munmap(map_shared(fd, PROT_READ), PAGE)


def map_writable(fd: int) -> None:
    libc.munmap(map_shared(fd, PROT_READ | PROT_WRITE), PAGE)


def protect_writable(fd: int) -> None:
    address = map_shared(fd, PROT_READ)
    try:
        if libc.mprotect(address, PAGE, PROT_READ | PROT_WRITE) != 0:
            raise fail()
    finally:
        libc.munmap(address, PAGE)


def reopen(path: str, flags: int, use: Callable[[int], None]) -> None:
    fd = os.open(path, flags)
    try:
        use(fd)
    finally:
        os.close(fd)


def become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    # Who was root before does not reach its own /proc/self/fd: that refusal would be another one.
    if libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0:
        raise fail()


def attempt(act: Callable[[], None]) -> str | None:
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return None


def main() -> None:
    fd, *user = map(int, sys.argv[1:])
    if user:
        become(*user)
    again = f"/proc/self/fd/{fd}"
    attempts: dict[str, Callable[[], None]] = {
        "read": lambda: map_readable(fd),
        "write": lambda: write(fd),
        "truncate": lambda: resize(fd, -1),
        "extend": lambda: resize(fd, 1),
        "map": lambda: map_writable(fd),
        "mprotect": lambda: protect_writable(fd),
        "reopen-read": lambda: reopen(again, os.O_RDONLY, map_readable),
        "reopen-write": lambda: reopen(again, os.O_RDWR, write),
        "reopen-map": lambda: reopen(again, os.O_RDWR, map_writable),
    }
    print(json.dumps({what: attempt(act) for what, act in attempts.items()}))


main()
