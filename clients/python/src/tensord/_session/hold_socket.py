"""The WebSocket that holds a session, never waited for: reading and writing take what goes without a wait.

``websockets`` does the protocol, we do the socket: one descriptor, which can be waited for beside others, and which a
forked child can close without a word. Nothing here closes it because of a slow server: to the server that would be the
worker's death.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterable

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHeader, InvalidStatus, InvalidUpgrade
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from tensord._transport.connection import Connection
from tensord._transport.endpoint import Endpoint

from .holding import Report

READ_BYTES = 64 << 10
# The server says nothing but control frames.
MAX_MESSAGE_BYTES = 4096
# Of what lets no WebSocket through: a proxy, or the server, to which the proxy did not pass the upgrade on.
UNFIT_STATUSES = frozenset({400, 405, 426, 501})


class HoldSocket:
    """Connects, and asks for the session to be held. Raises ``OSError`` if nobody listens."""

    def __init__(self, endpoint: Endpoint, session_id: str) -> None:
        connection = Connection(endpoint)
        connection.connect()
        # The connection would close it; from now on it is ours.
        self._sock: socket.socket = connection.sock
        connection.sock = None
        self._sock.setblocking(False)
        # On a Unix socket the host says nothing, but the handshake wants one.
        origin = "localhost" if endpoint.path is not None else endpoint.url.removeprefix("http://")
        uri = parse_uri(f"ws://{origin}/v1/sessions/{session_id}/hold")
        self._protocol = ClientProtocol(uri, max_size=MAX_MESSAGE_BYTES)
        self._unsent = b""
        self._broken = False
        # Whether the server tells makers from consumers. One from before there was a maker's byte closes on such words.
        self.tells_makers = False
        handshake = self._protocol.connect()
        handshake.headers.update(endpoint.authorization())
        self._protocol.send_request(handshake)
        self._write()

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def is_open(self) -> bool:
        """Whether the server holds the session by this socket."""
        return self._protocol.state is State.OPEN and not self.is_over

    @property
    def is_over(self) -> bool:
        """Whether it was refused, or the server has closed it."""
        closing = self._protocol.state in (State.CLOSING, State.CLOSED)
        return self._broken or closing or self._protocol.handshake_exc is not None

    @property
    def is_refused(self) -> bool:
        """Whether the server knows no such session."""
        failure = self._protocol.handshake_exc
        return isinstance(failure, InvalidStatus) and failure.response.status_code == 404

    @property
    def is_unfit(self) -> bool:
        """Whether no WebSocket comes through to the server."""
        failure = self._protocol.handshake_exc
        if isinstance(failure, InvalidStatus):
            return failure.response.status_code in UNFIT_STATUSES
        return isinstance(failure, (InvalidHeader, InvalidUpgrade))

    @property
    def has_unsent(self) -> bool:
        """Whether the server does not read: to be waited for before more is sent."""
        return self._unsent != b""

    def send(self, reports: Iterable[Report]) -> None:
        """Sends each as a JSON message, or keeps it until ``move``."""
        for report in reports:
            self._protocol.send_text(json.dumps(report).encode())
        self._write()

    def move(self) -> None:
        """Reads what has come and writes what goes."""
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            pass
        except OSError:
            self._broken = True
        else:
            if data:
                self._protocol.receive_data(data)
                for event in self._protocol.events_received():
                    if isinstance(event, Response):
                        self.tells_makers = "maker" in event.headers.get("Tensord-Reports", "")
            else:
                self._protocol.receive_eof()
                self._broken = True
        self._write()

    def close(self) -> None:
        """Closes this process's copy of the socket, without a close frame: a forked child shares it with its parent."""
        self._sock.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _write(self) -> None:
        # The empty piece that may be among them stands for the end of our half, which `close` brings.
        self._unsent += b"".join(self._protocol.data_to_send())
        try:
            while self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._broken = True
