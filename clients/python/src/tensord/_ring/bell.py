"""The owner's side of a ring's bell: entries that tell the others what was sent, the records in which they answer, and
the word at which it waits for a free slot (``docs/protocol.md``, "The bell"). It knows nothing of slots' locks.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from tensord._errors import Closed, ServerFault
from tensord._mapping import futex
from tensord._region.region import Region
from tensord._tensor.reference import TensorReference

from .answer_record import RECORD_START, Answer, parse_record
from .layout import BELL, ENTRY_BYTES, HEADER_BYTES, BellLayout
from .packed import PLACE, PLACE_AT

# As often an owner without a free slot looks again: what a dead process lets go of rings nothing.
WANT_SECONDS = 0.01
# Of so many kinds of answers what they say is kept.
MAX_ANSWERS = 64
_MASK = (1 << 32) - 1
_RECORD_WORDS = ENTRY_BYTES // 8


class Bell:
    """The bell of a ring that this process made. Thread-safe; after ``close`` it raises ``Closed``."""

    def __init__(self, region: Region, slots: int, slot_bytes: int) -> None:
        tensor = region[BELL]
        layout = self.layout = BellLayout(slots, slot_bytes)
        if (tensor.byte_offset, tensor.byte_size) != (layout.byte_offset, layout.byte_size):
            raise ServerFault(
                f"Cannot make a ring: its bell has {tensor.byte_size} bytes at {tensor.byte_offset}, want "
                f"{layout.byte_size} at {layout.byte_offset}"
            )
        self.reference: TensorReference = tensor._reference()
        array = tensor.bytes()[layout.base - layout.byte_offset :]
        self._raw: memoryview | None = array.data
        self._words = self._raw.cast("I")
        self._longs = self._raw.cast("Q")
        self._address = int(array.ctypes.data)
        self._mutex = threading.Lock()
        # Counted here: what is in the file others can write.
        self._tail = 0
        self._wanted = 0
        self._waiters = 0
        self._answers: dict[bytes, Answer] = {}
        self._tail_at = (layout.tail - layout.base) // 4
        self._wanted_at = (layout.wanted - layout.base) // 4
        self._first_entry = layout.first_entry - layout.base
        self._first_record = layout.first_record - layout.base
        self._raw[:HEADER_BYTES] = layout.to_header()

    def ring(self, entry: bytes, generation: int, byte_offset: int) -> None:
        """Writes a packed reference, of which generation and offset are these, and wakes those who receive."""
        with self._mutex:
            raw = self._raw
            if raw is None:
                raise self._closed()
            start = self._first_entry + ENTRY_BYTES * (self._tail & self.layout.entries - 1)
            raw[start : start + ENTRY_BYTES] = entry
            PLACE.pack_into(raw, start + PLACE_AT, generation, byte_offset)
            futex.fence()
            # One aligned store of 4 bytes, as all of these words are written.
            self._words[self._tail_at] = self._tail = self._tail + 1 & _MASK
        futex.wake(self._address + 4 * self._tail_at)

    @contextlib.contextmanager
    def wanting(self) -> Iterator[None]:
        """While a thread of the owner waits for a free slot: whoever lets go of one wakes ``wait_for_slot``."""
        with self._mutex:
            self._waiters += 1
            self._wanted = self._wanted % _MASK + 1
            self._store_wanted(self._wanted)
        try:
            yield
        finally:
            with self._mutex:
                self._waiters -= 1
                if self._waiters == 0:
                    self._store_wanted(0)

    def wait_for_slot(self, seconds: float) -> None:
        """Sleeps until somebody lets go of a slot, for at most ``WANT_SECONDS`` and ``seconds``."""
        words, at = self._words, self._wanted_at
        self._check()
        futex.wait(self._address + 4 * at, words[at], min(seconds, WANT_SECONDS))

    def wait_for_answer(self, index: int, generation: int, seconds: float) -> bool:
        """Waits until the record of a slot says that the request of that generation is answered, for at most
        ``seconds``. Returns whether it does.
        """
        words, longs = self._words, self._longs
        self._check()
        start = self._first_record + ENTRY_BYTES * index
        low = words[start // 4]
        if longs[start // 8] == generation:
            return True
        futex.wait_for_change(words, start // 4, self._address + start, low, seconds)
        return bool(longs[start // 8] == generation)

    def is_taken(self, index: int, generation: int) -> bool:
        """Whether somebody has taken the request, as its record says."""
        longs = self._longs
        self._check()
        return bool(longs[self._first_record // 8 + _RECORD_WORDS * index + 1] == generation)

    def read_answer(self, index: int) -> Answer:
        """What a slot's record says: others may write there at any time, and it is what they say, and nothing more.
        Raises ``ValidationFailed``.
        """
        raw = self._raw
        if raw is None:
            raise self._closed()
        start = self._first_record + ENTRY_BYTES * index
        futex.fence()
        record = raw[start + RECORD_START : start + ENTRY_BYTES].tobytes()
        answer = self._answers.get(record)
        if answer is None:
            answer = parse_record(record, self.layout.slot_bytes)
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            self._answers[record] = answer
        return answer

    def close(self) -> None:
        """Wakes those who receive, who see then that the owner's byte is free: call it after that."""
        with self._mutex:
            if self._raw is None:
                return
            futex.wake(self._address + 4 * self._tail_at)
            # In this order: who has got one of the others, and then finds this one, has what is mapped.
            self._raw = None
            self._words = self._longs = memoryview(b"")

    def _store_wanted(self, value: int) -> None:
        if self._raw is not None:
            self._words[self._wanted_at] = value

    def _check(self) -> None:
        if self._raw is None:
            raise self._closed()

    def _closed(self) -> Closed:
        return Closed(
            f"Cannot use the bell of ring {self.reference.region}: it was closed here", hint="make another ring"
        )
