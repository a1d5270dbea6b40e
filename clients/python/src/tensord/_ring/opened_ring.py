"""A ring as those who receive have it: all of it mapped, one description for the locks of its slots, and its bell as
its owner wrote it. Everything in it others may have written: what is read is copied first, then checked.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tensord._errors import Closed, ValidationFailed
from tensord._mapping.attach import Place
from tensord._mapping.futex import Word, fence
from tensord._mapping.lock_file import LockFile, LockKind, to_flock
from tensord._tensor.dtype import to_numpy_dtype
from tensord._tensor.reference import TensorReference
from tensord._tensor.tensor import OpenedTensor

from .held import anchor_of
from .layout import ENTRY_BYTES, MAX_SLOTS, OWNER_BYTE, WORDS_START, BellLayout, to_generation
from .packed import PLACE, PLACE_AT, REQUEST, PackedBytes, to_mark, unpack

# Of so many dtypes and shapes what an entry says of them is kept.
MAX_KINDS = 64


class Outcome(enum.Enum):
    """Why an entry is no message."""

    LOST = 0
    """Its slot holds something else by now, or it is no entry at all."""
    PASSED_OVER = 1
    """It is a request that somebody else has, or that this receiver takes none of."""
    BUSY = 2
    """Somebody writes into its slot: look again."""


class Kind:
    """What all entries of one dtype and shape have in common."""

    __slots__ = ("_numpy", "byte_size", "dtype", "is_request", "shape")

    def __init__(self, dtype: str, shape: tuple[int, ...], byte_size: int, *, is_request: bool) -> None:
        self.dtype = dtype
        self.shape = shape
        self.byte_size = byte_size
        self.is_request = is_request
        self._numpy: np.dtype[Any] | None = None

    @property
    def numpy(self) -> np.dtype[Any]:
        """Raises ``FeatureUnavailable``."""
        if self._numpy is None:
            self._numpy = to_numpy_dtype(self.dtype)
        return self._numpy


class Reply(NamedTuple):
    """What all results of one dtype and shape have in common that are copied to the beginning of a slot."""

    record: PackedBytes
    native: np.dtype[Any]


class OpenedRing:
    """A mapped ring. It lives as long as its receiver or a message of it does. Its callers see to it that one thread at
    a time takes entries; messages are let go of by any.
    """

    def __init__(
        self, ref: TensorReference, place: Place, layout: BellLayout, whole: OpenedTensor, *, writable: bool
    ) -> None:
        self.reference = ref
        self.layout = layout
        self.writable = writable
        # All of the file; what is handed out of it is read-only unless it is a request's, or a result's.
        memory = self.memory = anchor_of(whole._attachment.view)
        self.read_only = memory.toreadonly()
        self.words = memory[: len(memory) // 8 * 8].cast("I")
        self.longs = memory[: len(memory) // 8 * 8].cast("Q")
        self.address = int(whole.bytes().ctypes.data)
        self.tail_at = layout.tail // 4
        self.tail_word = Word(self.words, self.tail_at, self.address)
        self._wanted_at = layout.wanted // 4
        self._wanted_word = Word(self.words, self._wanted_at, self.address)
        # Those that are open here: locks of one description do not exclude each other.
        self._open: set[int] = set()
        self.replies: dict[Any, Reply] = {}
        self._kinds: dict[bytes, Kind] = {}
        self._answered: dict[int, Word] = {}
        self._flocks: dict[int, tuple[bytes, bytes, bytes]] = {}
        self._identity = (ref.dev, ref.ino, to_mark(ref.region))
        self.lock = LockFile(place, LockKind.WRITE if writable else LockKind.READ)

    @property
    def tail(self) -> int:
        return int(self.words[self.tail_at])

    def has_owner(self) -> bool:
        """Whether its owner lives, and has it open. Raises ``Closed``."""
        return self.lock.is_locked_elsewhere(OWNER_BYTE, 1)

    def read_entry(self, count: int) -> bytes:
        """A copy of the entry of that count."""
        start = self.layout.first_entry + ENTRY_BYTES * (count & self.layout.entries - 1)
        return self.memory[start : start + ENTRY_BYTES].tobytes()

    def kind_of(self, raw: bytes) -> Kind:
        """What a packed reference says of its tensor. Raises ``ValidationFailed`` if it is not of this ring."""
        key = raw[:8] + raw[24:]
        kind = self._kinds.get(key)
        if kind is None:
            packed = unpack(raw)
            if packed[6:] != self._identity:
                raise ValidationFailed(
                    f"Cannot open a packed reference: it is of another ring than {self.reference.region}"
                )
            if packed.byte_size > self.layout.slot_bytes:
                raise ValidationFailed(
                    f"Cannot open a packed reference: it has {packed.byte_size} bytes, want at most "
                    f"{self.layout.slot_bytes}, which a slot has"
                )
            if len(self._kinds) >= MAX_KINDS:
                self._kinds.clear()
            kind = Kind(packed.dtype, packed.shape, packed.byte_size, is_request=packed.kind == REQUEST)
            self._kinds[key] = kind
        return kind

    def slot_of(self, raw: bytes) -> tuple[int, int]:
        """The slot of a packed reference, and its generation. Raises ``ValidationFailed`` if there is none."""
        generation, byte_offset = PLACE.unpack_from(raw, PLACE_AT)
        index = generation % MAX_SLOTS
        layout = self.layout
        if (
            index >= layout.slots
            or not to_generation(index, 1) <= generation < 1 << 53
            or byte_offset != layout.first_slot + index * layout.slot_bytes
        ):
            raise ValidationFailed(
                f"Cannot open a packed reference: generation {generation} at {byte_offset} is no slot of ring "
                f"{self.reference.region}"
            )
        return index, generation

    def open_slot(self, index: int, generation: int, *, writable: bool) -> Outcome | None:
        """Locks a slot if it is of that generation then. ``None`` if that is so."""
        if index in self._open:
            # Another thread is letting go of it, or it came twice.
            return Outcome.BUSY if self.longs[WORDS_START // 8 + index] == generation else Outcome.LOST
        read, write, unlock = self._flocks.get(index) or self._to_flocks(index)
        self._open.add(index)
        outcome: Outcome | None = Outcome.LOST
        locked = False
        try:
            locked = self.lock.try_flock(write if writable else read)
            # With the lock, or to see whether whoever has it is at work on what comes next.
            if self.longs[WORDS_START // 8 + index] == generation:
                outcome = None if locked else Outcome.BUSY
        finally:
            if outcome is not None:
                if locked:
                    self.lock.try_flock(unlock)
                self._open.discard(index)
        return outcome

    def take_request(self, index: int, generation: int) -> Outcome | None:
        """As ``open_slot``, of a request that nobody has taken before: it is this process's then."""
        if not self.writable:
            return Outcome.PASSED_OVER
        start = self.record_start(index) // 8
        if self.longs[start + 1] == generation:
            return Outcome.PASSED_OVER
        outcome = self.open_slot(index, generation, writable=True)
        if outcome is not None:
            return outcome
        if generation in (self.longs[start], self.longs[start + 1]):
            self.let_go(index)
            return Outcome.PASSED_OVER
        self.longs[start + 1] = generation
        return None

    def answer(self, index: int, generation: int, record: bytes) -> None:
        """Writes the record of a request that this process has taken. Its slot is still locked."""
        start = self.record_start(index)
        self.memory[start + 16 : start + ENTRY_BYTES] = record
        if fence is not None:
            fence()
        self.longs[start // 8] = generation

    def keep_reply(self, data: npt.NDArray[Any], record: PackedBytes) -> None:
        """Remembers the record of an answer, for others of its dtype and shape."""
        if len(self.replies) >= MAX_KINDS:
            self.replies.clear()
        self.replies[data.dtype, data.shape] = Reply(record, data.dtype.newbyteorder("="))

    def wake_caller(self, index: int) -> None:
        """Wakes whoever waits for the answer, after the slot was let go of."""
        word = self._answered.get(index)
        if word is None:
            word = self._answered[index] = Word(self.words, self.record_start(index) // 4, self.address)
        word.wake()

    def record_start(self, index: int) -> int:
        """The byte of the file at which the record of a slot begins."""
        return self.layout.first_record + ENTRY_BYTES * index

    def let_go(self, index: int) -> None:
        """Unlocks a slot that is open here. Runs in finalizers too, and does nothing in a forked child."""
        try:
            self.lock.try_flock(self._flocks[index][2])
        except Closed:
            return
        self._open.discard(index)
        if self.words[self._wanted_at]:
            self._wanted_word.wake()

    def _to_flocks(self, index: int) -> tuple[bytes, bytes, bytes]:
        start, length = self.layout.first_slot + index * self.layout.slot_bytes, self.layout.slot_bytes
        found = (
            to_flock(LockKind.READ, start, length),
            to_flock(LockKind.WRITE, start, length),
            to_flock(None, start, length),
        )
        self._flocks[index] = found
        return found
