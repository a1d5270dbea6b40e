"""A region's pages locked in memory for one process, without a copy: by a map of its own that is shared and read-only.

Locking the view itself would copy each of its pages that can be written to, so the view stays what it is; the pages
behind it are the same ones.
"""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import NoReturn

from tensord._errors import MappingFailed

from . import libc
from .attach import Place, map_beside


class MemoryLock:
    """Keeps a region's pages in memory, out of swap, until ``release``; ``with`` does that. Safe to release twice."""

    def __init__(self, place: Place) -> None:
        """Raises ``MappingFailed``, and as ``map_place`` does."""
        self._view = map_beside(place)
        anchor, _ = self._view.buffer()
        try:
            libc.mlock(ctypes.addressof(anchor), len(anchor))
        except OSError as error:
            del anchor
            self._view.close()
            raise MappingFailed(
                f"Cannot lock the {place.byte_size} bytes of region {place.region} in memory: {error}; "
                f"this process may lock {memory_limit()}",
                hint="raise ulimit -l (docker: --ulimit memlock=-1), or give it CAP_IPC_LOCK",
            ) from error

    @property
    def released(self) -> bool:
        return self._view.closed

    def release(self) -> None:
        """Lets the pages go. Whoever else has locked them keeps them."""
        self._view.close()

    def __enter__(self) -> MemoryLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a lock in memory cannot be pickled or copied: lock the region where it is needed")


def memory_limit() -> str:
    """How much this process may lock, as errors say it. Without effect for who has CAP_IPC_LOCK."""
    import resource  # Not on every platform that imports this.

    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return "any amount" if limit == resource.RLIM_INFINITY else f"{limit} bytes"
