"""One HTTP connection to an endpoint, over a Unix socket or TCP. It repeats nothing and knows no routes.

Over a Unix socket a request is one write, and an answer of the plain form, as the server's are that are not streamed,
is read without the library, which takes as long for it as the exchange itself. Whatever is not of that form the library
reads; so it does over TCP, where there may be proxies.
"""

from __future__ import annotations

import codecs
import contextlib
import http.client
import re
import select
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .endpoint import Endpoint

CONNECT_SECONDS = 5.0
# Younger than the idle timeout of any server: it will not close such a connection while a request is under way.
KEEP_SECONDS = 4.0
# What an answer's head, and a small answer with it, has room in.
LOOK_BYTES = 64 << 10
# Names of hosts are encoded so. Loaded while it can be, as in `_session/program.py`.
codecs.lookup("idna")

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])[^\r\n]*(?:\r\n|\Z)")
# What of the lines after it says where the answer ends and what it is, and the second half of a line of two.
_FACTS = re.compile(
    rb"\r\n(?:(content-length|content-type|transfer-encoding|connection):(.*?)(?=\r\n|\Z)|[ \t])",
    re.IGNORECASE | re.DOTALL,
)
_DIGITS = re.compile(rb"[0-9]{1,15}\Z")
# Of what stands in a request's head: nothing ends a line, or a part of the first one.
_TARGET = re.compile(r"[!-~]+")
_VALUE = re.compile(r"[ -~]*")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
# How many heads a connection remembers: the same are sent again and again, and one takes as long to write as to send.
MAX_HEADS = 64
# Of these an answer has no body, whatever its head says.
_WITHOUT_BODY = frozenset({204, 304})


@dataclass(slots=True)
class Answer:
    """A whole answer. ``content_type`` is without its parameters."""

    status: int
    content_type: str
    content: bytes


class TooLong(http.client.HTTPException):
    """An answer has more bytes than whoever asked wants."""


class Connection(http.client.HTTPConnection):
    """A connection, closed with its thread or its client, whichever ends first."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint.host, endpoint.port, timeout=CONNECT_SECONDS)
        # Reconnecting is the transport's decision: it knows what may be sent twice.
        self.auto_open = 0
        self._path = endpoint.path
        self._poll: select.poll | None = None
        self._heads: dict[tuple[object, ...], bytes] = {}
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
        if self.sock is not None and self.sock.gettimeout() != seconds:
            self.sock.settimeout(seconds)

    def is_fresh(self) -> bool:
        """Whether it can carry a request: open, young, and with nothing to read, which would be the server's end."""
        if self.sock is None or time.monotonic() - self.used_at > KEEP_SECONDS:
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.sock, select.POLLIN)
        return not self._poll.poll(0)

    def ask(
        self,
        method: str,
        path: str,
        payload: bytes | memoryview | None,
        headers: Mapping[str, str],
        max_bytes: int,
        take: Callable[[http.client.HTTPResponse], None] | None = None,
    ) -> Answer:
        """Sends a request and reads its whole answer, of at most so many bytes; those of a success go to ``take``,
        where it is there, and not into the answer. Raises ``TooLong``, ``OSError``, ``HTTPException``, and what
        ``take`` raises; the connection has to be closed then.
        """
        head = None if take is not None else self._head(method, path, payload, headers)
        if head is None:
            self.request(method, path, payload, headers)
        else:
            self.sock.sendall(head + (payload or b""))
            answer = self._read_plain(method, max_bytes)
            if answer is not None:
                return answer
        response = self.getresponse() if head is None else http.client.HTTPResponse(self.sock, method=method)
        try:
            if head is not None:
                response.begin()
            if take is None or response.status != 200:
                content = _read_whole(response, max_bytes)
            else:
                take(response)
                content = b""
            if response.will_close or not response.isclosed():
                self.close()
        finally:
            # It has the socket too.
            response.close()
        return Answer(response.status, response.headers.get_content_type() if response.headers else "", content)

    def _head(
        self, method: str, path: str, payload: bytes | memoryview | None, headers: Mapping[str, str]
    ) -> bytes | None:
        """A request's head, or nothing where the library shall write it, and say what is wrong with it."""
        if self._path is None or self.sock is None or isinstance(payload, memoryview):
            return None
        key = method, path, None if payload is None else len(payload), *headers.items()
        head = self._heads.get(key)
        if head is None:
            head = self._write_head(method, path, payload, headers)
            if head is not None:
                if len(self._heads) >= MAX_HEADS:
                    self._heads.clear()
                self._heads[key] = head
        return head

    def _write_head(self, method: str, path: str, payload: bytes | None, headers: Mapping[str, str]) -> bytes | None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", "Accept-Encoding: identity"]
        if payload is not None or method in _WITH_BODY:
            lines.append(f"Content-Length: {0 if payload is None else len(payload)}")
        lines.extend(f"{name}: {value}" for name, value in headers.items())
        if _TARGET.fullmatch(path) is None or not all(map(_VALUE.fullmatch, headers.values())):
            return None
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _read_plain(self, method: str, max_bytes: int) -> Answer | None:
        """Reads an answer whose head has come at once and says its length; of another one nothing is taken."""
        seen = self.sock.recv(LOOK_BYTES, socket.MSG_PEEK)
        head, end, body = seen.partition(b"\r\n\r\n")
        status = _STATUS_LINE.match(head)
        if not end or status is None:
            return None
        length, content_type = b"", b""
        for name, value in _FACTS.findall(head):
            kind = name.lower()
            if kind == b"content-length" and not length:
                length = value.strip()
            elif kind == b"content-type":
                content_type = value
            else:
                # Chunks, an end, two lengths, a line of two.
                return None
        code = int(status[1])
        if _DIGITS.match(length) is None or code in _WITHOUT_BODY or method == "HEAD":
            return None
        size = int(length)
        if size > max_bytes:
            raise TooLong(f"an answer of {size} bytes")
        media_type = content_type.partition(b";")[0].strip().lower().decode("latin-1")
        start = len(head) + len(end)
        if len(body) >= size:
            _take(self.sock, memoryview(bytearray(start + size)))
            return Answer(code, media_type, body[:size])
        _take(self.sock, memoryview(bytearray(start)))
        content = bytearray(size)
        _take(self.sock, memoryview(content))
        return Answer(code, media_type, bytes(content))

    def close(self) -> None:
        self._poll = None
        super().close()

    def __del__(self) -> None:
        # Threads end without closing; the socket's own finalizer would warn.
        with contextlib.suppress(Exception):
            self.close()


def _read_whole(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    content = response.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise TooLong(f"an answer of more than {max_bytes} bytes")
    if not response.isclosed():
        # Asked for an upper bound, http.client takes an early end for all there is.
        raise http.client.IncompleteRead(content)
    return content


def _take(sock: socket.socket, room: memoryview) -> None:
    """Fills ``room`` with what comes. Raises ``IncompleteRead`` if that ends before."""
    while room:
        count = sock.recv_into(room)
        if count == 0:
            raise http.client.IncompleteRead(b"", len(room))
        room = room[count:]
