"""Making and mapping regions: allocated, mapped, filled, told to the server, and undone when a step fails."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tensord._api import Api, Creation
from tensord._errors import StorageUnavailable, WrongNamespace
from tensord._mapping.attach import Asked
from tensord._mapping.attachment import Attachment
from tensord._mapping.mapping import Access
from tensord._session.session import Session
from tensord._wire.region import RegionDescriptor, is_hand_off
from tensord._wire.tensors import TensorInfos

from .asked import asked_by
from .copy import Source, copy_all, suits_file, suits_write, write_all
from .device_region import DeviceRegion, to_region
from .mapper import Fill, Mapped, keeps_by, map_if_there, map_region, to_access
from .region import Region

if TYPE_CHECKING:
    from tensord._wire import schemas

_log = logging.getLogger("tensord")

# What a region may be made of.
_FORMS = frozenset({"storage", "private", "huge_pages", "device_uuid"})
_OWNERS = frozenset({"session", "ttl_ms", "linger_ms", "persist"})


def make_region(
    api: Api,
    session: Session | None,
    sources: Sequence[Source],
    body: schemas.CreateRegion,
    asked: Asked | None = None,
) -> Region:
    """Makes the region that ``body`` asks for, owned by the session if it names no owner, and fills it.

    An existing one that ``if_exists`` allows is mapped as it is. Where this process shares no memory with the server,
    what does not say what it is made of is made in heap storage.
    """
    if not _FORMS.isdisjoint(body):
        return _make_region(api, session, sources, body, asked)
    in_heap: schemas.CreateRegion = {**body, "storage": "heap"}
    if api.shares_no_memory:
        return _make_region(api, session, sources, in_heap, asked)
    try:
        return _make_region(api, session, sources, body, asked)
    except WrongNamespace as error:
        # Found out by trying: that costs nothing where there is shared memory, and nothing else is as sure.
        try:
            region = _make_region(api, session, sources, in_heap, asked)
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


def _make_region(
    api: Api,
    session: Session | None,
    sources: Sequence[Source],
    body: schemas.CreateRegion,
    asked: Asked | None,
) -> Region:
    if session is not None and _OWNERS.isdisjoint(body):
        answer = session.own(lambda session_id: api.create_region({**body, "session": session_id}))
    elif session is not None and body.get("linger_ms") == 0 and "claim" not in body:
        answer = _create_hand_off(api, session, body)
    else:
        answer = api.create_region(body)
    # Nobody else can make a name that we have the claim to: what is there is what a lost request of ours has made.
    if not answer.created and "claim" not in body:
        return open_region(api, session, answer.region, None, writable=None, asked=asked)
    own = [source for source in sources if source.alias_of is None]
    writing = _Writing(own) if suits_write(own) else None
    try:
        region = open_region(api, session, answer.region, None, writable=True, created=True, fill=writing, asked=asked)
        try:
            if writing is None or not writing.is_done:
                _copy_into(region, own)
        except BaseException:
            region.close()
            raise
    except BaseException:
        # Nobody may find a half-written region under the name; the failure itself is what counts.
        with contextlib.suppress(Exception):
            api.delete_region(answer.region.id)
        raise
    return region


class _Writing:
    """Writes sources into the file of their region while that is open to be mapped."""

    # False as well where it cannot be: not every file that is mapped can be written to.
    is_done = False

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def __call__(self, fd: int, region: RegionDescriptor) -> None:
        infos = region.tensors.by_name if isinstance(region.tensors, TensorInfos) else {}
        # Of one that the answer does not name the region says so, once it is mapped.
        if suits_file(fd, self._sources) and all(source.name in infos for source in self._sources):
            self.is_done = write_all(fd, [(infos[source.name].byte_offset, source) for source in self._sources])


def _copy_into(region: Region, sources: Sequence[Source]) -> None:
    if isinstance(region, DeviceRegion):
        region._fill(sources)
    else:
        copy_all((region[source.name].bytes(), source) for source in sources)


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
    fill: Fill | None = None,
    asked: Asked | None = None,
) -> Region:
    """Maps a region, which ``ask`` gets anew, else its id does. ``writable=None``: for writing while it is open.
    ``asked`` is ``asked_by(api)``, of who has it: it takes as long to make as to open the region's file.
    """

    asked = asked or asked_by(api)
    attachment: Attachment | None = None
    if region.tensors is not None:
        access = to_access(writable=region.state == "open" if writable is None else writable, strict=strict)
        attachment = map_if_there(region, access, asked, created=created, fill=fill)
    if attachment is None:
        region, attachment = _map_asking(
            api, session, region, ask, asked, writable=writable, strict=strict, created=created, fill=fill
        )
    if session is not None and attachment.place.copy is None:
        session._report(attachment, start=True, hand_off=is_hand_off(region))
    return to_region(api, region, attachment, created=created)


def _map_asking(
    api: Api,
    session: Session | None,
    region: RegionDescriptor,
    ask: Callable[[], RegionDescriptor] | None,
    asked: Asked,
    *,
    writable: bool | None,
    strict: bool,
    created: bool,
    fill: Fill | None,
) -> Mapped:
    def choose(current: RegionDescriptor) -> Access:
        return to_access(writable=current.state == "open" if writable is None else writable, strict=strict)

    ask = ask or (lambda: api.region(region.id))
    if region.tensors is None:
        # An item of a list, which has only their number.
        region = ask()
    return map_region(region, ask, choose, asked, keeps_by(session), created=created, fill=fill)
