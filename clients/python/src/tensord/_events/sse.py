"""Server-Sent Events as far as this protocol uses them: bytes in, the ``data`` of complete blocks out.

What an id says stands in the data as well, and the server names no event types, so every other field is passed over.
Nothing here connects or knows what the data means.

Our own, since no package has what matters here: a bound on what a stream may make this process keep; bytes cut
anywhere, also within a character; and no HTTP library behind it. As of November 2026 httpx-sse imports httpx, and
launchdarkly-eventsource urllib3; sseclient-py and assel have no bound, and all of assel's parsers share one decoder, so
that a connection that ends within a character spoils the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tensord._errors import ServerFault

# An event carries a region's facts without its tensors: some kilobytes.
MAX_BLOCK_BYTES = 1 << 20

_LINE_END = re.compile(rb"\r\n|\n|\r")


class SseParser:
    """Parses one connection's bytes, however they were cut. A block that the connection's end cut is never given out.

    Raises ``ServerFault`` for a line, or a block, that is longer than any event.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._ended_in_cr = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of each block that ``chunk`` completes."""
        for line in self._lines(chunk):
            if line:
                self._take(line)
            elif self._data:
                yield b"\n".join(self._data)
                self._data, self._data_bytes = [], 0

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        if not chunk:
            return
        if self._ended_in_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._ended_in_cr = chunk.endswith(b"\r")
        *lines, rest = _LINE_END.split(chunk)
        for line in lines:
            yield bytes(self._rest) + line
            self._rest.clear()
        self._rest += rest
        _check_bytes(len(self._rest))

    def _take(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        if field != b"data":
            return
        self._data.append(value.removeprefix(b" "))
        # The line's end counts: empty lines of data take memory too.
        self._data_bytes += len(line) + 1
        _check_bytes(self._data_bytes)


def _check_bytes(count: int) -> None:
    if count > MAX_BLOCK_BYTES:
        raise ServerFault(
            f"Cannot follow the events: one has more than {MAX_BLOCK_BYTES} bytes", hint="is this a tensord server?"
        )
