"""The collector of cycles, kept waiting while thousands of objects are made that are in no cycle.

It counts what is made, and looks at everything that the process has each time there is a quarter more: of 30,000
tensors that takes longer than to make them. In a forked child, whose memory is its parent's until it is written to,
each look copies pages as well.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import TypeVar

Made = TypeVar("Made")

# Of fewer objects it does not come to look at everything.
MANY = 4096

# One for each thread that has it wait.
_waiting_for: set[object] = set()


def make_uncollected(count: int, make: Callable[[], Made]) -> Made:
    """``make()``, which makes about ``count`` objects, without a collection meanwhile if these are many. The collector
    is the process's: another thread that turns it off just then finds it on again.
    """
    if count < MANY or not gc.isenabled():
        return make()
    maker = object()
    try:
        _waiting_for.add(maker)
        gc.disable()
        return make()
    finally:
        gc.enable()
        _waiting_for.discard(maker)


def _go_on() -> None:
    """In a child that another thread has forked meanwhile: there is nobody to turn it on again."""
    if _waiting_for:
        _waiting_for.clear()
        gc.enable()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_go_on)
