"""HTTP over a Unix socket or TCP: one kept connection a thread, patience with a restarting server, safety after a fork.

It moves JSON and repeats what may be repeated. What an answer means is decided in ``_api.py``.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tensord._collector import make_uncollected
from tensord._errors import (
    AccessDenied,
    Closed,
    ServerFault,
    ServerUnavailable,
    TensordError,
    refuse_without_descriptor,
)

from .connection import Answer, Connection, TooLong
from .endpoint import Endpoint, how_to_reach
from .long_answer import LongAnswer

ANSWER_SECONDS = 30.0
MAX_WAIT_SECONDS = 300
MAX_ANSWER_BYTES = 256 << 20
DOWNLOAD_PIECE_BYTES = 1 << 20
# Of an answer, of each object in it: a tensor in a region's takes 150, and is two.
OBJECT_BYTES = 75
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.25


# Kept: json.dumps makes one for each call that has options.
_to_json = json.JSONEncoder(allow_nan=False).encode
# Without json.loads, which first finds out in which encoding bytes are.
_from_json = json.JSONDecoder().decode


@dataclass(slots=True)
class Reply:
    """An answer. ``repeated``: an earlier copy of the request was lost, and may have had its effect."""

    status: int
    body: Any
    repeated: bool


class Download:
    """Where the bytes of an answer go: to ``write``, in order, each piece with its offset. There are ``byte_size``."""

    def __init__(self, byte_size: int, write: Callable[[int, memoryview], None]) -> None:
        self._byte_size = byte_size
        self._write = write

    def take(self, response: http.client.HTTPResponse) -> None:
        """Reads all of them. Raises ``IncompleteRead`` if there are fewer, or more; ``OSError``."""
        piece = memoryview(bytearray(DOWNLOAD_PIECE_BYTES))
        at = 0
        while count := response.readinto(piece):
            self._write(at, piece[:count])
            at += count
        if at != self._byte_size:
            raise http.client.IncompleteRead(b"", self._byte_size - at)


class _Presence:
    """Whether the server has ever taken a connection of this client."""

    seen = False


class _Issued:
    """The token that the server's broker issued with a session, for who has none of its own."""

    text: str | None = None


