"""A mapping of a region's file, and views of it: the arrays and buffers that look into it.

Its pages go with ``munmap`` when the last view is closed *and* the last array or torch tensor over it is gone: all of
them hold the same ctypes object, the anchor, whose end is that moment. Nothing here opens files or takes locks.

A reader's map is private, and read-only to the processor until a view is asked for that can be written to: what locks
or pins pages copies those of a private map that is writable (``docs/memory.md``, ADR 16).
"""

from __future__ import annotations

import ctypes
import enum
import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from tensord._errors import Closed, MappingFailed

from . import libc
from .ending import at_end, await_end

Bytes = npt.NDArray[np.uint8]


class Access(enum.Enum):
    """How a region is mapped."""

    WRITE = "write"
    """Shared and writable."""
    PRIVATE = "private"
    """Read-only to the caller; only for views that libraries may write to, such as torch's, pages become writable, and
    a write stays the writer's own page. Never populated, or every page would be copied.
    """
    STRICT = "strict"
    """Read-only to the processor as well: a stray write is a crash."""


# By a name of the module: to look up a member of an enumeration takes as long as to make a view.
_WRITE = Access.WRITE
_PRIVATE = Access.PRIVATE

_PROTECTION = {
    Access.WRITE: (libc.PROT_READ | libc.PROT_WRITE, libc.MAP_SHARED),
    Access.PRIVATE: (libc.PROT_READ, libc.MAP_PRIVATE | libc.MAP_NORESERVE),
    Access.STRICT: (libc.PROT_READ, libc.MAP_SHARED),
}
_READING = _PROTECTION[_PRIVATE]
_PAGE_SIZE = libc.PAGE_SIZE


