"""The owner's side of a ring: slots handed round by reference, without the server. ``slot_tensor.py`` is the other."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Literal, NoReturn, overload

import numpy.typing as npt

from tensord._arguments.checked import check_timeout, checked_class, checks_itself
from tensord._arguments.kinds import Timeout
from tensord._errors import DeadlineExceeded, ValidationFailed
from tensord._region.copy import Source
from tensord._region.region import Region
from tensord._tensor.reference import TensorReference

from .bell import WANT_SECONDS, Bell
from .call import Call
from .layout import BELL, GENERATIONS, MAX_SLOTS, SLOT_ALIGNMENT, SLOTS, BellLayout
from .outbox import Outbox, Outgoing
from .packed import REQUEST, TENSOR
from .slot import Slot
from .slot_table import SlotTable


@checked_class
class Ring:
    """A region cut into equal slots, for tensors that live as long as a request. ``client.ring`` makes it.

    ``send`` an array, or ``acquire`` a slot, fill it in place and ``send`` that: whoever has ``client.receiver`` of
    ``ref()`` receives it. ``call`` is a request that one of them answers. Or ``put`` it, and send the reference by a
    way of your own; the other side opens it with ``client.open``.

    What was sent or published is good until the ring comes round to its slot again, then it is lost, or ``StaleRef``;
    whoever has it open keeps the slot, and the ring goes on to the next one. Thread-safe; a forked child makes a ring
    of its own. Close it, or use it in a ``with`` statement; the region ends with its own owner.

    Attributes: ``region``; ``slots``, how many; ``slot_bytes``, the most that a tensor in one of them may have.
    """

    def __init__(self, region: Region) -> None:
        self._table = SlotTable(region)
        self.region = region
        self.slots = self._table.slots
        self.slot_bytes = self._table.slot_bytes
        self._bell = Bell(region, self.slots, self.slot_bytes)
        self._outbox = Outbox(self._table, self._bell)

    @property
    def closed(self) -> bool:
        return self.region.closed

    def acquire(self, timeout: Timeout | None = None) -> Slot:
        """Takes the next free slot, to be filled. References to what it held are stale from here on.

        While every slot is in use it waits until somebody lets go of one, for at most ``timeout`` seconds, without end
        if that is ``None``. Raises ``DeadlineExceeded``, ``Closed``.
        """
        return Slot(self._table, self._outbox, self._bell, self._take(timeout))

    def ref(self) -> TensorReference:
        """What ``client.receiver`` takes, in any process of this machine: send it once. Raises ``Closed``."""
        self._table.check()
        return self._bell.reference

    @checks_itself
    def send(self, data: Any, timeout: Timeout | None = None) -> None:
        """Copies an array-like into a slot and tells those who receive. Nobody need be there: it is not kept for who
        comes when the ring has come round. Raises as ``put``, and ``ValidationFailed`` for more than 8 dimensions.
        """
        if timeout is not None:
            timeout = check_timeout("Ring.send", timeout)
        outgoing, source = self._outbox.fit(data)
        entry = self._outbox.entry_of(outgoing, TENSOR)
        index, generation = self._fill(outgoing, source, timeout)
        self._table.give_up(index)
        self._outbox.ring(index, generation, entry)

    @checks_itself
    def call(self, data: Any, timeout: Timeout | None = None) -> Call:
        """Copies an array-like into a slot and sends it as a request, which one of those who receive answers:
        ``with ring.call(x) as call: y = call.result()``. The slot is the call's until that is closed. The result is
        written into the same slot, which must have the bytes for it. ``timeout`` is for a slot. Raises as ``send``.
        """
        if timeout is not None:
            timeout = check_timeout("Ring.call", timeout)
        outgoing, source = self._outbox.fit(data)
        entry = self._outbox.entry_of(outgoing, REQUEST)
        index, generation = self._fill(outgoing, source, timeout, for_call=True)
        call = Call(self._table, self._bell, index, generation)
        self._table.unlock(index)
        self._outbox.ring(index, generation, entry)
        return call

    @overload
    def put(self, data: Any, timeout: Timeout | None = None, *, packed: Literal[False] = False) -> TensorReference: ...

    @overload
    def put(self, data: Any, timeout: Timeout | None = None, *, packed: Literal[True]) -> bytes: ...

    def put(self, data: Any, timeout: Timeout | None = None, *, packed: bool = False) -> TensorReference | bytes:
        """Copies an array-like (numpy, torch on the CPU, nested lists) into a slot and publishes it: the reference is
        sent by a way of your own. With ``packed=True`` it has 128 bytes, which ``receiver.open`` takes.

        Raises as ``acquire`` does; ``ValidationFailed`` if it does not fit.
        """
        outgoing, source = self._outbox.fit(data)
        if packed:
            self._outbox.entry_of(outgoing, TENSOR)
        index, generation = self._fill(outgoing, source, timeout)
        self._table.give_up(index)
        if packed:
            return self._outbox.pack(index, generation, outgoing)
        return self._table.to_reference(index, generation, outgoing.dtype, outgoing.shape, outgoing.byte_size)

    def close(self) -> None:
        """Lets go of the region here. What was published stays readable for as long as the region lives; those who
        receive get what was sent, and then ``StaleRef``.
        """
        self._outbox.close()
        self._table.close(before_unmap=self._bell.close)

    def _fill(
        self, outgoing: Outgoing, source: Source | npt.NDArray[Any], timeout: float | None, *, for_call: bool = False
    ) -> tuple[int, int]:
        """Takes a slot and copies into it. Returns it, still locked, and its generation."""
        table, index = self._table, self._take(timeout, for_call=for_call)
        try:
            generation = table.raise_generation(index)
            self._outbox.fill(index, outgoing, source)
        except BaseException:
            table.give_up(index)
            raise
        return index, generation

    def _take(self, timeout: float | None, *, for_call: bool = False) -> int:
        index = self._table.take(for_call=for_call)
        if index is not None:
            return index
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._bell.wanting():
            while True:
                # Looked at once more: whoever let go before it was wanted has woken nobody.
                index = self._table.take()
                if index is not None:
                    return index
                left = WANT_SECONDS if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    break
                self._bell.wait_for_slot(left)
        here = self._table.taken
        raise DeadlineExceeded(
            f"Cannot acquire a slot of ring {self.region.id}: all {self.slots} are in use after {timeout:g} s, {here} "
            "of them by this process, the others by those who have them open",
            hint="close slots, calls and opened tensors sooner, or make the ring with more slots",
            fields={"region": self.region.id, "slots": self.slots, "taken_here": here},
        )

    def __enter__(self) -> Ring:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self._table.taken} taken"
        return f"<tensord.Ring {self.region.id}, {self.slots} slots of {self.slot_bytes} bytes, {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ring cannot be pickled or copied: send references to its slots")


def to_ring_tensors(slots: int, slot_bytes: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors of a ring's region; ``slot_bytes`` is rounded up so that every slot is aligned.

    Raises ``ValidationFailed``.
    """
    for name, value, most in (("slots", slots, MAX_SLOTS), ("slot_bytes", slot_bytes, 1 << 48)):
        if not 1 <= value <= most:
            raise ValidationFailed(f"Cannot make a ring: {name} is {value!r}, want 1 to {most}")
    rounded = -(-slot_bytes // SLOT_ALIGNMENT) * SLOT_ALIGNMENT
    bell = BellLayout(slots, rounded).byte_size
    # In this order: those of one size lie in the file as they are asked for.
    return {GENERATIONS: ("U64", (slots,)), SLOTS: ("U8", (slots, rounded)), BELL: ("U8", (bell,))}