class Transport:
    """Requests to one server. Thread-safe. ``retry_seconds`` bounds how long a server that was there may be away."""

    def __init__(self, endpoint: Endpoint, retry_seconds: float) -> None:
        self.endpoint = endpoint
        self._retry_seconds = retry_seconds
        self._presence = _Presence()
        self._issued = _Issued()
        # Gets another token than the one that was refused, if it can: see ``Hold``.
        self.renew_token: Callable[[str | None], bool] | None = None
        self._closed = False
        self._forget()

    def beside(self, retry_seconds: float) -> Transport:
        """Another one to the same server. Where either was answered, both know that the server was there."""
        other = Transport(self.endpoint, retry_seconds)
        other._presence = self._presence
        other._issued = self._issued
        return other

    @property
    def issued_token(self) -> str | None:
        """The token that came with a session, if one did. Shared with those ``beside``."""
        return self._issued.text

    @issued_token.setter
    def issued_token(self, text: str | None) -> None:
        self._issued.text = text

    def credentials(self) -> dict[str, str]:
        """The member of the broker's ``hello`` that says who asks. A token that was issued says nothing there."""
        token = self.endpoint.token
        return {} if token is None else {"token": token.read()}

    def authorization(self) -> dict[str, str]:
        """The header that says who asks. Raises ``ValidationFailed`` if the token's file has none."""
        if self.endpoint.token is None and self._issued.text is not None:
            return {"Authorization": f"Bearer {self._issued.text}"}
        return self.endpoint.authorization()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        repeatable: bool,
        wait_until: float | None = None,
        if_match: int | None = None,
        prefer: str | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        patient: bool = True,
        into: Download | None = None,
    ) -> Reply:
        """Sends one request and returns its answer, whatever its status. ``body`` is sent as JSON, or, if it is bytes,
        as they are; those of a success go to ``into``, where it is there, and not into the answer.

        ``repeatable`` says that it may be sent again after an answer was lost; one that was refused, or never sent,
        always is. ``wait_until``, of ``time.monotonic()``, asks the server to hold its answer back until then
        (``Prefer: wait``), ``prefer`` is what else the server should know, ``if_match`` to change only what has this
        revision. Without ``patient`` a server that is
        away is not waited for. Raises ``ServerUnavailable``,
        ``AccessDenied``, ``Closed``, ``ServerFault``, ``OutOfDescriptors`` if this process has none.
        """
        is_data = isinstance(body, memoryview)
        payload = body if body is None or is_data else _to_json(body).encode()
        kind = "application/octet-stream" if is_data else "application/json"
        headers = {} if payload is None else {"Content-Type": kind}
        headers.update({} if if_match is None else {"If-Match": f'"{if_match}"'})
        if prefer is not None:
            headers["Prefer"] = prefer
        repeated, pause, give_up_at = False, FIRST_PAUSE_SECONDS, math.inf
        renewed = False
        while True:
            failure: Exception | None = None
            token = self._issued.text
            try:
                status, answer = self._exchange(method, path, payload, headers, wait_until, answer_seconds, into)
            except _NotSent as error:
                failure, may_repeat = error, self._presence.seen
            except _AnswerLost as error:
                failure, may_repeat = error, repeatable and not isinstance(error.__cause__, TimeoutError)
                repeated = True
                # It had taken the connection.
                self._presence.seen = True
            else:
                self._presence.seen = True
                if status == 401 and not renewed and self.renew_token is not None:
                    renewed = True
                    if self.renew_token(token):
                        continue
                if not _is_passing(status, answer):
                    return Reply(status, answer, repeated)
                may_repeat = True
                pause = max(pause, _seconds_to_wait(answer))
            now = time.monotonic()
            give_up_at = min(give_up_at, now + (self._retry_seconds if patient else 0.0))
            if not may_repeat or now + pause > give_up_at:
                if failure is None:
                    return Reply(status, answer, repeated)
                raise self._unavailable(failure, lost=repeated and not repeatable) from failure.__cause__
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    @property
    def patience_seconds(self) -> float:
        """How long to go on asking where nobody answers: a server that never was there is not waited for."""
        return self._retry_seconds if self._presence.seen else 0.0

    def open_long(self, path: str, headers: Mapping[str, str], silence_seconds: float) -> LongAnswer:
        """Sends a GET, once and over a connection of its own, and returns its answer before any of it has come.

        Its reads break off when nothing comes for ``silence_seconds``. Raises ``ServerUnavailable``, ``AccessDenied``,
        ``Closed``.
        """
        try:
            connection = self._connect()
            sock = connection.sock
            connection.expect_within(silence_seconds)
            connection.request("GET", path, headers={**headers, **self.authorization()})
        except (_NotSent, OSError) as error:
            if isinstance(error, TensordError):
                raise
            raise self._unavailable(error, lost=False) from error
        self._presence.seen = True
        # The answer's from now on.
        connection.sock = None
        answer = LongAnswer(sock)
        self._long_answers.add(answer)
        return answer

    def close(self) -> None:
        """Closes every connection. A request afterwards raises ``Closed``."""
        self._closed = True
        if self._pid == os.getpid():
            for connection in list(self._connections):
                connection.close()
            for answer in list(self._long_answers):
                answer.interrupt()
        self._forget()

    def _forget(self) -> None:
        # Also after a fork: the parent's sockets are not ours to speak on, and closing our copy does not disturb it.
        self._pid = os.getpid()
        self._kept = threading.local()
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._long_answers: weakref.WeakSet[LongAnswer] = weakref.WeakSet()

    def _exchange(
        self,
        method: str,
        path: str,
        payload: bytes | memoryview | None,
        given: Mapping[str, str],
        wait_until: float | None,
        answer_seconds: float,
        into: Download | None,
    ) -> tuple[int, Any]:
        connection = self._connection()
        headers = {"Accept": "application/json", **given, **self.authorization()}
        if wait_until is not None:
            # Whole seconds, rounded down: the caller asks again, and without a wait in the last one.
            wait = math.floor(min(MAX_WAIT_SECONDS, wait_until - time.monotonic()))
            if wait > 0:
                headers["Prefer"] = ", ".join([f"wait={wait}", *([given["Prefer"]] if "Prefer" in given else [])])
                answer_seconds += wait
        complete = False
        try:
            connection.expect_within(answer_seconds)
            answer = connection.ask(
                method, path, payload, headers, MAX_ANSWER_BYTES, None if into is None else into.take
            )
            complete = True
        except TooLong as error:
            raise ServerFault(f"Cannot read the server's answer: it has more than {MAX_ANSWER_BYTES} bytes") from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, TensordError):
                # Of who takes the bytes, which have no place here.
                raise
            raise _AnswerLost(str(error) or type(error).__name__) from error
        finally:
            # An interrupt between request and answer leaves a connection on which the next answer is not ours.
            if not complete:
                connection.close()
        connection.used_at = time.monotonic()
        return answer.status, _parse_body(answer)

    def _connection(self) -> Connection:
        if self._pid != os.getpid():
            self._forget()
        connection: Connection | None = getattr(self._kept, "connection", None)
        if connection is not None and connection.is_fresh():
            return connection
        if connection is not None:
            connection.close()
        self._kept.connection = connection = self._connect()
        return connection

    def _connect(self) -> Connection:
        if self._closed:
            raise Closed("Cannot ask the server: the client was closed", hint="connect again")
        if self._pid != os.getpid():
            self._forget()
        connection = Connection(self.endpoint)
        try:
            connection.connect()
        except PermissionError as error:
            raise AccessDenied(
                f"Cannot connect to {self.endpoint.url}: {error.strerror} for uid {os.geteuid()}, gid {os.getegid()}",
                hint="run this process in the server's group (Kubernetes: the same fsGroup; docker: group_add)",
            ) from error
        except OSError as error:
            refuse_without_descriptor(error, f"connect to {self.endpoint.url}")
            # So many wait to be taken that a Unix socket lets nobody else wait: somebody listens.
            self._presence.seen = self._presence.seen or isinstance(error, BlockingIOError)
            raise _NotSent(error.strerror or str(error)) from error
        self._connections.add(connection)
        return connection

    def _unavailable(self, failure: Exception, *, lost: bool) -> ServerUnavailable:
        hint = how_to_reach()
        if isinstance(failure, _NotSent):
            detail = f"Cannot reach tensord: nobody listens on {self.endpoint.url} ({failure}); {self.endpoint.origin}"
        else:
            detail = f"Cannot get an answer from tensord on {self.endpoint.url}: {failure}"
            if lost:
                hint = "whether it had its effect is not known: look (client.get, client.list) before repeating it"
        return ServerUnavailable(detail, hint=hint, fields={"request_sent": not isinstance(failure, _NotSent)})


class _NotSent(Exception):
    """No connection: the server has not seen the request."""


class _AnswerLost(Exception):
    """The connection broke: the server may have seen the request, and may have done what it asks."""


def _parse_body(answer: Answer) -> Any:
    if "json" not in answer.content_type:
        return None
    try:
        return make_uncollected(len(answer.content) // OBJECT_BYTES, lambda: _from_json(answer.content.decode()))
    except (ValueError, RecursionError) as error:
        raise ServerFault(f"Cannot read the server's answer: it is no JSON ({error})") from error


_PASSING = frozenset({"shutting-down", "not-ready", "out-of-descriptors"})


def _is_passing(status: int, body: Any) -> bool:
    """Whether the server refuses for a moment only: it goes, has no descriptor just now, waits for a device's driver
    itself, or is asked too often and says when to come again."""
    if status == 429:
        return _seconds_to_wait(body) > 0
    return status in (503, 507) and isinstance(body, dict) and body.get("code") in _PASSING


def _seconds_to_wait(body: Any) -> float:
    """After how long the server wants to be asked again, if it says so."""
    seconds = body.get("retry_after_seconds") if isinstance(body, dict) else None
    return float(seconds) if isinstance(seconds, int) else 0.0
