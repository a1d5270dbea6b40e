"""A mapping of a region's file, and the arrays and buffers that look into it.

Its pages go with ``munmap`` when the mapping is closed *and* the last array or torch tensor over it is gone: all of
them hold the same ctypes object, the anchor, whose end is that moment. It opens no files and takes no locks.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import weakref
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from . import _libc
from ._errors import Closed

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
    Access.WRITE: (_libc.PROT_READ | _libc.PROT_WRITE, _libc.MAP_SHARED),
    Access.PRIVATE: (_libc.PROT_READ | _libc.PROT_WRITE, _libc.MAP_PRIVATE | _libc.MAP_NORESERVE),
    Access.STRICT: (_libc.PROT_READ, _libc.MAP_SHARED),
}


class Mapping:
    """The range ``[byte_offset, byte_offset + byte_size)`` of an open file, mapped with the pages around it.

    Offsets of its methods count from the start of the *file*. The descriptor may be closed afterwards: the mapping
    keeps the open file, and with it the locks. Raises ``OSError``.
    """

    def __init__(self, fd: int, byte_offset: int, byte_size: int, access: Access) -> None:
        self._start = byte_offset & -_libc.PAGE_SIZE
        # A tensor of no bytes still needs a mapping, since that is what holds its lease.
        self._length = max(byte_offset + byte_size - self._start, 1)
        self._access = access
        protection, flags = _PROTECTION[access]
        self._address = _libc.mmap(None, self._length, protection, flags, fd, self._start)
        self._anchor: Any = (ctypes.c_ubyte * self._length).from_address(self._address)
        finalizer = weakref.finalize(self._anchor, _libc.munmap, self._address, self._length)
        # At interpreter exit arrays may live on in other threads and atexit hooks; the kernel frees the pages anyway.
        finalizer.atexit = False
        view = memoryview(self._anchor)
        self._root: Bytes | None = np.frombuffer(view if access is Access.WRITE else view.toreadonly(), np.uint8)
        self._handed_out: weakref.WeakValueDictionary[int, npt.NDArray[Any]] = weakref.WeakValueDictionary()
        self._numbers = itertools.count()
        self._flipped: list[weakref.ref[npt.NDArray[Any]]] = []

    @property
    def access(self) -> Access:
        return self._access

    @property
    def address(self) -> int:
        return self._address

    @property
    def closed(self) -> bool:
        return self._root is None

    def close(self) -> None:
        """Lets go. What was handed out stays valid and keeps the pages."""
        self._root = None
        self._anchor = None

    def bytes(self, byte_offset: int, byte_size: int) -> Bytes:
        """The bytes as an array over the mapping, writable if the mapping is. Raises ``Closed``."""
        root = self._root
        if root is None:
            _refuse_closed()
        start = byte_offset - self._start
        assert 0 <= start <= start + byte_size <= self._length, "outside the mapping"
        return root[start : start + byte_size]

    def hand_out(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Remembers an array over the mapping, weakly, so that ``remap`` can change whether it is writable."""
        self._handed_out[next(self._numbers)] = array
        return array

    def buffer(self) -> tuple[Any, int]:
        """The anchor, which is a writable buffer, and the file offset of its first byte. Raises ``Closed``."""
        anchor = self._anchor
        if anchor is None:
            _refuse_closed()
        return anchor, self._start

    def remap(self, fd: int, access: Access) -> None:
        """Maps another open description of the same file over this one, in place: every address stays valid.

        The old description goes, with the locks that it held. Arrays handed out follow in being writable or not; views
        that the caller made of them do not, and write into private pages then. Raises ``OSError`` and changes nothing.
        """
        protection, flags = _PROTECTION[access]
        _libc.mmap(self._address, self._length, protection, flags | _libc.MAP_FIXED, fd, self._start)
        self._access = access
        root = self._root
        if root is None:
            return
        writable = access is Access.WRITE
        root.flags.writeable = writable
        # Only what was writable before becomes so again: the caller may have locked an array of its own accord.
        if not writable:
            self._flipped = [weakref.ref(array) for array in self._handed_out.values() if array.flags.writeable]
        for reference in self._flipped:
            array = reference()
            if array is not None:
                array.flags.writeable = writable

    def __reduce__(self) -> NoReturn:
        raise TypeError("a mapping cannot be pickled or copied")


def _refuse_closed() -> NoReturn:
    raise Closed("Cannot use the mapping: it is closed")
