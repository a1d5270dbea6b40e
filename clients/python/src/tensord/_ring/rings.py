"""The rings whose references a process opens, each mapped once and whole: no mapping and no page fault a request."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from types import TracebackType
from typing import NoReturn

from tensord._arguments.checked import checked_class
from tensord._arguments.kinds import Timeout
from tensord._errors import Closed, StaleRef, ValidationFailed
from tensord._mapping.attach import Asked, Place
from tensord._mapping.attachment import Attachment
from tensord._mapping.mapping import Access
from tensord._region.mapper import open_reference, place_of, to_access
from tensord._tensor.reference import TensorReference
from tensord._tensor.tensor import OpenedTensor
from tensord._wire.tensors import TensorInfo

from .slot_tensor import SlotTensor, open_slot

_Key = tuple[str | None, int, int, Access]


@checked_class
class Rings:
    """Other processes' rings, kept mapped from one reference to the next; ``client.rings`` makes it.

    ``open`` is ``client.open`` for references with a generation, without its page faults. Only what may be written to
    over a slot that is open for reading (``torch()``, DLPack, ``numpy(private=True)``) has pages of its own, so that
    later tensors of that slot, and its neighbours, do not show what was written. The price is the memory: a
    ring whose owner has ended is held until the next ``open`` that finds this out, or ``close``. Thread-safe. Close
    it, or use it in a ``with`` statement; tensors that are open stay so.
    """

    def __init__(self, asked: Asked | None = None) -> None:
        self._asked = asked
        self._mapped: dict[_Key, OpenedTensor] = {}
        self._mutex = threading.Lock()
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def open(
        self, ref: TensorReference, *, writable: bool = False, strict: bool = False, timeout: Timeout | None = None
    ) -> SlotTensor:
        """As ``client.open``. Raises as it does, and ``Closed``; ``ValidationFailed`` for one that is of no ring."""
        if ref.generation == 0:
            raise ValidationFailed("Cannot open a slot: the reference is of no ring", hint="use client.open")
        try:
            return open_slot(ref, to_access(writable=writable, strict=strict), timeout, self._asked, self._map)
        except StaleRef:
            self._forget_the_gone()
            raise

    def close(self) -> None:
        """Lets go of the rings. Safe to call twice."""
        with self._mutex:
            self._closed = True
            for whole in self._mapped.values():
                whole.close()
            self._mapped.clear()

    def __enter__(self) -> Rings:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("rings cannot be pickled or copied: open references where they are used")

    def _map(self, ref: TensorReference, access: Access, asked: Asked | None) -> OpenedTensor:
        place = place_of(ref, asked)
        # Readers' writes would stay in pages of this one map, for all tensors to come.
        shared = Access.WRITE if access is Access.WRITE else Access.STRICT
        key = (place.path, place.dev, place.ino, shared)
        whole = self._known(key)
        if whole is None:
            self._forget_the_gone()
            mapped = open_reference(_to_whole_file(ref, place), shared, asked)
            # Another thread may have been faster; a mapping too many ends with its last tensor.
            whole = self._known(key, mapped) or mapped
        if ref.byte_offset + ref.byte_size > whole.byte_size:
            # Forged, or the file was another one when it was mapped. Looked at by itself it will show.
            return open_reference(ref, access, asked)
        info = TensorInfo("", ref.dtype, ref.shape, ref.byte_offset, ref.byte_size)
        return OpenedTensor(whole._attachment.part(ref.byte_offset, ref.byte_size), info)

    def _known(self, key: _Key, mapped: OpenedTensor | None = None) -> OpenedTensor | None:
        with self._mutex:
            if self._closed:
                raise Closed("Cannot open a slot: these rings were closed here", hint="client.rings() makes new ones")
            return self._mapped.get(key) if mapped is None else self._mapped.setdefault(key, mapped)

    def _forget_the_gone(self) -> None:
        with self._mutex:
            for key, whole in list(self._mapped.items()):
                if not _is_there(whole._attachment):
                    del self._mapped[key]
                    whole.close()


def _to_whole_file(ref: TensorReference, place: Place) -> TensorReference:
    size = ref.byte_offset + ref.byte_size
    try:
        if place.path is None:
            raise FileNotFoundError
        size = max(size, os.stat(place.path).st_size)
    except OSError:
        asked = place.asked
        size = max(size, (asked and asked.byte_size and asked.byte_size(place)) or 0)
    return replace(ref, byte_offset=0, byte_size=size, dtype="U8", shape=(size,), generation=0)


def _is_there(attachment: Attachment) -> bool:
    place = attachment.place
    if place.path is None or attachment.attached_by == "descriptor":
        # There is no name here to look at.
        return place.asked is not None and place.asked.stands(place)
    try:
        status = os.lstat(place.path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (place.dev, place.ino)
