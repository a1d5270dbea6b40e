"""An answer without an end: read as it comes, broken off from another thread, safe after a fork.

What the bytes mean, and what follows an end, is decided by its reader.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket

PIECE_BYTES = 64 << 10
MAX_REFUSAL_BYTES = 1 << 20


class LongAnswer:
    """The answer to a request that was just sent over ``sock``, which it owns. One thread reads, any may interrupt.

    Every read raises ``OSError`` or ``http.client.HTTPException`` if the connection breaks, or says nothing for the
    socket's timeout.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._response = http.client.HTTPResponse(sock, method="GET")
        self._pid = os.getpid()

    def begin(self) -> None:
        """Waits for status and headers."""
        self._response.begin()

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def content_type(self) -> str:
        return self._response.headers.get_content_type()

    def read(self) -> bytes:
        """What came since the last read, at least a byte of it, or nothing at the answer's end."""
        return self._response.read1(PIECE_BYTES)

    def read_whole(self) -> bytes:
        """The body of an answer that is not long after all, up to a bound."""
        return self._response.read(MAX_REFUSAL_BYTES)

    def interrupt(self) -> None:
        """Ends the connection, and with it a read that waits in another thread. Not in a forked child: it is one."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Lets go of the connection. Only where no thread of this process reads it."""
        if os.getpid() == self._pid:
            self._response.close()
            self._sock.close()
            return
        # A fork copies the lock of a reader that waits in the parent, and not the reader: closing the response would
        # wait for it forever. Our copy of the descriptor is all that needs to go.
        with contextlib.suppress(OSError):
            os.close(self._sock.detach())
