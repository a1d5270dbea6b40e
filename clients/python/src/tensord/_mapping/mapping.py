"""A mapping of a region's file, and the arrays and buffers that look into it.

Its pages go with ``munmap`` when the mapping is closed *and* the last array or torch tensor over it is gone: all of
them hold the same ctypes object, the anchor, whose end is that moment. It opens no files and takes no locks.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import weakref
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from tensord._errors import Closed

from . import libc

Bytes = npt.NDArray[np.uint8]


class Access(enum.Enum):
    """How a region is mapped."""

    WRITE = "write"
    """Shared and writable."""
    PRIVATE = "private"
    """Read-only to the caller. The pages are writable and private all the same: torch knows no read-only tensors, and
    a stray write shall stay the writer's own page, not kill the process. Never populated, or every page would be
    copied.
    """
    STRICT = "strict"
    """Read-only to the processor as well: a stray write is a crash."""


_PROTECTION = {
    Access.WRITE: (libc.PROT_READ | libc.PROT_WRITE, libc.MAP_SHARED),
    Access.PRIVATE: (libc.PROT_READ | libc.PROT_WRITE, libc.MAP_PRIVATE | libc.MAP_NORESERVE),
    Access.STRICT: (libc.PROT_READ, libc.MAP_SHARED),
}


class Mapping:
    """The range ``[byte_offset, byte_offset + byte_size)`` of an open file, mapped with the pages around it.

    Offsets of its methods count from the start of the *file*. The descriptor may be closed afterwards: the mapping
    keeps the open file, and with it the locks. Raises ``OSError``.
    """

    def __init__(self, fd: int, byte_offset: int, byte_size: int, access: Access) -> None:
        self._start = byte_offset & -libc.PAGE_SIZE
        # A tensor of no bytes still needs a mapping, since that is what holds its lease.
        self._length = max(byte_offset + byte_size - self._start, 1)
        self._access = access
        protection, flags = _PROTECTION[access]
        self._address = libc.mmap(None, self._length, protection, flags, fd, self._start)
        self._anchor: Any = _array_type(self._length).from_address(self._address)
        finalizer = weakref.finalize(self._anchor, libc.munmap, self._address, self._length)
        # At interpreter exit arrays may live on in other threads and atexit hooks; the kernel frees the pages anyway.
        finalizer.atexit = False
        self._root: Bytes | None = None
        self._handed_out: weakref.WeakValueDictionary[int, npt.NDArray[Any]] | None = None
        self._flipped: list[weakref.ref[npt.NDArray[Any]]] = []

    @property
    def access(self) -> Access:
        return self._access

    @property
    def address(self) -> int:
        return self._address

    @property
    def closed(self) -> bool:
        return self._anchor is None

    def close(self) -> None:
        """Lets go. What was handed out stays valid and keeps the pages."""
        self._root = None
        self._anchor = None

    def bytes(self, byte_offset: int, byte_size: int) -> Bytes:
        """The bytes as an array over the mapping, writable if the mapping is. Raises ``Closed``."""
        anchor, _ = self.buffer()
        root = self._root
        if root is None:
            view = memoryview(anchor)
            root = np.frombuffer(view if self._access is Access.WRITE else view.toreadonly(), np.uint8)
            self._root = root
        start = byte_offset - self._start
        assert 0 <= start <= start + byte_size <= self._length, "outside the mapping"
        return root[start : start + byte_size]

    def hand_out(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Remembers an array over the mapping, weakly, so that ``remap`` can change whether it is writable."""
        if self._access is Access.WRITE:
            if self._handed_out is None:
                self._handed_out = weakref.WeakValueDictionary()
            self._handed_out[id(array)] = array
        return array

    def buffer(self) -> tuple[Any, int]:
        """The anchor, which is a writable buffer, and the file offset of its first byte. Raises ``Closed``."""
        anchor = self._anchor
        if anchor is None:
            raise Closed("Cannot use the mapping: it is closed")
        return anchor, self._start

    def remap(self, fd: int, access: Access) -> None:
        """Maps another open description of the same file over this one, in place: every address stays valid.

        The old description goes, with the locks that it held. Arrays handed out follow in being writable or not; views
        that the caller made of them do not, and write into private pages then. Raises ``OSError`` and changes nothing.
        """
        protection, flags = _PROTECTION[access]
        # Held until the end: if another thread closes the mapping meanwhile, the range must not become somebody else's.
        anchor, _ = self.buffer()
        libc.mmap(self._address, self._length, protection, flags | libc.MAP_FIXED, fd, self._start)
        self._access = access
        # The next array gets a root of the new kind; those that are out keep theirs.
        self._root = None
        writable = access is Access.WRITE
        if not writable:
            arrays = list((self._handed_out or {}).values())
            # What the caller had locked of its own accord is not unlocked again.
            self._flipped = [weakref.ref(array) for array in arrays if array.flags.writeable]
        for reference in self._flipped:
            array = reference()
            if array is not None:
                array.flags.writeable = writable
        del anchor

    def __reduce__(self) -> NoReturn:
        raise TypeError("a mapping cannot be pickled or copied")


@functools.lru_cache(maxsize=64)
def _array_type(length: int) -> Any:
    # Kept, because ctypes makes a class for each length, which costs as much as the mapping.
    return ctypes.c_ubyte * length
