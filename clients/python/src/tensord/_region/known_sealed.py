"""Descriptors of sealed regions, kept for who attaches the same name again, so that only the kernel is asked.

Of a version that is named that suffices because what was sealed changes no more, and because the name of its file goes
before a delete, a replacement or an eviction is answered: a file that stands there under the lease that was just taken,
with the inode that the server said, is the region. What else a descriptor says, such as labels, may be older than that.

A name alone means another region once a newer version is sealed, which takes nothing away from this one. There the mode
of its file has to show the current mark as well, which goes before such a seal, or a change, is answered.
"""

from __future__ import annotations

import contextlib
import os
import stat

from tensord._api import Api, NamedRegion
from tensord._wire.region import RegionDescriptor, is_hand_off

MAX_KEPT = 256


class KnownSealed:
    """Thread-safe, and of use in a forked child: it has no lock, and what is kept there is kept in each of them."""

    def __init__(self) -> None:
        self._kept: dict[NamedRegion, RegionDescriptor] = {}

    def get(self, api: Api, named: NamedRegion) -> RegionDescriptor | None:
        """What is known of that region, where nobody has to say who may have it."""
        kept = self._kept.get(named)
        if kept is None or _has_token(api) or (named.version is None and not _is_current(kept)):
            return None
        return kept

    def note(self, api: Api, named: NamedRegion, region: RegionDescriptor) -> None:
        """Keeps what the server has just said, if it can be found again by the kernel alone."""
        self._kept.pop(named, None)
        if not _is_found_by_name(region) or _has_token(api):
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


def _is_current(region: RegionDescriptor) -> bool:
    """Whether its file bears the current mark. A server from before there was one never sets it."""
    try:
        return bool(os.lstat(region.storage.path or "").st_mode & stat.S_IXUSR)
    except OSError:
        return False


def _has_token(api: Api) -> bool:
    """A server with tokens may refuse today what it answered yesterday."""
    return api.transport.endpoint.token is not None or api.transport.issued_token is not None
