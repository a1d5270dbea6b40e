"""From host memory to a device: copied there by the server, and mapped here."""

from __future__ import annotations

from tensord._api import Api
from tensord._wire.region import RegionDescriptor

from .device_region import DeviceRegion
from .make import open_region
from .operation import Progress, finish_copy, start_copy
from .requests import IfExists, to_copy, to_creation

# Long enough to be mapped once it is there, and gone soon after its last user.
LINGER_SECONDS = 30.0


def copy_to_device(
    api: Api,
    source: RegionDescriptor,
    device: str,
    *,
    name: str | None,
    version: str | None,
    ttl: float | None,
    linger: float | None,
    persist: bool,
    if_exists: IfExists,
    timeout: float | None,
    progress: Progress | None,
) -> DeviceRegion:
    """``Region.to_device``, of the region that ``source`` describes."""
    if ttl is None and linger is None and not persist:
        linger = LINGER_SECONDS
    body = to_creation(
        model=source.model,
        name=name,
        version=version,
        ttl=ttl,
        linger=linger,
        handoff=None,
        persist=persist,
        evictable=False,
        on_full="fail",
        deadline=None,
        labels=None,
        device=device,
    )
    copy = finish_copy(start_copy(api, None, source.id, to_copy(body, if_exists)), timeout, progress)
    region = open_region(api, None, copy, None, writable=False)
    assert isinstance(region, DeviceRegion), "it was asked for on a device"
    return region
