"""One message of a ring, from its receipt to its end: a tensor to read, or a request to answer in the slot in which it
lies (``docs/protocol.md``, "The bell").
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from types import TracebackType
from typing import Any, NoReturn, cast

import numpy as np
import numpy.typing as npt

from tensord._arguments.checked import checked_class
from tensord._arguments.kinds import Shape, Text
from tensord._errors import Closed, ValidationFailed
from tensord._region.copy import to_sources
from tensord._tensor.dtype import byte_size_of, parse_dtype, to_numpy_dtype
from tensord._tensor.reference import TensorReference

from .answer_record import DONE, FAILED, RESULT_ALIGNMENT, Answer, to_record
from .held import hold
from .layout import LINE_BYTES
from .opened_ring import Kind, OpenedRing
from .packed import PackedBytes

MAX_REASON_BYTES = 4096


@checked_class
class Message:
    """A tensor that came by a ring; ``receiver.receive`` makes it. Close it, or use it in a ``with`` statement: until
    then its slot is locked, and the ring goes round it.

    If it is dropped without that, the slot is locked until the last array or torch tensor over it is gone. Arrays that
    are kept beyond ``close`` show what comes into the slot next: copy what you keep. A request is answered before it is
    closed; one that is not, or whose ``with`` block ends in an exception, is told to its caller as failed.

    Attributes: ``dtype``, ``shape``, ``byte_size``; ``generation``; ``is_request``, whether its sender waits for an
    answer; ``lost``, how many messages were gone between the one before and this.
    """

    __slots__ = (
        "__weakref__",
        "_arrays",
        "_index",
        "_is_writable",
        "_kind",
        "_region",
        "_ring",
        "generation",
        "is_request",
        "lost",
    )

    def __init__(
        self, ring: OpenedRing, kind: Kind, index: int, generation: int, lost: int, *, is_writable: bool
    ) -> None:
        # None when it is closed: who keeps a closed message keeps nothing mapped.
        self._ring: OpenedRing | None = ring
        self._region = ring.reference.region
        self._kind = kind
        self._index = index
        self._is_writable = is_writable
        self._arrays: list[weakref.ref[npt.NDArray[Any]]] = []
        self.generation = generation
        self.is_request = kind.is_request and is_writable
        self.lost = lost

    @property
    def dtype(self) -> str:
        return self._kind.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self._kind.shape

    @property
    def byte_size(self) -> int:
        return self._kind.byte_size

    @property
    def closed(self) -> bool:
        return self._index < 0

    def numpy(self) -> npt.NDArray[Any]:
        """The tensor, in place. It is writable if it is a request, or was opened so. Raises ``Closed``;
        ``FeatureUnavailable`` if numpy has no such type. For torch: ``client.open(message.ref()).torch()``.
        """
        kind = self._kind
        return self._show(kind.numpy, kind.shape, 0)

    def bytes(self) -> npt.NDArray[np.uint8]:
        """The raw bytes, whatever numpy knows. Raises ``Closed``."""
        return self._show(np.dtype(np.uint8), (self._kind.byte_size,), 0)

    def ref(self) -> TensorReference:
        """What ``client.open`` takes. It is good for as long as the slot's owner lets it be. Raises ``Closed``."""
        ring, kind = self._opened(), self._kind
        return replace(
            ring.reference,
            byte_offset=self._start_in(ring),
            byte_size=kind.byte_size,
            dtype=kind.dtype,
            shape=kind.shape,
            generation=self.generation,
        )

    def array(self, shape: Shape, dtype: Any) -> npt.NDArray[Any]:
        """Room for the result of a request, in its slot and behind it, which ``answer`` then sends without a copy.
        Nothing is cleared. Raises ``ValidationFailed`` if the slot has not so much room left; ``Closed``.
        """
        ring = self._opened_request("make room for the result of")
        name, sizes = parse_dtype(dtype), cast("tuple[int, ...]", shape)
        offset = -(-self._kind.byte_size // LINE_BYTES) * LINE_BYTES
        self._check_room(ring, name, sizes, byte_size_of(name, sizes), offset)
        return self._show(to_numpy_dtype(name), sizes, offset)

    def answer(self, data: Any) -> None:
        """Sends the result of a request, an array-like, and closes the message. What lies in the slot, from ``array``
        or from ``numpy()``, stays where it is; all else is copied into it, over the request.

        Raises ``ValidationFailed`` if it is no request, or does not fit, and it may be answered with something else.
        """
        ring = self._opened_request("answer")
        if type(data) is np.ndarray and data.base is None:
            # It has memory of its own, so it lies in no slot.
            known = ring.replies.get((data.dtype, data.shape))
            if known is not None:
                place = np.ndarray(data.shape, known.native, ring.memory, self._start_in(ring))
                place[...] = data
                self._finish(ring, known.record)
                return
        (source,) = to_sources({"data": data})
        dtype, shape, size = source.dtype, source.shape, byte_size_of(source.dtype, source.shape)
        offset = self._offset_in(ring, source.array)
        if offset is None:
            offset = 0
            self._check_room(ring, dtype, shape, size, offset)
            place = np.ndarray(shape, source.array.dtype.newbyteorder("="), ring.memory, self._start_in(ring))
            np.copyto(place, source.array, casting="equiv")
        record = to_record(Answer(DONE, dtype, shape, offset, size))
        if type(data) is np.ndarray and offset == 0:
            ring.keep_reply(data, record)
        self._finish(ring, record)

    def fail(self, reason: Text) -> None:
        """Tells the caller of a request that there is no result, and why, and closes the message. Raises
        ``ValidationFailed`` if it is no request; ``Closed``.
        """
        self._opened_request("fail")
        self._tell(reason)

    def close(self) -> None:
        """Lets go of the slot. Safe to call twice."""
        if self._index < 0:
            return
        if self.is_request:
            self._tell("its worker closed it without an answer")
        self._let_go()

    def __enter__(self) -> Message:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, Exception) and self.is_request and self._index >= 0:
            self._tell(f"{kind.__name__}: {error}")
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        what = "request" if self.is_request else "tensor"
        state = "closed" if self.closed else "open"
        return f"<tensord.Message {what} {self.dtype} {list(self.shape)} of {self._region}, {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a message cannot be pickled or copied: send message.ref() and open it there")

    def _opened(self) -> OpenedRing:
        ring = self._ring
        if ring is None:
            raise Closed(
                f"Cannot use a message of ring {self._region}: it was closed here",
                hint="copy what you keep before that",
            )
        ring.lock.check()
        return ring

    def _opened_request(self, action: str) -> OpenedRing:
        ring = self._opened()
        if not self.is_request:
            raise ValidationFailed(
                f"Cannot {action} a message of ring {self._region}: nobody waits for an answer",
                hint="its sender uses ring.call for that",
            )
        return ring

    def _start_in(self, ring: OpenedRing) -> int:
        return ring.layout.first_slot + self._index * ring.layout.slot_bytes

    def _show(self, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> npt.NDArray[Any]:
        ring = self._opened()
        start = self._start_in(ring) + offset
        if not self._is_writable:
            return hold(ring.read_only, start, shape, dtype, self)
        array = hold(ring.memory, start, shape, dtype, self)
        self._arrays.append(weakref.ref(array))
        return array

    def _offset_in(self, ring: OpenedRing, array: npt.NDArray[Any]) -> int | None:
        """Where in the slot an array lies as a result would; ``None`` if it is elsewhere."""
        if array.base is None or not array.flags.c_contiguous or not array.dtype.isnative:
            return None
        offset = int(array.ctypes.data) - ring.address - self._start_in(ring)
        fits = offset >= 0 and offset + array.nbytes <= ring.layout.slot_bytes
        return offset if fits and offset % RESULT_ALIGNMENT == 0 else None

    def _check_room(self, ring: OpenedRing, dtype: str, shape: tuple[int, ...], byte_size: int, offset: int) -> None:
        room = ring.layout.slot_bytes - offset
        if byte_size > room:
            raise ValidationFailed(
                f"Cannot answer with {dtype} of shape {list(shape)} in a slot of ring {self._region}: it has "
                f"{byte_size} bytes, want at most {max(room, 0)}",
                hint="make the ring with a larger slot_bytes",
            )

    def _tell(self, reason: str) -> None:
        try:
            ring = self._opened()
        except Closed:
            # A forked child tells nobody.
            return
        room = min(MAX_REASON_BYTES, ring.layout.slot_bytes)
        # Cut where it is still text.
        text = reason.encode(errors="replace")[:room].decode(errors="ignore").encode()
        start = self._start_in(ring)
        ring.memory[start : start + len(text)] = text
        self._finish(ring, to_record(Answer(FAILED, "U8", (len(text),), 0, len(text))))

    def _finish(self, ring: OpenedRing, record: PackedBytes) -> None:
        index = self._index
        ring.answer(index, self.generation, record)
        self._let_go()
        ring.wake_caller(index)

    def _let_go(self) -> None:
        index, self._index = self._index, -1
        ring, self._ring = self._ring, None
        if ring is None or index < 0:
            return
        for weak in self._arrays:
            array = weak()
            # Whoever keeps one shall meet an error and not another tensor's bytes.
            if array is not None:
                array.flags.writeable = False
        ring.let_go(index)
