"""Keeps a space as the server's map of an elastic pool says, on threads of its own: what others map is mapped here,
what leaves is unmapped once the device has done what it was told, and then let go of.

One thread does all that changes pages; another reads the events for it. ``wanted`` is the map as it was last told, and
``settle`` brings the space there from wherever it is: an event, a gap, a cut connection and a restart of the server
end in the same steps. The thread outlives no pool: it knows the space, and not who uses it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from tensord._errors import (
    Closed,
    DriverFailed,
    ElasticPoolNotFound,
    InUse,
    LeaseNotFound,
    OutOfDescriptors,
    ServerUnavailable,
    TensordError,
)
from tensord._events.event import STREAM, Event
from tensord._events.event_stream import EventStream
from tensord._session.wake import Wake

from .attachment import PoolAttachment
from .page_events import Map, apply, is_deletion, is_of, missing_of
from .space import Page, Space

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
# How often a driver that refused something is asked again.
RETRY_SECONDS = 1.0
# After which time who waits for an event has the whole map asked for.
PATIENCE_SECONDS = 2.0
# How long a close waits for the thread.
END_SECONDS = 5.0

_log = logging.getLogger("tensord")


class Follower:
    """Follows one pool into ``space``, which it shares with users by ``mutex``. ``start`` attaches, or raises."""

    def __init__(
        self,
        attachment: PoolAttachment,
        space: Space,
        mutex: threading.RLock,
        open_events: Callable[[str], EventStream],
    ) -> None:
        self._attachment = attachment
        self._space = space
        self._changed = threading.Condition(mutex)
        self._open_events = open_events
        self._wake = Wake()
        self._heard: deque[Event | None] = deque()
        self._stream: EventStream | None = None
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        # The map, and the event that it is true at; what of it could not be had here, and why.
        self._wanted: Map = {}
        self._at = 0
        self._settled = 0
        self._needs_map = True
        self._failures: dict[int, TensordError] = {}
        # Pages that are to lie elsewhere, by their numbers.
        self._in_hand: dict[int, Page] = {}
        self._over: TensordError | None = None

    def start(self) -> None:
        """Attaches, maps what is mapped, and begins to follow. Raises what the server says, and why pages cannot be
        mapped here; nothing is left then.
        """
        try:
            self._step()
            if self._failures:
                raise next(iter(self._failures.values()))
            for name, work in (("tensord-pool-events", self._listen), ("tensord-pool", self._run)):
                thread = threading.Thread(target=work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        except BaseException:
            self.close()
            raise

    def wait_for(self, sequence: str) -> None:
        """Waits until the space is as the map was at that event. Raises ``Closed``, and why the pool is over."""
        wanted, asked_at = int(sequence), time.monotonic()
        with self._changed:
            while self._settled < wanted:
                self.check()
                self._changed.wait(PATIENCE_SECONDS)
                if time.monotonic() - asked_at > PATIENCE_SECONDS:
                    self._needs_map = True
                    self._wake.call()
            self.check()

    def failure_of(self, numbers: range) -> TensordError | None:
        """Why pages could not be mapped here, if that is so."""
        with self._changed:
            return next((error for number, error in self._failures.items() if number in numbers), None)

    def check(self) -> None:
        """Raises why nothing is followed any more, if that is so."""
        if self._over is not None:
            raise self._over
        if self._stopping.is_set():
            raise Closed("Cannot use the pool: it is closed")

    def close(self) -> DriverFailed | None:
        """Stops, gives everything back to the device and then to the server. Returns the first failure of the driver;
        what is left then stays leased until the next space that is made has given it back, or the process ends. In a
        forked child nothing is done.
        """
        self._stopping.set()
        if self._space.pid != os.getpid():
            return None
        self._wake.call(at_once=True)
        stream = self._stream
        if stream is not None:
            stream.close()
        self._attachment.interrupt()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(END_SECONDS)
        with self._changed:
            self._space.release([*self._in_hand.values()])
            self._in_hand.clear()
            self._space.at_end = self._attachment.leave
            failure = self._space.destroy()
            self._changed.notify_all()
        if failure is not None:
            self._attachment.disconnect()
        return failure

    def _listen(self) -> None:
        after, pause = str(self._at), FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            try:
                with self._open_events(after) as stream:
                    self._stream = stream
                    # Whoever closes sets the one and then looks at the other.
                    if self._stopping.is_set():
                        return
                    for event in stream:
                        self._heard.append(event)
                        self._wake.call()
                        pause = FIRST_PAUSE_SECONDS
                        after = stream.after
                        if self._stopping.is_set():
                            break
            except TensordError as error:
                if not self._stopping.is_set():
                    _log.warning("Cannot follow the events of an elastic pool, and try again: %s", error)
            # What came meanwhile nobody told.
            self._heard.append(None)
            self._wake.call()
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            line = self._attachment.line
            idle = RETRY_SECONDS if self._owes() else None
            if line is None:
                self._wake.wait(pause)
            elif not self._wake.wait(idle, [line]) and line.is_over:
                self._attachment.disconnect()
            self._wake.listen()
            try:
                if self._over is None:
                    self._step()
                else:
                    self._lift()
                    if not self._kept():
                        return
                pause = FIRST_PAUSE_SECONDS
            except (ServerUnavailable, InUse, OSError):
                self._attachment.disconnect()
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            except TensordError as error:
                _log.warning("Cannot follow an elastic pool, and try again: %s", error)
                self._attachment.disconnect()
                pause = LONGEST_PAUSE_SECONDS

    def _owes(self) -> bool:
        with self._changed:
            space = self._space
            return self._have() != self._wanted or bool(self._in_hand or space.unreleased or space.stuck)

    def _have(self) -> Map:
        return {index: page.number for index, page in self._space.at.items()}

    def _step(self) -> None:
        """One round: the connection, the events, and the space after them."""
        if self._attachment.line is None or self._needs_map:
            self._fetch()
        while self._heard:
            self._hear(self._heard.popleft())
        if self._needs_map:
            self._fetch()
        self._settle()

    def _fetch(self) -> None:
        known = self._attachment.pool
        try:
            pages, at = self._attachment.fetch_map()
        except (ElasticPoolNotFound, LeaseNotFound) as error:
            if known is None:
                raise
            # What is mapped here is of a pool, or of a worker, that the server knows nothing of.
            self._give_up()
            if isinstance(error, ElasticPoolNotFound):
                self._end(error)
                return
            pages, at = self._attachment.fetch_map()
        if known is not None and self._attachment.pool != known:
            # Another of the same name: its page numbers say nothing of these.
            self._wanted = {}
            self._lift()
        with self._changed:
            self._wanted, self._at, self._needs_map = pages, at, False

    def _hear(self, event: Event | None) -> None:
        if event is None or event.type.startswith(STREAM):
            self._needs_map = True
            return
        sequence = int(event.id)
        pool = self._attachment.pool
        if sequence <= self._at or pool is None or not is_of(event, pool):
            return
        with self._changed:
            apply(event, self._wanted, self._space.page_size)
            self._at = sequence
            if is_deletion(event):
                self._end(ElasticPoolNotFound("Cannot use the elastic pool: it was deleted"))

    def _end(self, error: TensordError) -> None:
        with self._changed:
            self._wanted = {}
            self._over = error
            self._changed.notify_all()

    def _give_up(self) -> None:
        self._wanted = {}
        self._lift()
        self._attachment.disconnect()
        self._attachment.forget_slot()

    def _settle(self) -> None:
        self._lift()
        if self._attachment.line is not None and self._attachment.pool is not None:
            self._attachment.let_go(self._kept(), self._at)
            self._bring()
        with self._changed:
            self._settled = self._at
            self._changed.notify_all()

    def _kept(self) -> set[int]:
        """The numbers of what this process has, mapped or not: their memory is not free before they are released."""
        space = self._space
        with self._changed:
            pages = [*space.at.values(), *space.stuck, *space.unreleased, *self._in_hand.values()]
            return {page.number for page in pages}

    def _lift(self) -> None:
        """Unmaps what should not be where it is; what is wanted elsewhere stays in hand."""
        with self._changed:
            space = self._space
            space.retry()
            wrong = [index for index, page in space.at.items() if self._wanted.get(index) != page.number]
            if wrong:
                try:
                    self._in_hand.update((page.number, page) for page in space.lift(sorted(wrong)))
                except DriverFailed as error:
                    # It stays, and had by this process, until that works: the server names who keeps it.
                    _log.warning("Cannot unmap pages of an elastic pool, and try again: %s", error)
            wanted = set(self._wanted.values())
            unwanted = [page for number, page in self._in_hand.items() if number not in wanted]
            space.release(unwanted)
            for page in unwanted:
                del self._in_hand[page.number]
            self._failures = {number: error for number, error in self._failures.items() if number in wanted}

    def _bring(self) -> None:
        """Maps what is missing: what is in hand, and what the server hands out."""
        with self._changed:
            missing = missing_of(self._wanted, self._have())
            in_hand = {index: number for index, number in missing.items() if number in self._in_hand}
            self._place({number: (index, self._in_hand.pop(number)) for index, number in in_hand.items()})
        places = {number: index for index, number in missing.items() if number not in in_hand.values()}
        try:
            self._take(places)
        except OutOfDescriptors as error:
            # Some are here, perhaps, and the others are tried again.
            with self._changed:
                have = self._kept()
                self._failures.update((number, error) for number in places if number not in have)
        self._attachment.let_go(self._kept(), self._at)

    def _take(self, places: Mapping[int, int]) -> None:
        for handed, gone in self._attachment.take(places):
            with self._changed:
                for number in gone:
                    # It has left since, and the event that tells it is on its way.
                    self._wanted.pop(places[number], None)
                try:
                    pages, failures = self._space.import_pages(handed)
                except DriverFailed as error:
                    # Without a context nothing was asked.
                    pages, failures = [], {number: error for number, _ in handed}
                self._failures.update(failures)
                brought = {page.number: (places[page.number], page) for page in pages}
                self._place(brought)

    def _place(self, brought: dict[int, tuple[int, Page]]) -> None:
        """Maps pages at their places, all or none; those that cannot be mapped are released, and had no longer."""
        if not brought:
            return
        space = self._space
        placed = sorted(brought.values(), key=lambda each: each[0])
        try:
            blocked = space.blocked.intersection(index for index, _ in placed)
            if blocked:
                raise DriverFailed(f"Cannot map pages at index {min(blocked)}: one that is stuck lies there")
            space.place(placed)
        except DriverFailed as error:
            space.release([page for _, page in placed if page not in space.stuck])
            self._failures.update(dict.fromkeys(brought, error))
        else:
            for number in brought:
                self._failures.pop(number, None)


def quiet(close: Callable[[], object]) -> None:
    """Closes what nobody closed: a failure is nobody's to hear."""
    with contextlib.suppress(TensordError, OSError):
        close()
