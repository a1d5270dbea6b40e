"""Regions that no process maps (``heap``): their maker fills memory of this process, which the seal uploads; a reader
downloads one copy, which all that attach the region in this process share (docs/protocol.md, "Attach").
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from tensord._api import Api
from tensord._errors import RegionDraining, RegionHasWriters, RegionNotFound, StaleRef, StorageUnavailable, TensordError
from tensord._mapping.local_memory import LocalMemory, publish_copy, share_copy
from tensord._wire.region import RegionDescriptor

if TYPE_CHECKING:
    from .region import Region


def is_heap(region: RegionDescriptor) -> bool:
    """Whether no process maps it."""
    return region.storage.href is not None


def check_shared(region: RegionDescriptor, writable: bool) -> None:
    """Raises ``StorageUnavailable`` for one whose bytes nobody but its maker has yet."""
    if region.state == "open" or writable:
        raise StorageUnavailable(
            f"Cannot share {region.shown} while it is open: in heap storage its bytes are its maker's alone until the "
            "seal",
            hint="attach it with timeout=, which waits until it is sealed; or create it in shm or memfd storage, where "
            "the server's host has them",
            fields={"region": region.id, "state": region.state},
        )


def make_local(region: RegionDescriptor) -> LocalMemory:
    """Memory for a region that this process has just made."""
    return LocalMemory(region.id, region.storage.byte_size)


def get_copy(api: Api, region: RegionDescriptor) -> LocalMemory:
    """This process's copy of a sealed region, downloaded if it has none. Raises as a request does."""

    def download() -> LocalMemory:
        copy = LocalMemory(region.id, region.storage.byte_size)
        api.download(region.id, region.storage.byte_size, copy.write)
        copy.seal()
        return copy

    return share_copy(region.id, download)


def copy_by_id(api: Api) -> Callable[[str], LocalMemory]:
    """Gets the copy that a reference means. Raises ``StaleRef`` if its region is gone, ``StorageUnavailable``."""

    def get(region_id: str) -> LocalMemory:
        try:
            region = api.region(region_id)
            if not is_heap(region):
                raise StaleRef(f"Cannot open a tensor of {region.shown}: it is in {region.storage.kind} storage")
            check_shared(region, writable=False)
            return get_copy(api, region)
        except (RegionNotFound, RegionDraining) as error:
            raise StaleRef(
                f"Cannot open a tensor of {region_id}: {error.detail}", hint="its region was deleted; ask for a new one"
            ) from error

    return get


def upload(region: Region) -> None:
    """Sends what this process has written, which it writes no more. Raises as a request does, ``RegionHasWriters``
    while a forked child maps it for writing.
    """
    place = region._attachment.place
    if place.copy is None:
        return
    if place.copy.has_writer:
        raise RegionHasWriters(
            f"Cannot seal {region.descriptor.shown}: a forked child of this process maps it for writing",
            hint="end that child, or have it close the region",
        )
    infos = region._infos.values()
    data_start = min((info.byte_offset for info in infos), default=place.byte_size)
    data = region._attachment.view.bytes(data_start, place.byte_size - data_start)
    if data.size > 0:
        region._api.upload(region.id, data.data)


def finish(region: Region) -> None:
    """The region was sealed: what is here is final, and good for all who attach it in this process."""
    copy = region._attachment.place.copy
    if copy is not None:
        copy.seal()
        publish_copy(copy)


def was_sealed(region: Region) -> bool:
    """Whether a seal that failed here has sealed a region that no process maps: its answer was lost. What is here stays
    as it was uploaded then. Of what is mapped, opening it for writing tells.
    """
    if region._attachment.place.copy is None:
        return False
    with contextlib.suppress(TensordError):
        if region.refresh().state == "sealed":
            finish(region)
            return True
    return False


def refuse_ring(region: RegionDescriptor | None = None) -> TensordError:
    """What to say to who wants a ring of such memory."""
    what = "a ring" if region is None else region.shown
    return StorageUnavailable(
        f"Cannot make {what} in heap storage: a ring is shared while it is open, and nobody shares this memory then",
        hint="send whole regions instead, each sealed; or make the ring in shm or memfd storage, where the server's "
        "host has them",
    )
