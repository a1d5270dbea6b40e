"""What the tests of locks and rings share."""

from __future__ import annotations

import contextlib
import os

import tensord


def count_descriptors(path: str) -> int:
    """How many descriptors of a file this process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        # The listing's own descriptor is in the list, and gone.
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(f"/proc/self/fd/{name}") == path
    return count


def take_all(ring: tensord.Ring, timeout: float = 0) -> None:
    """Has every slot of the ring at once, so none is lost; their references are stale then."""
    with contextlib.ExitStack() as stack:
        for _ in range(ring.slots):
            stack.enter_context(ring.acquire(timeout))
