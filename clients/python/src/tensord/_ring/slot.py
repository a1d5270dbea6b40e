"""One slot of a ring, from its acquisition to its end: filled, then published, or lent and taken back."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Any, Literal, NoReturn, cast, overload

import numpy as np
import numpy.typing as npt

from tensord._arguments.checked import checked_class
from tensord._arguments.kinds import Shape, Timeout
from tensord._errors import Closed, DeadlineExceeded, ValidationFailed
from tensord._tensor.dtype import byte_size_of, parse_dtype, to_numpy_dtype
from tensord._tensor.reference import TensorReference

from .bell import Bell
from .call import Call
from .outbox import Outbox, Outgoing
from .packed import REQUEST, TENSOR, PackedBytes
from .slot_table import SlotTable


@checked_class
class Slot:
    """A slot that this process has taken from its ring; ``ring.acquire`` makes it. Use it in a ``with`` statement, or
    publish or close it; one that nobody refers to any more is closed. One thread at a time has a slot.

    Attributes: ``index`` in the ring; ``generation``, which its references carry: it grows each time that the slot is
    acquired or taken back.
    """

    def __init__(self, table: SlotTable, outbox: Outbox, bell: Bell, index: int) -> None:
        self._table = table
        self._outbox = outbox
        self._bell = bell
        self.index = index
        self._tensor: tuple[str, tuple[int, ...], int] | None = None
        self._arrays: list[npt.NDArray[Any]] = []
        self._lent = False
        self._finalizer = weakref.finalize(self, _give_up, table, index, self._arrays)
        self._finalizer.atexit = False
        self.generation = table.raise_generation(index)

    def array(self, shape: Shape, dtype: Any) -> npt.NDArray[Any]:
        """The slot's bytes as an array of that shape and type, which becomes the slot's tensor. Nothing is cleared.

        When the slot is published, lent or closed the array becomes ``writeable=False``; views made of it cannot be
        told, and must not be written to any more. Raises ``ValidationFailed`` if it does not fit, ``Closed``.
        """
        # A tuple by now, as any shape is that was checked.
        name, sizes = parse_dtype(dtype), cast("tuple[int, ...]", shape)
        array = self._fill(name, sizes).view(to_numpy_dtype(name)).reshape(sizes)
        self._arrays.append(array)
        return array

    def bytes(self, dtype: Any, shape: Shape) -> npt.NDArray[np.uint8]:
        """As ``array``, but the raw bytes, whatever numpy knows."""
        return self._fill(parse_dtype(dtype), cast("tuple[int, ...]", shape))

    def _fill(self, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        self._check("use", lent=False)
        size = byte_size_of(dtype, shape)
        self._table.check_size(dtype, shape, size)
        self._tensor = dtype, shape, size
        raw = self._table.bytes(self.index, size)
        self._arrays.append(raw)
        return raw

    @overload
    def publish(self, *, packed: Literal[False] = False) -> TensorReference: ...

    @overload
    def publish(self, *, packed: Literal[True]) -> PackedBytes: ...

    def publish(self, *, packed: bool = False) -> TensorReference | PackedBytes:
        """Hands the tensor round, and closes the slot here: the reference is good until the ring comes round to it.
        With ``packed=True`` it has 128 bytes, which ``receiver.open`` takes.

        Raises ``ValidationFailed`` if it has no tensor yet, or is lent; ``Closed``.
        """
        ref = self._to_reference("publish", packed=packed)
        self.close()
        return ref

    def send(self) -> None:
        """As ``publish``, and tells those who receive from the ring of it. Raises as ``publish`` does, and
        ``ValidationFailed`` for more than 8 dimensions.
        """
        entry = self._outbox.entry_of(self._to_outgoing("send"), TENSOR)
        self.close()
        self._outbox.ring(self.index, self.generation, entry)

    def call(self) -> Call:
        """Sends the tensor as a request, whose result one of those who receive writes into the same slot. The slot is
        the call's from here on. Raises as ``send`` does.
        """
        entry = self._outbox.entry_of(self._to_outgoing("call with"), REQUEST)
        _freeze(self._arrays)
        call = Call(self._table, self._bell, self.index, self.generation)
        self._finalizer.detach()
        self._table.unlock(self.index)
        self._outbox.ring(self.index, self.generation, entry)
        return call

    @overload
    def lend(self, *, packed: Literal[False] = False) -> TensorReference: ...

    @overload
    def lend(self, *, packed: Literal[True]) -> PackedBytes: ...

    def lend(self, *, packed: bool = False) -> TensorReference | PackedBytes:
        """Hands the tensor to others and keeps the slot: the reference is good until ``take_back``.

        Others read it, or write into it if they open it with ``writable=True``. ``packed`` and what is raised: as with
        ``publish``.
        """
        ref = self._to_reference("lend", packed=packed)
        _freeze(self._arrays)
        self._lent = True
        self._table.unlock(self.index)
        return ref

    def take_back(self, timeout: Timeout | None = None) -> None:
        """Waits until nobody has the lent tensor open any more, and lets nobody in who comes late.

        ``array`` then shows what is in the slot. Whether that is complete is for its writer to say: one that died has
        let go as well. Raises ``DeadlineExceeded``, and the slot stays lent; ``ValidationFailed`` if it is not lent;
        ``Closed``.
        """
        self._check("take back", lent=True)
        if not self._table.lock(self.index, timeout):
            raise DeadlineExceeded(
                f"Cannot take back slot {self.index} of ring {self._table.region.id}: somebody still has it open after "
                f"{timeout:g} s",
                hint="wait longer, or close the slot: the ring goes round it until they let go",
                fields={"region": self._table.region.id, "slot": self.index},
            )
        self._lent = False
        self.generation = self._table.raise_generation(self.index)

    def close(self) -> None:
        """Gives the slot up. Safe to call twice. A lent reference stays good until the slot is acquired again."""
        self._finalizer()

    def __enter__(self) -> Slot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ("lent" if self._lent else "locked") if self._finalizer.alive else "closed"
        return f"<tensord.Slot {self.index} of {self._table.region.id}, generation {self.generation}, {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a slot cannot be pickled or copied: send the reference that publish() or lend() gives")

    def _to_outgoing(self, action: str) -> Outgoing:
        dtype, shape, _ = self._filled(action)
        return self._outbox.kind_of(dtype, shape)

    def _filled(self, action: str) -> tuple[str, tuple[int, ...], int]:
        self._check(action, lent=False)
        if self._tensor is None:
            raise ValidationFailed(
                f"Cannot {action} slot {self.index} of ring {self._table.region.id}: it has no tensor yet",
                hint="fill slot.array(shape, dtype)",
            )
        return self._tensor

    def _to_reference(self, action: str, *, packed: bool) -> TensorReference | PackedBytes:
        dtype, shape, size = self._filled(action)
        if packed:
            return self._outbox.pack(self.index, self.generation, self._outbox.kind_of(dtype, shape))
        return self._table.to_reference(self.index, self.generation, dtype, shape, size)

    def _check(self, action: str, *, lent: bool) -> None:
        self._table.check()
        slot = f"Cannot {action} slot {self.index} of ring {self._table.region.id}"
        if not self._finalizer.alive:
            raise Closed(f"{slot}: it was published or closed", hint="acquire another one")
        if self._lent and not lent:
            raise ValidationFailed(f"{slot}: it is lent, want taken back", hint="take_back() first")
        if lent and not self._lent:
            raise ValidationFailed(f"{slot}: it is not lent", hint="lend() hands it to others")


def _give_up(table: SlotTable, index: int, arrays: list[npt.NDArray[Any]]) -> None:
    _freeze(arrays)
    table.give_up(index)


def _freeze(arrays: list[npt.NDArray[Any]]) -> None:
    # Whoever keeps an array beyond its slot shall meet an error and not another tensor's bytes.
    for array in arrays:
        array.flags.writeable = False
    arrays.clear()
