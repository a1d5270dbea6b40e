"""A mapping of a region's file, and views of it: the arrays and buffers that look into it.

Its pages go with ``munmap`` when the last view is closed *and* the last array or torch tensor over it is gone: all of
them hold the same ctypes object, the anchor, whose end is that moment. Nothing here opens files or takes locks.
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


def map_file(fd: int, byte_offset: int, byte_size: int, access: Access) -> View:
    """Maps the range ``[byte_offset, byte_offset + byte_size)`` of an open file, with the pages around it.

    The descriptor may be closed afterwards: the mapping keeps the open file, and with it the locks. Raises ``OSError``.
    """
    start = byte_offset & -libc.PAGE_SIZE
    # A tensor of no bytes still needs a mapping, since that is what holds its lease.
    length = max(byte_offset + byte_size - start, 1)
    protection, flags = _PROTECTION[access]
    address = libc.mmap(None, length, protection, flags, fd, start)
    anchor = _array_type(length).from_address(address)
    finalizer = weakref.finalize(anchor, libc.munmap, address, length)
    # At interpreter exit arrays may live on in other threads and atexit hooks; the kernel frees the pages anyway.
    finalizer.atexit = False
    return View(Mapping(anchor, start, access), anchor, start)


class Mapping:
    """Mapped pages, from the byte ``start`` of a file on: how they are mapped, and the arrays that follow a change of
    that. It keeps no pages itself; its views and their arrays do.
    """

    __slots__ = ("_access", "_anchor", "_flipped", "_handed_out", "_start")

    def __init__(self, anchor: Any, start: int, access: Access) -> None:
        self._anchor = weakref.ref(anchor)
        self._start = start
        self._access = access
        self._handed_out: weakref.WeakValueDictionary[int, npt.NDArray[Any]] | None = None
        self._flipped: list[weakref.ref[npt.NDArray[Any]]] = []

    @property
    def access(self) -> Access:
        return self._access

    def hand_out(self, array: npt.NDArray[Any]) -> None:
        """Remembers an array over the mapping, weakly, so that ``remap`` can change whether it is writable."""
        if self._access is Access.WRITE:
            if self._handed_out is None:
                self._handed_out = weakref.WeakValueDictionary()
            self._handed_out[id(array)] = array

    def remap(self, fd: int, access: Access) -> None:
        """Maps another open description of the same file over this one, in place: every address stays valid.

        The old description goes, with the locks that it held. Arrays handed out follow in being writable or not; views
        that the caller made of them do not, and write into private pages then. Raises ``OSError``, ``Closed`` if the
        pages are gone, and changes nothing then.
        """
        protection, flags = _PROTECTION[access]
        # Held until the end: if another thread closes the last view meanwhile, the range must not become somebody
        # else's.
        anchor = self._anchor()
        if anchor is None:
            raise Closed("Cannot use the mapping: it is closed")
        libc.mmap(ctypes.addressof(anchor), len(anchor), protection, flags | libc.MAP_FIXED, fd, self._start)
        self._access = access
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


class View:
    """The bytes of a mapping, or of a part of it, until ``close``. Offsets count from the start of the *file*."""

    __slots__ = ("_anchor", "_root", "_start", "mapping")

    def __init__(self, mapping: Mapping, anchor: Any, start: int) -> None:
        self.mapping = mapping
        self._anchor = anchor
        self._start = start
        self._root: tuple[Access, Bytes] | None = None

    @property
    def access(self) -> Access:
        return self.mapping.access

    @property
    def closed(self) -> bool:
        return self._anchor is None

    def close(self) -> None:
        """Lets go. What was handed out stays valid and keeps the pages."""
        self._root = None
        self._anchor = None

    def part(self, byte_offset: int, byte_size: int) -> View:
        """A view of a part. Its anchor is an object of its own over the same bytes, whose end is that of the last array
        over this part, and which keeps the pages. Raises ``Closed``.
        """
        anchor, start = self.buffer()
        own = _array_type(max(byte_size, 1)).from_buffer(anchor, byte_offset - start)
        return View(self.mapping, own, byte_offset)

    def bytes(self, byte_offset: int, byte_size: int) -> Bytes:
        """The bytes as an array over the mapping, writable if the mapping is. Raises ``Closed``."""
        anchor, first = self.buffer()
        start = byte_offset - first
        assert 0 <= start <= start + byte_size <= len(anchor), "outside the view"
        return self._root_of(anchor)[start : start + byte_size]

    def hand_out(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Remembers an array over the view, weakly: it follows when the mapping is re-mapped."""
        self.mapping.hand_out(array)
        return array

    def buffer(self) -> tuple[Any, int]:
        """The anchor, which is a writable buffer, and the file offset of its first byte. Raises ``Closed``."""
        anchor = self._anchor
        if anchor is None:
            raise Closed("Cannot use the mapping: it is closed")
        return anchor, self._start

    def _root_of(self, anchor: Any) -> Bytes:
        # A new one after each change of access; arrays that are out keep theirs.
        access = self.access
        if self._root is None or self._root[0] is not access:
            view = memoryview(anchor)
            root = np.frombuffer(view if access is Access.WRITE else view.toreadonly(), np.uint8)
            self._root = access, root
            return root
        return self._root[1]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a view of a mapping cannot be pickled or copied")


@functools.lru_cache(maxsize=64)
def _array_type(length: int) -> Any:
    # Kept, because ctypes makes a class for each length, which costs as much as the mapping.
    return ctypes.c_ubyte * length
