"""Following the server's events: one connection after another, each resumed where the last one broke off."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from urllib.parse import urlencode

from tensord._api import expect
from tensord._errors import AccessDenied, OutOfDescriptors, ServerFault, ServerUnavailable, TensordError
from tensord._transport.long_answer import LongAnswer
from tensord._transport.transport import Reply, Transport

from .event import OPENED, Event, parse_event
from .sse import SseParser

# The server sends a comment every 15 s, so a connection that is silent for this long is dead.
SILENCE_SECONDS = 45.0
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0


class EventStream:
    """The server's events as they happen; ``Client.events`` makes it. An iterator, and a context manager.

    It waits for the next event, and goes on by itself through cut connections and restarts of the server: nothing
    twice, and nothing left out but what the server no longer has, which it yields as a ``tensord.stream.gap``. One
    thread iterates; any may ``close``. A forked child that goes on iterating gets a connection of its own, and the same
    events as its parent. An error ends the stream.
    """

    def __init__(self, transport: Transport, query: Mapping[str, str], *, reconnect: bool) -> None:
        self._transport = transport
        self._path = f"/v1/events?{urlencode(query)}"
        self._reconnect = reconnect
        self._answer: LongAnswer | None = None
        self._after: str | None = None
        self._closed = False
        self._pause = FIRST_PAUSE_SECONDS
        self._renew()
        # The server's word on where the stream stands: from here on nothing is missed.
        first = self._next_or_end()
        if first is not None and first.type != OPENED:
            self.close()
            raise ServerFault(f"Cannot follow the events: the stream begins with {first.type!r}, want {OPENED!r}")

    @property
    def after(self) -> str:
        """Where the stream stands, behind the last event that was given out: ``events(after=…)`` goes on there."""
        return self._after or ""

    def close(self) -> None:
        """Ends the stream, and an iteration that waits in another thread. Safe to call twice."""
        self._closed = True
        if self._pid != os.getpid():
            self._renew()
        self._wake.set()
        answer = self._answer
        if answer is not None:
            answer.interrupt()
        # Whoever reads it lets go of it; if nobody does, we do.
        if self._turn.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._turn.release()

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> Event:
        event = self._next_or_end()
        while event is not None and event.type == OPENED:
            event = self._next_or_end()
        if event is None:
            raise StopIteration
        # Not before: a server that says where the stream stands and ends it is not asked without a pause.
        self._pause = FIRST_PAUSE_SECONDS
        return event

    def __enter__(self) -> EventStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def __repr__(self) -> str:
        return f"<tensord.EventStream {self._transport.endpoint.url} after {self._after}>"

    def _renew(self) -> None:
        # At the start, and in a forked child: its parent's locks may be held by threads that it does not have, and what
        # comes over its parent's connection is for the parent.
        self._pid = os.getpid()
        self._turn = threading.Lock()
        self._wake = threading.Event()
        self._drop()

    def _drop(self) -> None:
        # What came and was not given out comes again: the next connection goes on after `_after`.
        self._frames: deque[bytes] = deque()
        self._parser = SseParser()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def _next_or_end(self) -> Event | None:
        """The next event of any type, or ``None`` once the stream is closed."""
        if self._pid != os.getpid():
            self._renew()
        with self._turn:
            try:
                frame = self._next_frame()
                if frame is not None:
                    event, position = parse_event(frame)
                    self._after = position or self._after
                    return event
            except BaseException as error:
                # An interrupt may have lost bytes on their way, but nothing for good: the next call goes on.
                self._closed = self._closed or isinstance(error, Exception)
                self._drop()
                raise
            self._drop()
            return None

    def _next_frame(self) -> bytes | None:
        started = time.monotonic()
        while not self._closed:
            if self._frames:
                return self._frames.popleft()
            try:
                if self._answer is None:
                    self._open()
                else:
                    self._read(self._answer)
                continue
            except AccessDenied:
                raise
            except (OSError, http.client.HTTPException) as error:
                # Of the server's descriptors some become free; of this process's, by nobody's doing but its own.
                if isinstance(error, OutOfDescriptors) and error.status is None:
                    raise
                self._drop()
                if time.monotonic() + self._pause - started > self._patience() and not self._closed:
                    raise self._to_failure(error) from error
            self._wake.wait(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        return None

    def _patience(self) -> float:
        """For how long to try again: at the beginning as any call does, later without an end, or not at all."""
        if self._after is None:
            return self._transport.patience_seconds
        return math.inf if self._reconnect else 0.0

    def _open(self) -> None:
        headers = {"Accept": "text/event-stream"}
        if self._after is not None:
            headers["Last-Event-ID"] = self._after
        self._answer = answer = self._transport.open_long(self._path, headers, SILENCE_SECONDS)
        if self._closed:
            # `close` may have come too early to see it.
            return
        answer.begin()
        if answer.status == 200 and answer.content_type == "text/event-stream":
            return
        content = answer.read_whole()
        expect(Reply(answer.status, _parse_problem(content), repeated=False))
        # To http.client a head that was cut is a whole one, and nothing follows it.
        if not content:
            raise ConnectionError("the connection broke in the answer's head")
        raise ServerFault(
            f"Cannot follow the events of {self._transport.endpoint.url}: the answer is {answer.content_type}, "
            "want text/event-stream",
            hint="is this a tensord server?",
        )

    def _read(self, answer: LongAnswer) -> None:
        piece = answer.read()
        if not piece:
            raise ConnectionError("the server ended the stream")
        self._frames.extend(self._parser.feed(piece))

    def _to_failure(self, error: Exception) -> TensordError:
        if isinstance(error, TensordError):
            return error
        hint = None if self._after is None else f"go on with events(after={self._after!r})"
        return ServerUnavailable(
            f"Cannot follow the events of {self._transport.endpoint.url}: {error or type(error).__name__}", hint=hint
        )


def _parse_problem(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
