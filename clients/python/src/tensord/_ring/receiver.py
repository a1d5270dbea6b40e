"""The other side of a ring's bell: takes what its owner sends, in order, without a socket and without the server
(``docs/protocol.md``, "The bell"). What one message is, ``message.py`` says.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from types import TracebackType
from typing import NoReturn

from tensord._arguments.checked import check_timeout, checked_class, checks_itself
from tensord._arguments.kinds import PackedReference, Timeout
from tensord._errors import Closed, DeadlineExceeded, StaleRef, ValidationFailed
from tensord._mapping.attach import Asked
from tensord._mapping.futex import SLICE_SECONDS, fence
from tensord._mapping.lock_file import rounds
from tensord._mapping.mapping import Access
from tensord._region.mapper import open_reference, place_of
from tensord._tensor.reference import TensorReference

from .layout import COUNT_MASK as _MASK
from .layout import HEADER_BYTES, count_lost, first_seen, parse_header, to_base
from .message import Message
from .opened_ring import OpenedRing, Outcome

# How long to wait for who writes into a slot that was sent before it is looked at again.
_BUSY_SECONDS = 0.001


@checked_class
class Receiver:
    """Receives what a ring's owner sends; ``client.receiver`` makes it.

    ``receive`` one message at a time, or go over them: ``for message in receiver``, which ends when the owner closes
    the ring or dies, and closes each message as the next one is asked for; ``async for`` waits in a thread of asyncio's
    executor. Every receiver of a ring gets every message; a request is taken by one of those that are ``writable``.
    Thread-safe; of no use in a forked child. Close it, or use it in a ``with`` statement: what is open stays so.

    Attributes: ``lost``, how many messages were gone before this receiver came to them, since the ring had come round:
    it should be made with more slots then, or its messages be closed sooner. Those of before it was made do not count.
    """

    def __init__(self, ref: TensorReference, *, writable: bool, only_new: bool, asked: Asked | None) -> None:
        if ref.generation != 0 or ref.dtype != "U8" or len(ref.shape) != 1 or ref.byte_size < HEADER_BYTES:
            raise ValidationFailed(
                f"Cannot receive from ring {ref.region}: the reference is of no bell",
                hint="send ring.ref(); references of slots are opened with client.open",
            )
        self.lost = 0
        self._lost_before = 0
        self._reference = ref
        self._mutex = threading.Lock()
        access = Access.WRITE if writable else Access.STRICT
        end = ref.byte_offset + ref.byte_size
        whole = open_reference(replace(ref, byte_offset=0, byte_size=end, shape=(end,)), access, asked)
        try:
            base = to_base(ref.byte_offset)
            header = bytes(whole.bytes()[base : base + HEADER_BYTES])
            layout = parse_header(header.ljust(HEADER_BYTES, b"\0"), ref.byte_offset, ref.byte_size, ref.region)
            ring = OpenedRing(ref, place_of(ref, asked), layout, whole, writable=writable)
        finally:
            # Its arrays keep what is mapped.
            whole.close()
        self._ring: OpenedRing | None = ring
        self._writable = writable
        # So many entries before the tail are whole; the one before those may be written at this moment.
        self._window = layout.entries - 1
        # Of what was sent before, nobody counts on all.
        self._begun_at = ring.tail
        self._seen = self._begun_at if only_new else first_seen(self._begun_at, layout.entries)
        # What was never written is passed over here, so that nobody takes it for a message.
        while self._seen != self._begun_at and not any(ring.read_entry(self._seen)[:4]):
            self._seen = self._seen + 1 & _MASK

    @property
    def closed(self) -> bool:
        return self._ring is None

    @property
    def writable(self) -> bool:
        """Whether it takes requests."""
        return self._writable

    @checks_itself
    def receive(self, timeout: Timeout | None = None) -> Message:
        """The next message, which the caller closes. What was sent before this receiver was made comes too, as far
        as it is still there.

        Waits for at most ``timeout`` seconds, without end if that is ``None``; raises ``DeadlineExceeded`` then, and
        loses nothing. Raises ``StaleRef`` when all was received and the owner has closed the ring, or died; ``Closed``.
        """
        if timeout is not None:
            timeout = check_timeout("Receiver.receive", timeout)
        found = self._take()
        if isinstance(found, Message):
            return found
        deadline = None if timeout is None or timeout == math.inf else time.monotonic() + timeout
        while True:
            left = SLICE_SECONDS if deadline is None else min(SLICE_SECONDS, deadline - time.monotonic())
            if found is Outcome.BUSY:
                time.sleep(min(max(left, 0), _BUSY_SECONDS))
            elif not self._wait(max(left, 0)) and self._has_ended():
                raise StaleRef(
                    f"Cannot receive from ring {self._reference.region}: its owner has closed it, or died, and all "
                    "that was sent is received",
                    hint="the owner makes another ring, and sends its ref()",
                )
            found = self._take()
            if isinstance(found, Message):
                return found
            if left <= 0:
                raise DeadlineExceeded(
                    f"Cannot receive from ring {self._reference.region}: nothing was sent within {timeout:g} s",
                    hint="wait longer; whoever sends waits for nobody to receive",
                    fields={"region": self._reference.region},
                )

    def wait(self, timeout: Timeout | None = None) -> bool:
        """Waits as ``receive`` does, and takes nothing. Returns whether ``receive`` has something to do: it may be a
        message, or say that the ring has ended, or be a request that another receiver takes. Raises ``Closed``.
        """
        deadline = None if timeout is None or timeout == math.inf else time.monotonic() + timeout
        while True:
            left = SLICE_SECONDS if deadline is None else deadline - time.monotonic()
            if self._wait(min(max(left, 0), SLICE_SECONDS)) or self._has_ended():
                return True
            if left <= 0:
                return False

    def open(self, packed: PackedReference, *, writable: bool = False, timeout: Timeout | None = None) -> Message:
        """Opens a packed reference of this ring, which its owner sent by a way of his own: what ``put`` or ``lend``
        with ``packed=True`` gave. With ``writable=True`` it is written to, as a result slot.

        Raises ``StaleRef`` if the slot holds something else by now; ``DeadlineExceeded`` while somebody writes there;
        ``ValidationFailed`` for what is no reference of this ring; ``Closed``.
        """
        ring = self._opened()
        if writable and not ring.writable:
            raise ValidationFailed(
                f"Cannot open a packed reference of ring {self._reference.region} for writing: its receiver reads",
                hint="make it with client.receiver(ref, writable=True)",
            )
        kind = ring.kind_of(packed)
        if kind.is_request:
            raise ValidationFailed(
                f"Cannot open a packed reference of ring {self._reference.region}: it is a request's entry of its bell",
                hint="requests are received",
            )
        index, generation = ring.slot_of(packed)
        for _ in rounds(timeout):
            with self._mutex:
                outcome = ring.open_slot(index, generation, writable=writable)
            if outcome is None:
                return Message(ring, kind, index, generation, 0, is_writable=writable)
            if outcome is Outcome.LOST:
                raise StaleRef(
                    f"Cannot open a slot of ring {self._reference.region}: it holds something else than generation "
                    f"{generation} by now",
                    hint="open references sooner, make the ring with more slots, or lend the slot",
                    fields={"generation": generation},
                )
        raise DeadlineExceeded(
            f"Cannot open a slot of ring {self._reference.region}: somebody else, or this receiver, still has it after "
            f"{timeout:g} s",
            hint="who writes into it must close it first",
            fields={"region": self._reference.region, "generation": generation},
        )

    def close(self) -> None:
        """Lets go of the ring, as far as no message is open. Safe to call twice."""
        # Without the mutex, as in _take. What it has mapped and locked ends with the last message of it.
        self._ring = None

    def __enter__(self) -> Receiver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Message]:
        while True:
            try:
                message = self.receive()
            except StaleRef:
                return
            with message:
                yield message

    async def __aiter__(self) -> AsyncIterator[Message]:
        import asyncio  # Whoever is here has it; others need not pay for it.

        while True:
            # Nothing is taken in the thread: a task that is cancelled loses no message.
            while not self._has_more():
                await asyncio.to_thread(self._wait, SLICE_SECONDS)
            try:
                message = self.receive(0)
            except DeadlineExceeded:
                # Somebody else took it, or writes there.
                await asyncio.sleep(_BUSY_SECONDS)
                continue
            except StaleRef:
                return
            with message:
                yield message

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.lost} lost"
        return f"<tensord.Receiver of ring {self._reference.region}, {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a receiver cannot be pickled or copied: send the reference that it was made from")

    def _opened(self) -> OpenedRing:
        ring = self._ring
        if ring is None:
            raise Closed(
                f"Cannot receive from ring {self._reference.region}: the receiver was closed here",
                hint="client.receiver makes another",
            )
        ring.lock.check()
        return ring

    def _has_more(self) -> bool:
        return self._opened().tail != self._seen or self._has_ended()

    def _has_ended(self) -> bool:
        ring = self._opened()
        # In this order: what was sent before the end is seen.
        return not ring.has_owner() and ring.tail == self._seen

    def _wait(self, seconds: float) -> bool:
        """Waits until there may be something to take, and is woken by the ring's end too. Returns whether there is."""
        return self._opened().tail_word.wait_for_change(self._seen, seconds)

    def _take(self) -> Message | Outcome | None:
        """The next message, if there is one; ``BUSY`` if there will be."""
        # Asked first: in a forked child the mutex may be that of a thread which is not there.
        ring = self._opened()
        with self._mutex:
            words, tail_at, window = ring.words, ring.tail_at, self._window
            # Who writes into the bell faster than anybody reads shall not keep this thread here.
            for _ in range(2 * window):
                seen = self._seen
                ahead = words[tail_at] - seen & _MASK
                if ahead == 0:
                    return None
                if fence is not None:
                    fence()
                if ahead > window:
                    self._pass(count_lost(seen, seen + ahead, ring.layout.entries))
                    continue
                raw = ring.read_entry(seen)
                if fence is not None:
                    fence()
                if words[tail_at] - seen & _MASK > window:
                    # Written over meanwhile, maybe in part.
                    continue
                found = self._open_entry(ring, raw)
                if isinstance(found, Message):
                    self._seen = seen + 1 & _MASK
                    self._lost_before = 0
                    return found
                if found is Outcome.BUSY:
                    return found
                if found is Outcome.LOST:
                    self._pass(1)
                else:
                    self._seen = seen + 1 & _MASK
            return None

    def _pass(self, count: int) -> None:
        """Goes on behind entries that are lost."""
        until = self._seen + count & _MASK
        # Those of before the first look are nobody's loss. Half of all numbers are before any other.
        known = until - self._begun_at & _MASK
        if known < 1 << 31:
            self.lost += min(count, known)
            self._lost_before += min(count, known)
        self._seen = until

    def _open_entry(self, ring: OpenedRing, raw: bytes) -> Message | Outcome:
        try:
            kind = ring.kind_of(raw)
            index, generation = ring.slot_of(raw)
        except ValidationFailed:
            # Anybody who may write to the ring can have written it.
            return Outcome.LOST
        is_request = kind.is_request
        outcome = (
            ring.take_request(index, generation) if is_request else ring.open_slot(index, generation, writable=False)
        )
        if outcome is not None:
            return outcome
        return Message(ring, kind, index, generation, self._lost_before, is_writable=is_request)