def map_file(fd: int, byte_offset: int, byte_size: int, access: Access, page_bytes: int = libc.PAGE_SIZE) -> View:
    """Maps the range ``[byte_offset, byte_offset + byte_size)`` of an open file, with the pages around it, which have
    ``page_bytes`` each.

    The descriptor may be closed afterwards: the mapping keeps the open file, and with it the locks. Raises ``OSError``.
    """
    start = byte_offset & -page_bytes
    # A tensor of no bytes still needs a mapping, since that is what holds its lease.
    length = max(byte_offset + byte_size - start, 1)
    protection, flags = _READING if access is _PRIVATE else _PROTECTION[access]
    if page_bytes == _PAGE_SIZE:
        address = libc.mmap_aligned(length, protection, flags, fd, start)
    else:
        # Pages of another size the kernel aligns itself.
        address = libc.mmap(None, length, protection, flags, fd, start)
    anchor = _array_type(length).from_address(address)
    mapping = Mapping(anchor, start, access, page_bytes)
    # Huge pages are unmapped whole; others the kernel rounds up itself.
    # Not at interpreter exit, where the kernel frees the pages anyway.
    mapping.ending.add(functools.partial(libc.munmap, address, -(-length // page_bytes) * page_bytes))
    return View(mapping, anchor, start)


def _allow_writes(address: int, length: int) -> None:
    """Makes the pages of a private map writable, each copied at its first write and none before."""
    if libc.is_locked(address, length):
        # Of a map that is locked as a whole the kernel would copy every page here, for fear of a fault later.
        libc.lock_on_fault(address, length)
    libc.mprotect(address, length, libc.PROT_READ | libc.PROT_WRITE)


def _replace_writable(fd: int, address: int, length: int, start: int) -> None:
    """Maps the file privately over a mapping, in one step that other threads cannot see, for those who still write."""
    flags = libc.MAP_PRIVATE | libc.MAP_NORESERVE
    if not libc.locks_new_maps():
        libc.mmap(address, length, libc.PROT_READ | libc.PROT_WRITE, flags | libc.MAP_FIXED, fd, start)
        return
    # Made elsewhere, since what is mapped writable in a locked address space is copied before mmap returns.
    fresh = libc.mmap(None, length, libc.PROT_READ, flags, fd, start)
    try:
        _allow_writes(fresh, length)
        libc.move(fresh, length, address)
    except OSError:
        libc.munmap(fresh, length)
        raise


class Mapping:
    """Mapped pages, from the byte ``start`` of a file on: how they are mapped, and the arrays that follow a change of
    that. It keeps no pages itself; its views and their arrays do. ``attached_by`` says how their file was reached,
    ``ending`` is the end of the pages.
    """

    __slots__ = (
        "_access",
        "_flipped",
        "_handed_out",
        "_page_bytes",
        "_start",
        "_writable",
        "attached_by",
        "ending",
    )

    def __init__(self, anchor: Any, start: int, access: Access, page_bytes: int) -> None:
        self.attached_by: Literal["name", "descriptor", "copy"] = "name"
        self.ending = await_end(anchor)
        self._page_bytes = page_bytes
        self._start = start
        self._access = access
        self._handed_out: weakref.WeakValueDictionary[int, npt.NDArray[Any]] | None = None
        self._flipped: Sequence[weakref.ref[npt.NDArray[Any]]] = ()
        # What every array is a view of through which somebody may still write.
        # By plain references, since each attach makes this, and hardly one has anything in it.
        self._writable: dict[int, weakref.ref[Bytes]] = {}

    @property
    def access(self) -> Access:
        return self._access

    def will_write(self, root: Bytes, address: int, length: int) -> None:
        """Remembers, weakly, an array over this range that can be written to: as long as it lives its pages can be,
        after a seal too. Raises ``OSError``.
        """
        # In this order: a seal in another thread either sees it or is seen.
        self._writable[id(root)] = weakref.ref(root, functools.partial(_drop, self._writable, id(root)))
        if self._access is not Access.WRITE:
            start = address & -self._page_bytes
            _allow_writes(start, self._whole_pages(address + length - start))

    def hand_out(self, array: npt.NDArray[Any]) -> None:
        """Remembers an array over the mapping, weakly, so that ``remap`` can change whether it is writable."""
        if self._access is Access.WRITE:
            if self._handed_out is None:
                self._handed_out = weakref.WeakValueDictionary()
            self._handed_out[id(array)] = array

    def protect(self) -> None:
        """Makes shared pages read-only to the processor, for good. Raises ``OSError``, ``Closed``."""
        anchor = self._held()
        libc.mprotect(ctypes.addressof(anchor), self._whole_pages(len(anchor)), libc.PROT_READ)
        self._access = Access.STRICT

    def remap(self, fd: int, access: Access) -> None:
        """Maps another open description of the same file over this one, in place: every address stays valid.

        The old description goes, with the locks that it held. Arrays handed out follow in being writable or not; views
        that the caller made of them do not, and write into private pages then. Raises ``OSError``, ``Closed`` if the
        pages are gone, and changes nothing then.
        """
        # Held until the end: if another thread closes the last view meanwhile, the range must not become somebody
        # else's.
        anchor = self._held()
        address, length = ctypes.addressof(anchor), self._whole_pages(len(anchor))
        if access is Access.PRIVATE and self._writable:
            _replace_writable(fd, address, length, self._start)
        else:
            protection, flags = _PROTECTION[access]
            libc.mmap(address, length, protection, flags | libc.MAP_FIXED, fd, self._start)
        self._access = access
        if access is Access.PRIVATE and self._writable:
            # Somebody asked meanwhile, who saw the old access.
            _allow_writes(address, length)
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

    def _whole_pages(self, length: int) -> int:
        return -(-length // self._page_bytes) * self._page_bytes

    def _held(self) -> Any:
        anchor = self.ending()
        if anchor is None:
            raise Closed("Cannot use the mapping: it is closed")
        return anchor

    def __reduce__(self) -> NoReturn:
        raise TypeError("a mapping cannot be pickled or copied")


class View:
    """The bytes of a mapping, or of a part of it, until ``close``. Offsets count from the start of the *file*."""

    __slots__ = ("_anchor", "_apart", "_root", "_start", "mapping")

    def __init__(self, mapping: Mapping, anchor: Any, start: int) -> None:
        self.mapping = mapping
        self._anchor = anchor
        self._start = start
        self._root: tuple[Access, Callable[[], Bytes | None]] | None = None
        self._apart: Callable[[], View] | View | None = None

    @property
    def access(self) -> Access:
        return self.mapping.access if self._apart is None else Access.PRIVATE

    @property
    def closed(self) -> bool:
        return self._anchor is None

    def close(self) -> None:
        """Lets go. What was handed out stays valid and keeps the pages."""
        self._root = None
        self._anchor = None
        self._apart = None

    def at_end(self, call: Callable[[], object]) -> None:
        """Has ``call`` made once this view is closed and nothing of what was handed out is left. Raises ``Closed``."""
        anchor = self._anchor
        if anchor is None:
            self.buffer()
        ending = self.mapping.ending
        if ending() is anchor:
            ending.add(call)
        else:
            # A part's is its own.
            at_end(anchor, call)

    def part(self, byte_offset: int, byte_size: int) -> View:
        """A view of a part. Its anchor is an object of its own over the same bytes, whose end is that of the last array
        over this part, and which keeps the pages. Raises ``Closed``.
        """
        anchor, start = self.buffer()
        own = _array_type(max(byte_size, 1)).from_buffer(anchor, byte_offset - start)
        return View(self.mapping, own, byte_offset)

    def write_apart(self, apart: Callable[[], View]) -> None:
        """Has the writable buffers of this view in a mapping of their own, which ``apart`` makes at the first one: the
        pages of this one are shared with views that must not see what is written there.
        """
        self._apart = apart

    def bytes(self, byte_offset: int, byte_size: int) -> Bytes:
        """The bytes as an array over the mapping, writable if the mapping is. Raises ``Closed``."""
        anchor, first = self.buffer()
        start = byte_offset - first
        assert 0 <= start <= start + byte_size <= len(anchor), "outside the view"
        return self._root_of(anchor)[start : start + byte_size]

    def writable(self, byte_offset: int, byte_size: int) -> Bytes:
        """The bytes as an array that can be written to: for all to see if the mapping is writable, else privately to
        this process. Not for ``Access.STRICT``. Raises ``Closed``, ``MappingFailed``.
        """
        anchor, first = self.buffer()
        if byte_size == 0:
            return np.empty(0, np.uint8)
        if self._apart is not None:
            if not isinstance(self._apart, View):
                self._apart = self._apart()
                # Whoever has only these pages keeps the others all the same, and what hangs on their end.
                self._apart.at_end(functools.partial(_forget, anchor))
            return self._apart.writable(byte_offset, byte_size)
        start = byte_offset - first
        assert 0 <= start <= start + byte_size <= len(anchor), "outside the view"
        root = np.frombuffer(memoryview(anchor), np.uint8, byte_size, start)
        try:
            self.mapping.will_write(root, ctypes.addressof(anchor) + start, byte_size)
        except OSError as error:
            raise MappingFailed(
                f"Cannot make {byte_size} mapped bytes writable to this process alone: {error}",
                hint="is more memory locked than ulimit -l allows, are there too many mappings (vm.max_map_count), or "
                "does vm.overcommit_memory=2 count private mappings? numpy() needs none of it",
            ) from error
        return root

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
        # A new one after each change of access; arrays that are out keep theirs. Nobody else keeps one that can be
        # written to: whether it is alive is what a seal asks.
        access = self.mapping.access
        root = self._root[1]() if self._root is not None and self._root[0] is access else None
        if root is None:
            view = memoryview(anchor)
            root = np.frombuffer(view if access is Access.WRITE else view.toreadonly(), np.uint8)
            if access is Access.WRITE:
                self.mapping.will_write(root, ctypes.addressof(anchor), len(anchor))
            self._root = access, weakref.ref(root) if access is Access.WRITE else functools.partial(_same, root)
        return root

    def __reduce__(self) -> NoReturn:
        raise TypeError("a view of a mapping cannot be pickled or copied")


def _drop(references: dict[int, weakref.ref[Bytes]], key: int, reference: weakref.ref[Bytes]) -> None:
    if references.get(key) is reference:
        del references[key]


def _same(root: Bytes) -> Bytes:
    return root


def _forget(_: object) -> None:
    """Keeps its argument for as long as it is to be called."""


@functools.lru_cache(maxsize=64)
def _array_type(length: int) -> Any:
    # Kept, because ctypes makes a class for each length, which costs as much as the mapping.
    return ctypes.c_ubyte * length
