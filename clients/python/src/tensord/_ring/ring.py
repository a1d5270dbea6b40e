"""The owner's side of a ring: slots handed round by reference, without the server. ``slot_tensor.py`` is the other."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NoReturn

from tensord._arguments.checked import checked_class
from tensord._arguments.kinds import Timeout
from tensord._errors import DeadlineExceeded, ValidationFailed
from tensord._mapping.lock_file import rounds
from tensord._region.copy import copy_all, to_sources
from tensord._region.region import Region
from tensord._tensor.reference import TensorReference

from .layout import GENERATIONS, MAX_SLOTS, SLOT_ALIGNMENT, SLOTS
from .slot import Slot
from .slot_table import SlotTable


@checked_class
class Ring:
    """A region cut into equal slots, for tensors that live as long as a request. ``client.ring`` makes it.

    ``put`` an array, or ``acquire`` a slot and fill it in place; send the reference; the other side opens it with
    ``client.open``. A published reference is good until the ring comes round to its slot again, then it is
    ``StaleRef``; whoever has it open keeps the slot, and the ring goes on to the next one. Thread-safe; a forked child
    makes a ring of its own. Close it, or use it in a ``with`` statement; the region ends with its own owner.

    Attributes: ``region``; ``slots``, how many; ``slot_bytes``, the most that a tensor in one of them may have.
    """

    def __init__(self, region: Region) -> None:
        self._table = SlotTable(region)
        self.region = region
        self.slots = self._table.slots
        self.slot_bytes = self._table.slot_bytes

    @property
    def closed(self) -> bool:
        return self.region.closed

    def acquire(self, timeout: Timeout | None = None) -> Slot:
        """Takes the next free slot, to be filled. References to what it held are stale from here on.

        While every slot is in use it waits until somebody lets go of one, for at most ``timeout`` seconds, without end
        if that is ``None``. Raises ``DeadlineExceeded``, ``Closed``.
        """
        for _ in rounds(timeout):
            index = self._table.take()
            if index is not None:
                return Slot(self._table, index)
        here = self._table.taken
        raise DeadlineExceeded(
            f"Cannot acquire a slot of ring {self.region.id}: all {self.slots} are in use after {timeout:g} s, {here} "
            "of them by this process, the others by those who have them open",
            hint="close slots and opened tensors sooner, or make the ring with more slots",
            fields={"region": self.region.id, "slots": self.slots, "taken_here": here},
        )

    def put(self, data: Any, timeout: Timeout | None = None) -> TensorReference:
        """Copies an array-like (numpy, torch on the CPU, nested lists) into a slot and publishes it.

        Raises as ``acquire`` does; ``ValidationFailed`` if it does not fit.
        """
        (source,) = to_sources({"data": data})
        with self.acquire(timeout) as slot:
            copy_all([(slot._fill(source.dtype, source.shape), source)])
            return slot.publish()

    def close(self) -> None:
        """Lets go of the region here. What was published stays readable for as long as the region lives."""
        self._table.close()

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
    return {GENERATIONS: ("U64", (slots,)), SLOTS: ("U8", (slots, rounded))}
