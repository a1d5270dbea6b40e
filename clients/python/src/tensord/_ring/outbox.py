"""What a ring's owner sends: arrays into slots, and packed references of them into the bell. What is the same for all
arrays of one dtype and shape is made once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tensord._region.copy import Source, copy_all, to_sources
from tensord._tensor.dtype import byte_size_of

from .bell import Bell
from .packed import PLACE, PLACE_AT, TENSOR, Packed, pack, to_mark
from .slot_table import SlotTable

# Of so many kinds of arrays what is the same is kept, with as many arrays as the ring has slots.
MAX_KINDS = 32


class Outgoing:
    """Arrays of one dtype and shape. ``places`` has an array over each slot that one was copied into before."""

    __slots__ = ("byte_size", "dtype", "entries", "places", "shape")

    def __init__(self, dtype: str, shape: tuple[int, ...], byte_size: int) -> None:
        self.dtype = dtype
        self.shape = shape
        self.byte_size = byte_size
        self.entries: dict[int, bytes] = {}
        self.places: dict[int, npt.NDArray[Any]] = {}


class Outbox:
    """Fills slots that its caller has taken, and tells of them. Thread-safe as its parts are."""

    def __init__(self, table: SlotTable, bell: Bell) -> None:
        self._table = table
        self._bell = bell
        self._kinds: dict[Any, Outgoing] = {}
        self._mark = to_mark(table.region.id)

    def fit(self, data: Any) -> tuple[Outgoing, Source | npt.NDArray[Any]]:
        """What an array-like becomes. Raises ``ValidationFailed`` if it is none, or does not fit."""
        # Of an array of numpy's own its dtype and shape say all; of what derives from it they may not.
        if type(data) is np.ndarray:
            known = self._kinds.get((data.dtype, data.shape))
            if known is not None:
                return known, data
        (source,) = to_sources({"data": data})
        outgoing = self.kind_of(source.dtype, source.shape)
        self._table.check_size(outgoing.dtype, outgoing.shape, outgoing.byte_size)
        if type(data) is np.ndarray:
            # With places of its own: another type of the same name has another dtype in numpy.
            outgoing = Outgoing(outgoing.dtype, outgoing.shape, outgoing.byte_size)
            self._keep((data.dtype, data.shape), outgoing)
            return outgoing, data
        return outgoing, source

    def fill(self, index: int, outgoing: Outgoing, data: Source | npt.NDArray[Any]) -> None:
        """Copies what ``fit`` gave into a slot."""
        if not isinstance(data, np.ndarray):
            copy_all([(self._table.bytes(index, outgoing.byte_size), data)])
            return
        place = outgoing.places.get(index)
        if place is not None:
            # Of one type by now, up to the order of its bytes.
            place[...] = data
            return
        raw = self._table.bytes(index, outgoing.byte_size)
        copy_all([(raw, Source("data", outgoing.dtype, outgoing.shape, data))])
        # Its pages are there from here on.
        outgoing.places[index] = raw.view(data.dtype.newbyteorder("=")).reshape(outgoing.shape)

    def ring(self, index: int, generation: int, entry: bytes) -> None:
        """Tells those who receive of a slot; ``entry`` is one of ``entry_of``."""
        self._bell.ring(entry, generation, self._table.start_of(index))

    def pack(self, index: int, generation: int, outgoing: Outgoing) -> bytes:
        """The packed reference of what is in a slot. Raises ``ValidationFailed`` for more than 8 dimensions."""
        entry = bytearray(self.entry_of(outgoing, TENSOR))
        PLACE.pack_into(entry, PLACE_AT, generation, self._table.start_of(index))
        return bytes(entry)

    def entry_of(self, outgoing: Outgoing, kind: int) -> bytes:
        """A packed reference without its place. Raises ``ValidationFailed`` for more than 8 dimensions."""
        found = outgoing.entries.get(kind)
        if found is None:
            place = self._table.template
            packed = Packed(
                outgoing.dtype,
                outgoing.shape,
                kind,
                0,
                0,
                outgoing.byte_size,
                place.dev,
                place.ino,
                self._mark,
            )
            found = outgoing.entries[kind] = pack(packed)
        return found

    def kind_of(self, dtype: str, shape: tuple[int, ...]) -> Outgoing:
        """What all of a dtype and shape have in common."""
        found = self._kinds.get((dtype, shape))
        if found is None:
            found = Outgoing(dtype, shape, byte_size_of(dtype, shape))
            self._keep((dtype, shape), found)
        return found

    def close(self) -> None:
        """Lets go of the slots' bytes."""
        self._kinds.clear()

    def _keep(self, key: Any, outgoing: Outgoing) -> None:
        if len(self._kinds) >= MAX_KINDS:
            self._kinds.clear()
        self._kinds[key] = outgoing
