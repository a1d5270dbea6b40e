"""The elastic pool of a server: what is mapped is mapped for every process that follows it, and a thread of this one
keeps its own range as the server's map says.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tensord._api import Api
from tensord._arguments.checked import checked_class
from tensord._arguments.kinds import ByteCount, Revision, Seconds, Timeout
from tensord._cuda.devices import find_usable_device
from tensord._cuda.memory import refuse_without_room
from tensord._errors import DriverFailed, NotMapped, TensordError
from tensord._events.event_stream import EventStream
from tensord._region.operation import Operation
from tensord._region.requests import OnFull, to_ms
from tensord._session.session import Session
from tensord._wire.elastic_pool import Move, PoolStatistics, Run

from .attachment import PoolAttachment
from .follower import Follower, quiet
from .layout import to_ranges
from .pool import Pool
from .space import Space

if TYPE_CHECKING:
    from tensord._wire import schemas


@checked_class
class SharedPool(Pool):
    """A model's elastic pool on a device, followed; ``Client.pool`` makes it.

    Its bytes are the same in every process that follows it: offsets are shared, and each has a ``base_address`` of its
    own that stays. What one maps is mapped in all of them a moment later. A page that goes, because somebody unmaps
    it, its session ends, or the server evicts it for others, goes in each process once its device has done what it was
    told, and its memory is free when the last process has let go or died. So drop what libraries made of a page before
    it goes: what is used afterwards is the device's error. ``moves=True`` says that ``compact`` may move pages while
    this process follows; then ask ``tensor`` anew after it.

    It goes on by itself through cut connections and restarts of the server; what is mapped meanwhile stays.
    Thread-safe. A forked child cannot use it.
    """

    def __init__(
        self,
        api: Api,
        session: Session | None,
        statistics: PoolStatistics,
        *,
        moves: bool,
        open_events: Callable[[str, str], EventStream],
    ) -> None:
        self._api = api
        self._session = session
        self._model = str(statistics.model)
        self._uuid = statistics.device_uuid
        self._limit_bytes = statistics.maximum_bytes
        self._mutex = threading.RLock()
        self._is_closed = False
        driver, device = find_usable_device(self._uuid)
        size = statistics.page_size
        self._space = Space(driver, device, size, statistics.virtual_capacity // size)
        attachment = PoolAttachment(api.broker, self._model, self._uuid, moves=moves)
        model = self._model
        self._follower = Follower(attachment, self._space, self._mutex, lambda after: open_events(after, model))
        self._follower.start()
        self._finalizer = weakref.finalize(self, functools.partial(quiet, self._follower.close))
        self._finalizer.atexit = False

    @property
    def model(self) -> str:
        """Whose pool it is."""
        return self._model

    def map(
        self,
        byte_size: ByteCount,
        byte_offset: ByteCount | None = None,
        *,
        persist: bool = False,
        evictable: bool = False,
        on_full: OnFull = "fail",
        deadline: Seconds | None = None,
    ) -> Run:
        """Maps new memory for all who follow the pool, all of it or none, at an offset or into the first hole that
        fits. It is mapped here when this returns, and in the others a moment later. What is in it is anybody's guess.

        It goes with this client's session, unless ``persist=True``, or the client has none: then when it is unmapped.
        ``evictable`` ones the server may take for others, least recently used first. ``on_full`` says what to do if
        there is no room: ``"fail"``, ``"evict"``, or ``"wait"``, at most ``deadline`` seconds.

        Raises ``OutOfRange``, ``AlreadyMapped``, ``PoolFull``, ``ModelLimitExceeded``, ``OutOfDeviceMemory``,
        ``OutOfDescriptors``, ``DeadlineExceeded``, ``DriverFailed`` if this process's driver cannot map it (then it is
        unmapped again), ``ElasticPoolNotFound``, ``Closed``.
        """
        self._check_usable()
        body: schemas.MapPages = {"byte_size": byte_size}
        if byte_offset is not None:
            body["byte_offset"] = byte_offset
        if evictable:
            body["evictable"] = True
        if on_full != "fail":
            body["on_full"] = on_full
        deadline_ms = to_ms(deadline)
        if deadline_ms is not None:
            body["deadline_ms"] = deadline_ms
        if persist or self._session is None:
            mapped = self._api.map_pages(self._model, self._uuid, body)
        else:
            mapped = self._session.own(
                lambda session_id: self._api.map_pages(self._model, self._uuid, {**body, "session": session_id})
            )
        run = mapped.run
        numbers = range(run.first_page, run.first_page + run.byte_size // self.page_size)
        self._follower.wait_for(mapped.sequence)
        failure = self._follower.failure_of(numbers)
        if failure is not None:
            quiet(lambda: self.unmap(run.byte_offset, run.byte_size))
            if isinstance(failure, DriverFailed) and "result" in failure.fields:
                refuse_without_room(failure)
            raise failure
        return run

    def unmap(self, byte_offset: ByteCount, byte_size: ByteCount, *, timeout: Timeout | None = None) -> None:
        """Unmaps a range in every process that follows the pool, once its device has done what it was told, and waits
        until the memory is free. One that does not answer holds it up, and ``statistics()`` names it.

        Raises ``OutOfRange``, ``NotMapped``; ``DeadlineExceeded`` if that goes on after ``timeout`` seconds (it goes
        on); ``Cancelled``; ``Closed``.
        """
        self._check_usable()
        body: schemas.UnmapPages = {"byte_offset": byte_offset, "byte_size": byte_size}
        operation: Operation[None] = Operation(self._api, self._api.unmap_pages(self._model, self._uuid, body))
        operation.wait(timeout)

    def trim(self) -> int:
        """Gives back what no process has mapped. Returns the bytes that went. Raises ``Closed``."""
        self._check_usable()
        return self._api.trim_pool(self._model, self._uuid).freed_bytes

    def compact(self) -> list[Move]:
        """Moves runs into holes for all who follow the pool, with what is in them, and returns once they have moved
        here. Tensors over what has moved are to be made anew. Raises ``InUse`` if a process follows it that did not
        agree to moves (``moves=True``), or while pages leave; ``Closed``.
        """
        self._check_usable()
        compacted = self._api.compact_pool(self._model, self._uuid)
        if compacted.moves:
            self._follower.wait_for(compacted.sequence)
        return list(compacted.moves)

    def statistics(self) -> PoolStatistics:
        """The pool as the server sees it: what is mapped, free, leaving, unreleased and stuck, and who follows it."""
        self._check_usable()
        return self._api.elastic_pool(self._model, self._uuid)

    def change(
        self,
        *,
        minimum: ByteCount | None = None,
        maximum: ByteCount | None = None,
        if_match: Revision | None = None,
    ) -> PoolStatistics:
        """Changes the pool's budget: at least ``minimum`` bytes are kept for it, and at most ``maximum`` are taken.
        With ``if_match`` only a pool of that ``revision``. Raises ``PoolFull``, ``RevisionMismatch``.
        """
        self._check_usable()
        body: schemas.ChangeElasticPool = {}
        if minimum is not None:
            body["minimum_bytes"] = minimum
        if maximum is not None:
            body["maximum_bytes"] = maximum
        return self._api.change_elastic_pool(self._model, self._uuid, body, if_match)

    def close(self) -> None:
        """Waits for the device, lets go of everything here, and follows no more. What is mapped stays mapped for the
        others. Safe to call twice. Raises ``DriverFailed``, once, if the driver refused a call: what is left then stays
        counted as this process's until the next pool that it makes has given it back, or it ends.
        """
        if self._is_closed or self._space.pid != os.getpid():
            self._is_closed = True
            return
        self._is_closed = True
        self._finalizer.detach()
        failure = self._follower.close()
        if failure is not None:
            failure.detail = f"Cannot let go of the pool on {self.device}: {failure.detail}"
            raise failure

    def _give_back(self, numbers: range) -> None:
        if self._is_closed:
            return
        with self._open() as space:
            indices = [index for index, page in space.at.items() if page.number in numbers]
        for start, count in to_ranges(indices):
            try:
                self.unmap(start * self.page_size, count * self.page_size)
            except NotMapped:
                # Somebody else has unmapped it, or it was evicted.
                continue

    def _check_usable(self) -> None:
        """Raises ``Closed``, and why the pool is over."""
        with self._open():
            self._follower.check()

    def __enter__(self) -> SharedPool:
        return self


def open_pool(
    api: Api,
    session: Session | None,
    model: str,
    device_uuid: str,
    *,
    capacity: int | None,
    page_size: int | None,
    minimum: int | None,
    maximum: int | None,
    moves: bool,
    open_events: Callable[[str, str], EventStream],
) -> SharedPool:
    """``Client.pool``, of a device by its UUID. Without a capacity the pool has to be there."""
    if capacity is None:
        statistics = api.elastic_pool(model, device_uuid)
    else:
        body: schemas.CreateElasticPool = {"virtual_capacity": capacity}
        given: dict[str, Any] = {"page_size": page_size, "minimum_bytes": minimum, "maximum_bytes": maximum}
        for key, value in given.items():
            if value is not None:
                body[key] = value  # type: ignore[literal-required]
        statistics = api.create_elastic_pool(model, device_uuid, body)
    try:
        return SharedPool(api, session, statistics, moves=moves, open_events=open_events)
    except TensordError as error:
        error.detail = f"Cannot follow the elastic pool of model {model} on {device_uuid}: {error.detail}"
        raise
