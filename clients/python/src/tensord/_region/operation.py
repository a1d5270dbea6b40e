"""Operations: long work of the server that this process follows, waits for and cancels."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar, cast
from uuid import uuid4

from tensord._api import Api
from tensord._arguments.checked import checked_class
from tensord._arguments.kinds import Timeout
from tensord._errors import DeadlineExceeded, TensordError, from_problem
from tensord._session.session import Session
from tensord._wire.operation import OperationDescriptor
from tensord._wire.region import RegionDescriptor

if TYPE_CHECKING:
    from tensord._wire import schemas

Result = TypeVar("Result", bound=RegionDescriptor | None)

Progress = Callable[[int, int], object]
"""Hears how many bytes are done, and of how many."""

OWNERS = frozenset({"session", "ttl_ms", "linger_ms", "persist"})
# How often progress is told, and how long one answer is waited for at most.
PROGRESS_SECONDS = 1.0
WAIT_SECONDS = 60.0
# The server holds an answer back by whole seconds.
POLL_SECONDS = 0.05


@checked_class
class Operation(Generic[Result]):
    """Long work of the server, such as a copy. It goes on whatever becomes of this process, until it has ended or is
    cancelled; what has ended is told of for ten minutes. Made by ``Client.copy``, listed by ``Client.operations``.
    """

    def __init__(self, api: Api, descriptor: OperationDescriptor) -> None:
        self._api = api
        self._descriptor = descriptor

    @property
    def id(self) -> str:
        return self._descriptor.id

    @property
    def descriptor(self) -> OperationDescriptor:
        """What the server said when it was last asked."""
        return self._descriptor

    @property
    def state(self) -> str:
        """``running``, ``succeeded``, ``failed`` or ``cancelled``, when the server was last asked."""
        return self._descriptor.state

    @property
    def done_bytes(self) -> int:
        return self._descriptor.done_bytes

    @property
    def total_bytes(self) -> int:
        """All that it reads and writes: a copy is written once, and read back."""
        return self._descriptor.total_bytes

    @property
    def error(self) -> TensordError | None:
        """What it failed with, or that it was cancelled."""
        problem = self._descriptor.problem
        return None if problem is None else from_problem(int(problem["status"]), dict(problem))

    def refresh(self) -> OperationDescriptor:
        """Asks the server for it as it is now. Raises ``OperationNotFound``."""
        self._descriptor = self._api.operation(self.id)
        return self._descriptor

    def wait(self, timeout: Timeout | None = None, *, progress: Progress | None = None) -> Result:
        """Waits until it has ended, and returns the region that it led to: ``None`` of the unmapping of pages, which
        leads to none. ``progress(done_bytes, total_bytes)`` is
        called about once a second.

        Raises what it failed with, ``Cancelled``, ``DeadlineExceeded`` if it goes on after ``timeout`` seconds, and
        ``OperationNotFound`` if the server that did it is gone.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        step = WAIT_SECONDS if progress is None else PROGRESS_SECONDS
        while self._descriptor.ended_at is None:
            asked_at = time.monotonic()
            if asked_at >= deadline and timeout != 0:
                raise self._late(timeout)
            self._descriptor = self._api.operation(self.id, min(deadline, asked_at + step))
            if progress is not None:
                progress(self.done_bytes, self.total_bytes)
            if self._descriptor.ended_at is not None:
                break
            if timeout == 0:
                raise self._late(timeout)
            if time.monotonic() - asked_at < POLL_SECONDS:
                time.sleep(max(0.0, min(POLL_SECONDS, deadline - time.monotonic())))
        error = self.error
        if error is not None:
            raise error
        region = self._descriptor.region
        return cast("Result", None if region is None else self._api.region(region))

    def _late(self, timeout: float | None) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"Cannot wait for {self.id} to its end: after {timeout:g} s {self.done_bytes} of {self.total_bytes} bytes "
            "are done",
            hint="it goes on: wait again, or cancel it",
        )

    def cancel(self) -> OperationDescriptor:
        """Cancels it, and returns when nothing of it goes on. One that has ended stays as it ended. Raises
        ``OperationNotFound``, ``Forbidden``.
        """
        self._descriptor = self._api.cancel_operation(self.id)
        return self._descriptor

    def __repr__(self) -> str:
        done = f"{self.done_bytes} of {self.total_bytes} bytes"
        return (
            f"<tensord.Operation {self.id}, {self._descriptor.kind} of {self._descriptor.source}, {self.state}, {done}>"
        )


def start_copy(api: Api, session: Session | None, source: str, body: schemas.CopyRegion) -> Operation[RegionDescriptor]:
    """Begins a copy of the region ``source``, owned by the session if ``body`` names no owner."""
    keyed: schemas.CopyRegion = {**body, "key": uuid4().hex}
    if session is not None and OWNERS.isdisjoint(body):
        return Operation(api, session.own(lambda session_id: api.copy_region(source, {**keyed, "session": session_id})))
    return Operation(api, api.copy_region(source, keyed))


def finish_copy(
    operation: Operation[RegionDescriptor], timeout: float | None, progress: Progress | None
) -> RegionDescriptor:
    """Waits for it, and cancels it if that ends otherwise."""
    try:
        return operation.wait(timeout, progress=progress)
    except BaseException:
        if operation._descriptor.ended_at is None:
            with contextlib.suppress(Exception):
                operation.cancel()
        raise
