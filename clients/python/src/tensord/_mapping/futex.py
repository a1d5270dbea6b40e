"""Waiting on a word of mapped memory, and waking who waits there: futex(2), in processes that share the page.

A word in a private map that is writable is another page's: who waits there sleeps on a copy. Shared maps and those that
are read-only to the processor serve both sides.
"""

from __future__ import annotations

import ctypes
import functools
import os
import time
from collections.abc import Callable
from typing import Any

_MACHINE = os.uname().machine if hasattr(os, "uname") else ""
# <asm/unistd.h>: SYS_futex, SYS_membarrier.
_CALLS = {"x86_64": (202, 324), "aarch64": (98, 283)}
# <linux/futex.h>. Without FUTEX_PRIVATE_FLAG: the others are other processes.
_FUTEX_WAIT = 0
_FUTEX_WAKE = 1
_EVERYBODY = 0x7FFFFFFF
# <linux/membarrier.h>
_MEMBARRIER_CMD_GLOBAL_EXPEDITED = 2

# How often a word is looked at before the kernel is asked to wait: on one core each look lets the other side run.
POLLS = 30
# A yield that takes longer has run somebody else, for a turn of his.
_SLOW_NS = 200_000
_LONGEST_SKIP = 1024
# The longest that anybody sleeps before it looks whether the other side lives.
SLICE_SECONDS = 0.1


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_int64), ("tv_nsec", ctypes.c_int64))


_FUTEX, _MEMBARRIER = map(ctypes.c_long, _CALLS.get(_MACHINE, (-1, -1)))
_HAS_FUTEX = _FUTEX.value >= 0


@functools.lru_cache(maxsize=1)
def _load_syscall() -> Callable[..., int]:
    # long syscall(long number, uint32_t *uaddr, int op, uint32_t val, const struct timespec *timeout);
    # Without argtypes, whose conversions cost more than the call: what is passed has its C type, or is an int.
    call = ctypes.CDLL(None)["syscall"]
    call.restype = ctypes.c_long
    return call


@functools.lru_cache(maxsize=16)
def _to_timespec(seconds: float) -> Any:
    whole = int(seconds)
    return ctypes.pointer(_Timespec(whole, int((seconds - whole) * 1e9)))


def _membarrier() -> None:
    # Its other parameters are 0 in any case.
    _load_syscall()(_MEMBARRIER, _MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0)


fence: Callable[[], None] | None = None if _MACHINE == "x86_64" else _membarrier
"""Orders what this thread has stored, or loaded, before it and after it; ``None`` where the processor does it."""


class _Patience:
    """Whether it pays to look before one sleeps. To yield a core that a third process wants costs a turn of that
    process, milliseconds, where who sleeps is woken at once: then it is tried ever more rarely.
    """

    def __init__(self) -> None:
        # Threads may count past each other here, which costs one poll more or less.
        self._skip = 0
        self._next_skip = 1

    def may_poll(self) -> bool:
        if self._skip == 0:
            return True
        self._skip -= 1
        return False

    def polled(self, *, slow: bool) -> None:
        self._skip = self._next_skip if slow else 0
        self._next_skip = min(2 * self._next_skip, _LONGEST_SKIP) if slow else 1


_patience = _Patience()


class Word:
    """The 32 bits at index ``at`` of ``words``, a view of mapped memory whose first byte is at ``address``. It keeps
    the view, and with it the memory.
    """

    __slots__ = ("_address", "_at", "_syscall", "_words")

    def __init__(self, words: memoryview, at: int, address: int) -> None:
        self._words = words
        self._at = at
        self._address = ctypes.c_void_p(address + 4 * at)
        self._syscall = _load_syscall()

    def wake(self) -> None:
        """Wakes everybody who waits here."""
        self._syscall(_FUTEX, self._address, _FUTEX_WAKE, _EVERYBODY)

    def wait(self, seen: int, seconds: float) -> None:
        """Sleeps while the word is ``seen``, until it is woken, for at most ``seconds``; a signal ends it too. Whoever
        calls looks again, whatever it was. Where there is no such call it sleeps a little.
        """
        if _HAS_FUTEX:
            self._syscall(_FUTEX, self._address, _FUTEX_WAIT, seen, _to_timespec(seconds))
        else:
            time.sleep(min(seconds, 0.001))

    def wait_for_change(self, seen: int, seconds: float) -> bool:
        """Waits until the word is no longer ``seen``, for at most ``seconds``: with a few looks first, which cost less
        than to sleep where the other side is at it. Returns whether it has changed.
        """
        words, at = self._words, self._at
        if words[at] != seen:
            return True
        if _patience.may_poll():
            for _ in range(POLLS):
                begun = time.perf_counter_ns()
                os.sched_yield()
                slow = time.perf_counter_ns() - begun > _SLOW_NS
                if slow or words[at] != seen:
                    _patience.polled(slow=slow)
                    break
        if seconds > 0 and words[at] == seen:
            self.wait(seen, seconds)
        return words[at] != seen
