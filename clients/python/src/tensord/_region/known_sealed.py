"""Descriptors of sealed regions, kept for who attaches the same version of a name again, so that only the kernel is
asked.

That suffices because a version that was sealed changes no more, and because the name of its file goes before a delete,
a replacement or an eviction is answered: a file that stands there under the lease that was just taken, with the inode
that the server said, is the region. What else a descriptor says, such as labels, may be older than that.
"""

from __future__ import annotations

import contextlib

from tensord._api import Api, NamedRegion
from tensord._wire.region import RegionDescriptor, is_hand_off

MAX_KEPT = 256


class KnownSealed:
    """Thread-safe, and of use in a forked child: it has no lock, and what is kept there is kept in each of them."""

    def __init__(self) -> None:
        self._kept: dict[NamedRegion, RegionDescriptor] = {}

    def get(self, api: Api, named: NamedRegion) -> RegionDescriptor | None:
        """What is known of that version, where nobody has to say who may have it."""
        return None if _has_token(api) else self._kept.get(named)

    def note(self, api: Api, named: NamedRegion, region: RegionDescriptor) -> None:
        """Keeps what the server has just said, if it can be found again by the kernel alone."""
        self._kept.pop(named, None)
        # Without a version a newer one may have been sealed, which takes nothing away from this one.
        if named.version is None or not _is_found_by_name(region) or _has_token(api):
            return
        if len(self._kept) >= MAX_KEPT:
            # The oldest. Another thread may be at it too.
            with contextlib.suppress(StopIteration, RuntimeError):
                self._kept.pop(next(iter(self._kept)), None)
        self._kept[named] = region

    def clear(self) -> None:
        self._kept.clear()


def _is_found_by_name(region: RegionDescriptor) -> bool:
    storage = region.storage
    return (
        region.state == "sealed"
        and storage.kind == "shm"
        and storage.path is not None
        and region.tensors is not None
        # The server waits for who consumes it, and has to hear of each.
        and not is_hand_off(region)
    )


def _has_token(api: Api) -> bool:
    """A server with tokens may refuse today what it answered yesterday."""
    return api.transport.endpoint.token is not None or api.transport.issued_token is not None
