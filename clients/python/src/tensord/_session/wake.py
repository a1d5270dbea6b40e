"""How any thread, and any finalizer, tells one waiting thread that there is something to look at."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterable
from typing import Protocol


class Waitable(Protocol):
    """Something beside the calls that the thread waits for: to read, and to write what it has not sent."""

    @property
    def has_unsent(self) -> bool: ...

    def fileno(self) -> int: ...


class Wake:
    """A pipe with a flag. ``call`` takes no lock, so a finalizer may use it wherever the garbage collector runs it."""

    # None yet: there may be no descriptor for a pipe.
    _reader = _writer = -1

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._called = False
        self._is_urgent = False

    @property
    def is_urgent(self) -> bool:
        """Whether there was a call ``at_once`` since the last ``listen``."""
        return self._is_urgent

    def call(self, *, at_once: bool = False) -> None:
        """Ends the other thread's wait. Calls before its next ``listen`` cost nothing, unless they shall be heard
        ``at_once``.
        """
        if self._called and not at_once:
            return
        self._called = True
        self._is_urgent = self._is_urgent or at_once
        # A full pipe has been heard already.
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"!")

    def listen(self) -> None:
        """From here on a call is heard. Look at what there is to see after this, not before."""
        self._called = False
        self._is_urgent = False

    def wait(self, seconds: float | None, others: Iterable[Waitable] = ()) -> bool:
        """Waits for a call, for one of the others, or for the time to be over. Returns whether it was a call."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        for other in others:
            poll.register(other.fileno(), select.POLLIN | (select.POLLOUT if other.has_unsent else 0))
        ready = {fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)}
        if self._reader not in ready:
            return False
        os.read(self._reader, 4096)
        return True

    def __del__(self) -> None:
        # Not sooner: a finalizer that still has it would write into somebody else's file.
        for fd in (self._reader, self._writer):
            with contextlib.suppress(OSError):
                os.close(fd)
