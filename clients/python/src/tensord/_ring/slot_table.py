"""The owner's books of a ring: which slots are taken, how often each was raised, and their kernel locks.

It knows nothing of arrays. ``docs/protocol.md`` says why nothing torn is ever read.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from tensord._errors import Closed, NameTaken, ServerFault
from tensord._mapping.lock_file import LockFile, LockKind
from tensord._region.region import Region

from .layout import GENERATIONS, SLOTS, WORDS_START, to_generation


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
        self._words: npt.NDArray[np.uint64] | None = words.numpy()
        self._content: npt.NDArray[np.uint8] | None = content.bytes()
        self.slots, self.slot_bytes = content.shape
        self._locks = LockFile(region._attachment.place, LockKind.WRITE)
        # The counts that are believed: anybody who may open the file could write into its words.
        self._counts = [0] * self.slots
        self._taken: set[int] = set()
        self._next = 0
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

    def take(self) -> int | None:
        """Takes and locks the next slot that nobody has, or none."""
        self.check()
        with self._mutex:
            for step in range(self.slots):
                index = (self._next + step) % self.slots
                if index not in self._taken and self._try(index):
                    self._next = index + 1
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

    def lock(self, index: int, timeout: float | None) -> bool:
        """Locks a taken slot again; false when the time is over."""
        self.check()
        return self._locks.lock(LockKind.WRITE, self.start_of(index), self.slot_bytes, timeout)

    def unlock(self, index: int) -> None:
        """Lets others into a taken slot."""
        self._locks.unlock(self.start_of(index), self.slot_bytes)

    def give_up(self, index: int) -> None:
        """Unlocks a slot and lets it be taken again. Runs in finalizers too, so it waits for no mutex."""
        self.unlock(index)
        self._taken.discard(index)

    def close(self) -> None:
        self._words = self._content = None
        self._locks.close()
        self.region.close()

    def _closed(self) -> Closed:
        return Closed(f"Cannot use ring {self.region.id}: it was closed here", hint="make another one")

    def _try(self, index: int) -> bool:
        # Entered first: what is raised between the two, in a signal handler say, must not lose the slot.
        self._taken.add(index)
        locked = False
        try:
            locked = self._locks.try_lock(LockKind.WRITE, self.start_of(index), self.slot_bytes)
        finally:
            if not locked:
                self.give_up(index)
        return locked
