"""Making and mapping regions: allocated, mapped, filled, told to the server, and undone when a step fails."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tensord._api import Api, Creation
from tensord._errors import StorageUnavailable, TensordError, WrongNamespace
from tensord._mapping.attach import Mismatch, open_unleased
from tensord._mapping.mapping import Access
from tensord._session.session import Session
from tensord._wire.region import RegionDescriptor, is_hand_off

from .asked import asked_by
from .copy import Source, copy_all, suits_write, write_all
from .device_region import DeviceRegion, to_region
from .mapper import keeps_by, map_region, to_access
from .region import Region

if TYPE_CHECKING:
    from tensord._wire import schemas

_log = logging.getLogger("tensord")

# What a region may be made of.
_FORMS = frozenset({"storage", "private", "huge_pages", "device_uuid"})
_OWNERS = frozenset({"session", "ttl_ms", "linger_ms", "persist"})


def make_region(api: Api, session: Session | None, sources: Sequence[Source], body: schemas.CreateRegion) -> Region:
    """Makes the region that ``body`` asks for, owned by the session if it names no owner, and fills it.

    An existing one that ``if_exists`` allows is mapped as it is. Where this process shares no memory with the server,
    what does not say what it is made of is made in heap storage.
    """
    if not _FORMS.isdisjoint(body):
        return _make_region(api, session, sources, body)
    in_heap: schemas.CreateRegion = {**body, "storage": "heap"}
    if api.shares_no_memory:
        return _make_region(api, session, sources, in_heap)
    try:
        return _make_region(api, session, sources, body)
    except WrongNamespace as error:
        # Found out by trying: that costs nothing where there is shared memory, and nothing else is as sure.
        try:
            region = _make_region(api, session, sources, in_heap)
        except StorageUnavailable:
            raise error from None
        _log.warning(
            "This process shares no memory with tensord on %s, so its regions are made in heap storage: each is "
            "uploaded by its seal, and downloaded by who attaches it. %s",
            api.transport.endpoint.url,
            error,
        )
        api.shares_no_memory = True
        return region


def _make_region(api: Api, session: Session | None, sources: Sequence[Source], body: schemas.CreateRegion) -> Region:
    if session is not None and _OWNERS.isdisjoint(body):
        answer = session.own(lambda session_id: api.create_region({**body, "session": session_id}))
    elif session is not None and body.get("linger_ms") == 0 and "claim" not in body:
        answer = _create_hand_off(api, session, body)
    else:
        answer = api.create_region(body)
    # Nobody else can make a name that we have the claim to: what is there is what a lost request of ours has made.
    if not answer.created and "claim" not in body:
        return open_region(api, session, answer.region, None, writable=None)
    try:
        region = open_region(api, session, answer.region, None, writable=True, created=True)
        try:
            _fill(region, [source for source in sources if source.alias_of is None])
        except BaseException:
            region.close()
            raise
    except BaseException:
        # Nobody may find a half-written region under the name; the failure itself is what counts.
        with contextlib.suppress(Exception):
            api.delete_region(answer.region.id)
        raise
    return region


def _fill(region: Region, sources: Sequence[Source]) -> None:
    if isinstance(region, DeviceRegion):
        region._fill(sources)
    elif not _write(region, sources):
        copy_all((region[source.name].bytes(), source) for source in sources)


def _write(region: Region, sources: Sequence[Source]) -> bool:
    """Writes them into the region's file, where that is the faster way; false where it is not, or cannot be."""
    # Who got a descriptor handed out would have to ask for another one.
    if region.attached_by != "name" or not suits_write(sources):
        return False
    try:
        fd = open_unleased(region._standing(), writable=True)
    except (Mismatch, TensordError):
        # What is mapped can be filled all the same; who uses it next hears what has become of it.
        return False
    try:
        return write_all(fd, [(region[source.name].byte_offset, source) for source in sources])
    finally:
        os.close(fd)


def _create_hand_off(api: Api, session: Session, body: schemas.CreateRegion) -> Creation:
    """One that is never sealed shall end with this process."""

    def create(session_id: str) -> Creation:
        # A server that knows no makers knows no builder of what lingers either.
        return api.create_region({**body, "session": session_id} if session._tells_makers else body)

    return session.own(create)


def open_region(
    api: Api,
    session: Session | None,
    region: RegionDescriptor,
    ask: Callable[[], RegionDescriptor] | None,
    *,
    writable: bool | None,
    strict: bool = False,
    created: bool = False,
) -> Region:
    """Maps a region, which ``ask`` gets anew, else its id does. ``writable=None``: for writing while it is open."""

    def choose(current: RegionDescriptor) -> Access:
        return to_access(writable=current.state == "open" if writable is None else writable, strict=strict)

    ask = ask or (lambda: api.region(region.id))
    if region.tensors is None:
        # An item of a list, which has only their number.
        region = ask()
    mapped, attachment = map_region(region, ask, choose, asked_by(api), keeps_by(session), created=created)
    if session is not None and attachment.place.copy is None:
        session.report(attachment, start=True, hand_off=is_hand_off(mapped))
    return to_region(api, mapped, attachment, created=created)
