"""The owner's side of a ring's bell: entries that tell the others what was sent, the records in which they answer, and
the word at which it waits for a free slot (``docs/protocol.md``, "The bell"). It knows nothing of slots' locks.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from tensord._errors import Closed, ServerFault
from tensord._mapping.futex import Word, fence
from tensord._region.region import Region
from tensord._tensor.reference import TensorReference

from .answer_record import RECORD_START, Answer, parse_record
from .layout import BELL, ENTRY_BYTES, HEADER_BYTES, TAIL, WANTED, BellLayout
from .layout import COUNT_MASK as _MASK
from .packed import PLACE, PLACE_AT

# As often an owner without a free slot looks again: what a dead process lets go of rings nothing.
WANT_SECONDS = 0.01
# Of so many kinds of answers what they say is kept.
MAX_ANSWERS = 64
# From the base on, in 4 bytes.
_TAIL_AT = TAIL // 4
_WANTED_AT = WANTED // 4


class _Mapped:
    """The bell's bytes from its base on, as numbers of each width, and the words that somebody waits at."""

    __slots__ = ("answered", "longs", "raw", "tail", "wanted", "words")

    def __init__(self, array: npt.NDArray[np.uint8], layout: BellLayout) -> None:
        self.raw = array.data
        self.words = self.raw.cast("I")
        self.longs = self.raw.cast("Q")
        address = int(array.ctypes.data)
        self.tail = Word(self.words, _TAIL_AT, address)
        self.wanted = Word(self.words, _WANTED_AT, address)
        first = layout.first_record - layout.base
        self.answered = [Word(self.words, (first + ENTRY_BYTES * index) // 4, address) for index in range(layout.slots)]


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
        mapped = _Mapped(tensor.bytes()[layout.base - layout.byte_offset :], layout)
        mapped.raw[:HEADER_BYTES] = layout.to_header()
        self._mapped: _Mapped | None = mapped
        self._mutex = threading.Lock()
        # Counted here: what is in the file others can write.
        self._tail = 0
        self._wanted = 0
        self._waiters = 0
        self._answers: dict[bytes, Answer] = {}
        self._first_entry = layout.first_entry - layout.base
        self._first_record = layout.first_record - layout.base
        self._last_entry = layout.entries - 1

    def ring(self, entry: bytes, generation: int, byte_offset: int) -> None:
        """Writes a packed reference, of which generation and offset are these, and wakes those who receive."""
        with self._mutex:
            mapped = self._mapped or self._refuse()
            start = self._first_entry + ENTRY_BYTES * (self._tail & self._last_entry)
            mapped.raw[start : start + ENTRY_BYTES] = entry
            PLACE.pack_into(mapped.raw, start + PLACE_AT, generation, byte_offset)
            if fence is not None:
                fence()
            # One aligned store of 4 bytes, as all of these words are written.
            mapped.words[_TAIL_AT] = self._tail = self._tail + 1 & _MASK
        mapped.tail.wake()

    @contextlib.contextmanager
    def wanting(self) -> Iterator[None]:
        """While a thread of the owner waits for a free slot: whoever lets go of one wakes ``wait_for_slot``."""
        with self._mutex:
            mapped = self._mapped or self._refuse()
            self._waiters += 1
            self._wanted = self._wanted % _MASK + 1
            mapped.words[_WANTED_AT] = self._wanted
        try:
            yield
        finally:
            with self._mutex:
                self._waiters -= 1
                if self._waiters == 0:
                    mapped.words[_WANTED_AT] = 0

    def wait_for_slot(self, seconds: float) -> None:
        """Sleeps until somebody lets go of a slot, for at most ``WANT_SECONDS`` and ``seconds``."""
        mapped = self._mapped or self._refuse()
        mapped.wanted.wait(self._wanted, min(seconds, WANT_SECONDS))

    def is_answered(self, index: int, generation: int) -> bool:
        """Whether the record of a slot says that the request of that generation is answered."""
        mapped = self._mapped or self._refuse()
        return bool(mapped.longs[(self._first_record + ENTRY_BYTES * index) // 8] == generation)

    def wait_for_answer(self, index: int, generation: int, seconds: float) -> bool:
        """Waits until a request is answered, for at most ``seconds``. Returns whether it is."""
        mapped = self._mapped or self._refuse()
        start = self._first_record + ENTRY_BYTES * index
        low = mapped.words[start // 4]
        longs = mapped.longs
        return longs[start // 8] == generation or (
            mapped.answered[index].wait_for_change(low, seconds) and longs[start // 8] == generation
        )

    def is_taken(self, index: int, generation: int) -> bool:
        """Whether somebody has taken the request, as its record says."""
        mapped = self._mapped or self._refuse()
        return bool(mapped.longs[(self._first_record + ENTRY_BYTES * index) // 8 + 1] == generation)

    def read_answer(self, index: int) -> Answer:
        """What a slot's record says: others may write there at any time, and it is what they say, and nothing more.
        Raises ``ValidationFailed``.
        """
        mapped = self._mapped or self._refuse()
        start = self._first_record + ENTRY_BYTES * index
        if fence is not None:
            fence()
        record = mapped.raw[start + RECORD_START : start + ENTRY_BYTES].tobytes()
        answer = self._answers.get(record)
        if answer is None:
            answer = parse_record(record, self.layout.slot_bytes)
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            self._answers[record] = answer
        return answer

    def close(self) -> None:
        """Wakes those who receive, who see then that the owner's byte is free: call it after that."""
        # Without the mutex, which a thread of a process that forked this one may have had.
        mapped, self._mapped = self._mapped, None
        if mapped is not None:
            mapped.tail.wake()

    def _refuse(self) -> NoReturn:
        raise Closed(
            f"Cannot use the bell of ring {self.reference.region}: it was closed here", hint="make another ring"
        )
