"""A worker's attachment to an elastic pool of a server, over a broker connection of its own: frames, descriptors and
the lock that says that it lives. It maps nothing.

The slot's descriptor is kept until this process has nothing of the pool mapped: its lock is the kernel's word to the
server. A forked child closes its copy at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from collections.abc import Collection, Iterator
from typing import Any

from tensord._errors import OutOfDescriptors, ServerFault, TensordError
from tensord._transport.broker import Broker, Line, Unreachable

from .page_events import Map, read_runs
from .page_lists import to_lists, to_takes


class PoolAttachment:
    """Which pages this process ``has``, as the server counts them. One thread uses it."""

    def __init__(self, broker: Broker, model: str, device_uuid: str, *, moves: bool) -> None:
        self._broker = broker
        self._request = {"op": "pool", "model": model, "device_uuid": device_uuid, "moves": moves}
        self.pool: str | None = None
        self.page_size = 0
        self.has: set[int] = set()
        # The event that the server was told that all is done up to.
        self.told: int | None = None
        self._slot: int | None = None
        self._slot_fd = -1
        self._line: Line | None = None
        _attachments.add(self)

    @property
    def line(self) -> Line | None:
        """The connection, to be waited for its end; ``None`` while there is none."""
        return self._line

    def fetch_map(self) -> tuple[Map, int]:
        """What is mapped, and the event that it is true at; attached for it if it was not. Raises
        ``ServerUnavailable``, ``LeaseNotFound`` for a slot that the server does not know, and what it says.
        """
        request: dict[str, Any] = dict(self._request)
        unsaid: set[int] = set()
        if self._line is None:
            try:
                self._line = self._broker.open_line()
            except Unreachable as unreachable:
                raise unreachable.error from unreachable
            if self._slot is not None:
                request["slot"] = self._slot
                request["taken"] = next(to_lists(self.has), [])
                unsaid = self.has.difference(*(range(first, first + count) for first, count in request["taken"]))
        reply, fds = self._line.ask(request)
        try:
            found = self._read_map(reply, fds)
        finally:
            for fd in fds:
                if fd != self._slot_fd:
                    os.close(fd)
        # What one frame could not say is said by taking it again.
        for _ in self.take(unsaid):
            pass
        return found

    def _read_map(self, reply: dict[str, Any], fds: list[int]) -> tuple[Map, int]:
        names = dict(zip(reply.get("fds") or [], fds, strict=False))
        try:
            self.pool, self.page_size = str(reply["pool"]), int(reply["page_size"])
            sequence = int(reply["sequence"])
            if "slot" in names:
                self._close_slot()
                self._slot_fd, self._slot = names["slot"], int(reply["slot"])
            runs = json.loads(_read(names["runs"], int(reply["runs_byte_size"])))
        except (LookupError, TypeError, ValueError) as error:
            raise ServerFault(f"Cannot read an elastic pool's map: the answer is none ({error!r})") from error
        return read_runs(runs, self.page_size), sequence

    def take(self, numbers: Collection[int]) -> Iterator[tuple[list[tuple[int, int]], list[int]]]:
        """For each answer the descriptors by their pages' numbers, which it closes afterwards, and which of the pages
        are mapped no longer. Raises ``ServerUnavailable``, ``OutOfDescriptors`` if one did not arrive.
        """
        for ranges in to_takes(numbers):
            assert self._line is not None
            asked = {first + i for first, count in ranges for i in range(count)}
            try:
                reply, fds = self._line.ask({"op": "take", "pool": self.pool, "pages": ranges})
            except OutOfDescriptors as error:
                if error.status is None:
                    # The server has sent them, and counts them as had.
                    self.has |= asked
                raise
            try:
                pages = [int(number) for number in reply["pages"]]
                self.has.update(pages)
                if len(pages) != len(fds):
                    raise ServerFault(f"Cannot take pages: {len(fds)} descriptors came of {len(pages)} pages")
                yield list(zip(pages, fds, strict=True)), [int(number) for number in reply["gone"]]
            finally:
                for fd in fds:
                    os.close(fd)

    def let_go(self, kept: Collection[int], sequence: int) -> None:
        """Tells the server that of what this process had only ``kept`` is left, up to that event. Raises
        ``ServerUnavailable``.
        """
        gone = self.has.difference(kept)
        if not gone and self.told == sequence:
            return
        assert self._line is not None
        for part in [*to_lists(gone), *([] if gone else [[]])]:
            request = {"op": "let_go", "pool": self.pool, "pages": part, "sequence": str(sequence)}
            self._line.ask(request)
            self.has.difference_update(first + i for first, count in part for i in range(count))
        self.told = sequence

    def leave(self) -> None:
        """Nothing is mapped any more: the server is told, if it can be, and the slot goes."""
        if self._line is not None and self.pool is not None:
            with contextlib.suppress(TensordError):
                self._line.ask({"op": "leave", "pool": self.pool})
        self.forget_slot()
        self.disconnect()

    def forget_slot(self) -> None:
        """The slot is nobody's: the next map is a new worker's."""
        self._close_slot()
        self.has.clear()
        self.told = self._slot = self.pool = None

    def disconnect(self) -> None:
        """Ends the connection; what is had stays had, since the slot stays locked."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def interrupt(self) -> None:
        """Ends what waits for the server in another thread."""
        line = self._line
        if line is not None:
            line.end()

    def _close_slot(self) -> None:
        fd, self._slot_fd = self._slot_fd, -1
        if fd >= 0:
            os.close(fd)

    def forget(self) -> None:
        """In a forked child: connection and lock are the parent's, and these are copies."""
        self._close_slot()
        self.disconnect()


def _read(fd: int, byte_size: int) -> bytes:
    parts, at = [], 0
    while at < byte_size:
        part = os.pread(fd, byte_size - at, at)
        if not part:
            raise ValueError(f"its file ends after {at} of {byte_size} bytes")
        parts.append(part)
        at += len(part)
    return b"".join(parts)


_attachments: weakref.WeakSet[PoolAttachment] = weakref.WeakSet()


def _forget_parents() -> None:
    for attachment in list(_attachments):
        attachment.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents)
