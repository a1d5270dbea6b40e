"""One HTTP connection to an endpoint, over a Unix socket or TCP. It repeats nothing and knows no routes."""

from __future__ import annotations

import codecs
import contextlib
import http.client
import select
import socket
import time

from .endpoint import Endpoint

CONNECT_SECONDS = 5.0
# Younger than the idle timeout of any server: it will not close such a connection while a request is under way.
KEEP_SECONDS = 4.0
# Names of hosts are encoded so. Loaded while it can be, as in `_session/program.py`.
codecs.lookup("idna")


class Connection(http.client.HTTPConnection):
    """A connection, closed with its thread or its client, whichever ends first."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint.host, endpoint.port, timeout=CONNECT_SECONDS)
        # Reconnecting is the transport's decision: it knows what may be sent twice.
        self.auto_open = 0
        self._path = endpoint.path
        self.used_at = time.monotonic()

    def connect(self) -> None:
        if self._path is None:
            super().connect()
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT_SECONDS)
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        self.sock = sock

    def expect_within(self, seconds: float) -> None:
        if self.sock is not None:
            self.sock.settimeout(seconds)

    def is_fresh(self) -> bool:
        """Whether it can carry a request: open, young, and with nothing to read, which would be the server's end."""
        if self.sock is None or time.monotonic() - self.used_at > KEEP_SECONDS:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)

    def __del__(self) -> None:
        # Threads end without closing; the socket's own finalizer would warn.
        with contextlib.suppress(Exception):
            self.close()
