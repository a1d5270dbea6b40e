"""A request that this process has sent by its ring, until its result is read: the caller's side of an answer
(``docs/protocol.md``, "The bell"). ``message.py`` is the other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from tensord._arguments.checked import check_timeout, checked_class, checks_itself
from tensord._arguments.kinds import Timeout
from tensord._errors import Closed, DeadlineExceeded, RequestFailed, ValidationFailed
from tensord._mapping.futex import SLICE_SECONDS
from tensord._tensor.dtype import to_numpy_dtype

from .answer_record import FAILED, Answer
from .bell import Bell
from .held import hold
from .slot_table import SlotTable

_MAX_SHOWN = 1000


@checked_class
class Call:
    """A request, and its answer; ``ring.call`` and ``slot.call`` make it. Close it, or use it in a ``with`` statement.

    It has its slot until it is closed, and as long as an array of its result lives: the worker finds the request there,
    and writes the result. One thread at a time waits for it. ``await`` it in asyncio, which waits in a thread of the
    loop's executor and gives ``result()``.
    """

    __slots__ = ("__weakref__", "_answer", "_bell", "_generation", "_index", "_table")

    def __init__(self, table: SlotTable, bell: Bell, index: int, generation: int) -> None:
        self._table = table
        self._bell = bell
        self._index = index
        self._generation = generation
        self._answer: Answer | None = None

    @property
    def closed(self) -> bool:
        return self._index < 0

    @property
    def done(self) -> bool:
        """Whether it was answered, or never will be: ``result`` does not wait then. Raises ``Closed``."""
        self._check()
        return self._bell.is_answered(self._index, self._generation) or self._is_given_up()

    @checks_itself
    def result(self, timeout: Timeout | None = None) -> npt.NDArray[Any]:
        """Waits for the result, and gives it: an array over the slot, which the worker chose dtype and shape of.

        It stays until the call is closed; kept longer it shows what comes into the slot next: copy what you keep.
        Raises ``DeadlineExceeded`` after ``timeout`` seconds, and may be asked again; ``RequestFailed`` if the
        worker said so, died or gave it up; ``FeatureUnavailable`` if numpy has no such type; ``Closed``.
        """
        if timeout is not None:
            timeout = check_timeout("Call.result", timeout)
        answer = self._wait(timeout)
        return self._array(to_numpy_dtype(answer.dtype), answer)

    def bytes(self, timeout: Timeout | None = None) -> npt.NDArray[np.uint8]:
        """As ``result``, but the raw bytes, whatever numpy knows."""
        answer = self._wait(timeout)
        return self._array(np.dtype(np.uint8), answer._replace(shape=(answer.byte_size,)))

    @property
    def dtype(self) -> str:
        """The result's. Raises ``ValidationFailed`` before there is one."""
        return self._answered().dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The result's. Raises ``ValidationFailed`` before there is one."""
        return self._answered().shape

    def close(self) -> None:
        """Gives the slot up, answered or not: a worker that is still at it keeps it that long. Safe to call twice."""
        index, self._index = self._index, -1
        if index >= 0:
            self._table.end_call(index)

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __await__(self) -> Generator[Any, None, npt.NDArray[Any]]:
        return self._to_result().__await__()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "answered" if self._answer is not None else "sent"
        return f"<tensord.Call {self._generation} of {self._table.region.id}, {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a call cannot be pickled or copied: send its result")

    async def _to_result(self) -> npt.NDArray[Any]:
        import asyncio  # Whoever is here has it; others need not pay for it.

        # A slice at a time: a task that is cancelled leaves no thread that waits on.
        while not self.done:
            await asyncio.to_thread(self._bell.wait_for_answer, self._index, self._generation, SLICE_SECONDS)
        return self.result()

    def _wait(self, timeout: float | None) -> Answer:
        self._check()
        if self._answer is not None:
            return self._answer
        index, generation, wait_for_answer = self._index, self._generation, self._bell.wait_for_answer
        deadline = None if timeout is None or timeout == math.inf else time.monotonic() + timeout
        seconds = SLICE_SECONDS
        while True:
            if deadline is not None:
                seconds = min(SLICE_SECONDS, max(0.0, deadline - time.monotonic()))
            if wait_for_answer(index, generation, seconds):
                return self._read()
            self._table.check()
            if self._is_given_up():
                raise RequestFailed(
                    f"{self._shown()}: whoever had taken it has died, or given it up",
                    hint="make the call again if it may be done twice",
                )
            if deadline is not None and time.monotonic() >= deadline:
                raise DeadlineExceeded(
                    f"{self._shown()}: there is none after {timeout:g} s",
                    hint="ask again to wait longer, or close it: a worker that comes late finds that it is gone",
                    fields={"region": self._table.region.id},
                )

    def _read(self) -> Answer:
        try:
            answer = self._bell.read_answer(self._index)
        except ValidationFailed as error:
            raise RequestFailed(f"{self._shown()}: its answer cannot be read: {error.detail}") from error
        if answer.kind == FAILED:
            raw = self._table.bytes(self._index, self._table.slot_bytes)[answer.offset :][: answer.byte_size]
            why = bytes(raw[:_MAX_SHOWN]).decode(errors="replace")
            raise RequestFailed(f"{self._shown()}: {why}", fields={"reason": why})
        self._answer = answer
        return answer

    def _array(self, dtype: np.dtype[Any], answer: Answer) -> npt.NDArray[Any]:
        start = self._table.start_of(self._index) + answer.offset
        return hold(self._table.read_only(), start, answer.shape, dtype, self)

    def _is_given_up(self) -> bool:
        bell, index, generation = self._bell, self._index, self._generation
        # In this order: it is answered before it is unlocked.
        return (
            bell.is_taken(index, generation)
            and not self._table.is_open(index)
            and not bell.is_answered(index, generation)
        )

    def _answered(self) -> Answer:
        if self._answer is None:
            raise ValidationFailed(
                f"Cannot say what the result of call {self._generation} is: it is not here yet", hint="result() first"
            )
        return self._answer

    def _shown(self) -> str:
        return f"Cannot get the result of call {self._generation} of ring {self._table.region.id}"

    def _check(self) -> None:
        self._table.check()
        if self._index < 0:
            raise Closed(f"{self._shown()}: it was closed", hint="copy the result before that")
