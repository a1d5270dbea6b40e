"""A server that answers what a test tells it to, and can break off wherever a test wants it to."""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import termios
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import DEADLINE_SECONDS, wait_for

Answer = tuple[int, Any] | bytes | None


@dataclass
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: int


@dataclass
class FakeServer:
    """Answers each request with ``answer(request)``: a status and JSON, raw bytes, or ``None`` to hang up."""

    path: Path
    answer: Callable[[Request], Answer]
    requests: list[Request] = field(default_factory=list)
    keep_alive: bool = True
    # So many bytes of an answer come first, and the rest once they were taken.
    cut: int | None = None

    def __enter__(self) -> FakeServer:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(DEADLINE_SECONDS)

    def hang_up(self) -> None:
        """Ends every connection, as a server does with idle ones."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    @property
    def connections(self) -> int:
        return len(self._sockets)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, len(self._sockets)))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with sock, sock.makefile("rb") as stream:
            try:
                while (request := _read(stream, number)) is not None:
                    self.requests.append(request)
                    answer = self.answer(request)
                    if answer is None:
                        return
                    data = answer if isinstance(answer, bytes) else _format(*answer)
                    if self.cut is not None:
                        sock.sendall(data[: self.cut])
                        _wait_until_taken(sock)
                        data = data[self.cut :]
                    sock.sendall(data)
                    if not self.keep_alive:
                        return
            except OSError:
                return


def _wait_until_taken(sock: socket.socket) -> None:
    def is_taken() -> bool:
        return fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)) == bytes(4)

    wait_for(is_taken, "the client has taken what was sent")


def _read(stream: Any, number: int) -> Request | None:
    first = stream.readline().decode()
    if not first:
        return None
    method, path, _ = first.split(" ")
    headers: dict[str, str] = {}
    while line := stream.readline().decode().strip():
        key, _, value = line.partition(":")
        headers[key.lower()] = value.strip()
    content = stream.read(int(headers.get("content-length", 0)))
    return Request(method, path, headers, json.loads(content) if content else None, number)


def _format(status: int, body: Any) -> bytes:
    content = json.dumps(body).encode()
    kind = "application/json" if status < 400 else "application/problem+json"
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content
