"""The owner's books of a ring: which slots are taken, how often each was raised, and their kernel locks.

It knows nothing of arrays. ``docs/protocol.md`` says why nothing torn is ever read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tensord._errors import Closed, NameTaken, RegionBusy, ServerFault, ValidationFailed
from tensord._mapping.lock_file import LockFile, LockKind, to_flock
from tensord._region.region import Region
from tensord._tensor.reference import TensorReference

from .held import anchor_of
from .layout import GENERATIONS, OWNER_BYTE, SLOTS, WORDS_START, to_generation

# As the kernel wants them: a slot's lock, and its end.
_Flocks = tuple[bytes, bytes]


class SlotTable:
    """The slots of one ring, which this process made. Thread-safe; raises ``Closed`` in a forked child."""

    def __init__(self, region: Region) -> None:
        if not region.created:
            # Two who count generations would give one twice.
            raise NameTaken(
                f"Cannot make a ring: {region.id} has an owner already, want a new one", hint="give it another name"
            )
        words, content = region[GENERATIONS], region[SLOTS]
        if words.byte_offset != WORDS_START:
            raise ServerFault(f"Cannot make a ring: its words are at byte {words.byte_offset}, want {WORDS_START}")
        self.region = region
        self.template = content._reference()
        self._words: memoryview | None = words.bytes().data.cast("Q")
        self._content: npt.NDArray[np.uint8] | None = content.bytes()
        self._read_only: memoryview | None = anchor_of(region._attachment.view).toreadonly()
        self.slots, self.slot_bytes = content.shape
        self._locks = LockFile(region._attachment.place, LockKind.WRITE)
        # Those who receive see by it that the owner lives.
        if not self._locks.try_lock(LockKind.WRITE, OWNER_BYTE, 1):
            self._locks.close()
            raise RegionBusy(
                f"Cannot make a ring: somebody else has locked the byte by which its owner lives in {region.id}",
                hint="make another one",
            )
        # Both locks of each slot, made when it is first asked for.
        self._flocks: list[_Flocks | None] = [None] * self.slots
        # The counts that are believed: anybody who may open the file could write into its words.
        self._counts = [0] * self.slots
        self._taken: set[int] = set()
        self._next = 0
        self._last_call = -1
        self._mutex = threading.Lock()

    @property
    def taken(self) -> int:
        """How many slots this process has taken."""
        return len(self._taken)

    def check(self) -> None:
        """Raises ``Closed`` after ``close`` and in a forked child."""
        if self._content is None:
            raise self._closed()
        self._locks.check()

    def start_of(self, index: int) -> int:
        """The byte of the file at which a slot begins."""
        return self.template.byte_offset + index * self.slot_bytes

    def to_reference(
        self, index: int, generation: int, dtype: str, shape: tuple[int, ...], byte_size: int
    ) -> TensorReference:
        """The reference of a tensor at the beginning of a slot."""
        return replace(
            self.template,
            byte_offset=self.start_of(index),
            byte_size=byte_size,
            dtype=dtype,
            shape=shape,
            generation=generation,
        )

    def take(self, *, for_call: bool = False) -> int | None:
        """Takes and locks the next slot that nobody has, or none. ``for_call`` prefers the one that the last call had:
        nothing that was published is in it, and the processor's cache knows it.
        """
        self.check()
        with self._mutex:
            last = self._last_call
            if for_call and last >= 0 and last not in self._taken and self._try(last):
                self._last_call = -1
                return last
            for step in range(self.slots):
                index = (self._next + step) % self.slots
                if index not in self._taken and self._try(index):
                    self._next = index + 1
                    if index == last:
                        self._last_call = -1
                    return index
        return None

    def raise_generation(self, index: int) -> int:
        """Makes every reference to a locked slot stale, before its first byte is written; gives the new generation."""
        self._counts[index] += 1
        generation = to_generation(index, self._counts[index])
        if self._words is not None:
            # One aligned store of 8 bytes: who dies here leaves the old word or the new one.
            self._words[index] = generation
        return generation

    def bytes(self, index: int, byte_size: int) -> npt.NDArray[np.uint8]:
        """The first bytes of a slot. Raises ``Closed``."""
        content = self._content
        if content is None:
            raise self._closed()
        start = index * self.slot_bytes
        return content[start : start + byte_size]

    def read_only(self) -> memoryview:
        """The bytes of the file, for ``hold``. Raises ``Closed``."""
        view = self._read_only
        if view is None:
            raise self._closed()
        return view

    def lock(self, index: int, timeout: float | None) -> bool:
        """Locks a taken slot again; false when the time is over."""
        self.check()
        return self._locks.lock(LockKind.WRITE, self.start_of(index), self.slot_bytes, timeout)

    def check_size(self, dtype: str, shape: tuple[int, ...], byte_size: int) -> None:
        """Raises ``ValidationFailed`` for a tensor that is larger than a slot."""
        if byte_size > self.slot_bytes:
            raise ValidationFailed(
                f"Cannot hold {dtype} of shape {list(shape)} in a slot of ring {self.region.id}: it has {byte_size} "
                f"bytes, want at most {self.slot_bytes}",
                hint="make the ring with a larger slot_bytes",
            )

    def is_open(self, index: int) -> bool:
        """Whether another process, or another description here, has a slot that this process has unlocked."""
        return self._locks.is_locked_elsewhere(self.start_of(index), self.slot_bytes)

    def unlock(self, index: int) -> None:
        """Lets others into a taken slot."""
        try:
            self._locks.try_flock(self._flock(index)[1])
        except Closed:
            # Nothing is locked any more, or the locks are those of the process that forked this one.
            return

    def give_up(self, index: int) -> None:
        """Unlocks a slot and lets it be taken again. Runs in finalizers too, so it waits for no mutex."""
        self.unlock(index)
        self._taken.discard(index)

    def end_call(self, index: int) -> None:
        """As ``give_up``, of a slot that a call had, which is unlocked since it was sent."""
        self._last_call = index
        self._taken.discard(index)

    def close(self, before_unmap: Callable[[], None]) -> None:
        """Unlocks everything, the owner's byte too; then calls ``before_unmap``, and lets go of the region."""
        self._words = self._content = self._read_only = None
        self._locks.close()
        before_unmap()
        self.region.close()

    def _flock(self, index: int) -> _Flocks:
        found = self._flocks[index]
        if found is None:
            start, length = self.start_of(index), self.slot_bytes
            found = self._flocks[index] = to_flock(LockKind.WRITE, start, length), to_flock(None, start, length)
        return found

    def _closed(self) -> Closed:
        return Closed(f"Cannot use ring {self.region.id}: it was closed here", hint="make another one")

    def _try(self, index: int) -> bool:
        # Entered first: what is raised between the two, in a signal handler say, must not lose the slot.
        self._taken.add(index)
        locked = False
        try:
            locked = self._locks.try_flock(self._flock(index)[0])
        finally:
            if not locked:
                self.give_up(index)
        return locked
