"""The connection to the broker that holds a session, in the WebSocket's place. It attaches nothing: that would be
reported twice.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from tensord._errors import ServerFault, ServerUnavailable, SessionNotFound, TensordError
from tensord._transport.broker import MAX_FRAME_BYTES, VERSION, to_error

from .holding import Report

# Of one message.
MAX_REPORTS = 256


class BrokerHold:
    """Says hello over ``sock``, which is its own from now on, and asks for a session to be held: the one of that id, or
    a new one, as ``POST /v1/sessions`` takes it.
    """

    # Every broker does.
    tells_makers = True
    # Whoever is refused is told why, in ``failure``.
    is_unfit = False

    def __init__(self, sock: socket.socket, session: str | Mapping[str, Any], credentials: Mapping[str, str]) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self.session_id = session if isinstance(session, str) else None
        # What to send over HTTP until the session ends, for who has no token.
        self.access_token: str | None = None
        # Why the server does not hold it.
        self.failure: TensordError | None = None
        self._is_greeted = False
        self._broken = False
        self._ids = itertools.count(2)
        self._unsent: deque[dict[str, Any]] = deque(
            [{"id": 1, "op": "hello", "v": VERSION, "session": session, **credentials}]
        )
        self._write()

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def is_open(self) -> bool:
        return self._is_greeted and not self.is_over

    @property
    def is_over(self) -> bool:
        return self._broken or self.failure is not None

    @property
    def is_refused(self) -> bool:
        return isinstance(self.failure, SessionNotFound)

    @property
    def has_unsent(self) -> bool:
        return len(self._unsent) > 0

    def send(self, reports: Iterable[Report]) -> None:
        """Many reports are one message."""
        rest = iter(reports)
        while part := list(itertools.islice(rest, MAX_REPORTS)):
            self._unsent.append({"id": next(self._ids), "op": "report", "reports": part})
        self._write()

    def move(self) -> None:
        while not self._broken:
            try:
                frame = self._sock.recv(MAX_FRAME_BYTES)
            except BlockingIOError:
                break
            except OSError:
                frame = b""
            if not frame:
                self._broken = True
                break
            self._read(frame)
        self._write()

    def wait_open(self, seconds: float) -> None:
        """Waits until the server holds the session. Raises what the server says, ``ServerUnavailable``."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while not self.is_open:
            if self.failure is not None:
                raise self.failure
            left = deadline - time.monotonic()
            if self._broken or left <= 0:
                why = "it closed the connection" if self._broken else f"it did not answer within {seconds:g} s"
                raise ServerUnavailable(f"Cannot open a session at the broker: {why}", hint="is the server running?")
            poll.poll(left * 1000)
            self.move()

    def close(self) -> None:
        self._sock.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _read(self, frame: bytes) -> None:
        try:
            reply = json.loads(frame)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            self.failure = ServerFault("Cannot hold a session: the broker's answer is none of this protocol")
        elif reply.get("id") == 1:
            self._read_hello(reply)
        elif reply.get("id") is None:
            # The last word before it closes.
            self._broken = True
        # What a report is refused with passes, as when the server goes: all is told anew on the next connection.

    def _read_hello(self, reply: Mapping[str, Any]) -> None:
        session = reply.get("session")
        if reply.get("ok") is not True:
            self.failure = to_error(reply)
        elif isinstance(session, dict):
            self.session_id = str(session.get("id"))
            token = reply.get("access_token")
            self.access_token = token if isinstance(token, str) else None
            self._is_greeted = True
        else:
            self.failure = ServerFault("Cannot hold a session: the broker's answer names none")

    def _write(self) -> None:
        # What is told before the hello is taken would be refused.
        try:
            while self._unsent and not self._broken and (self._is_greeted or self._unsent[0]["id"] == 1):
                self._sock.send(json.dumps(self._unsent[0]).encode(), socket.MSG_NOSIGNAL)
                self._unsent.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._broken = True
