"""From a region's descriptor to its memory: waits for it, maps it, and asks again when what it sees is not what it was
told. The protocol with the kernel is ``_mapping``'s; the routes are ``_api.py``'s.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from tensord._api import Api, NamedRegion
from tensord._cuda.attachment import DeviceAttachment, attach_device
from tensord._cuda.devices import is_same
from tensord._errors import (
    FeatureUnavailable,
    ModelNotFound,
    NotFound,
    RegionBusy,
    RegionDraining,
    RegionNotFound,
    RegionNotSealed,
    RegionSealed,
    StaleRef,
    TensordError,
    ValidationFailed,
)
from tensord._mapping.attach import SHM, Asked, Barred, Mismatch, Place, map_at_once, map_place
from tensord._mapping.attachment import Attachment
from tensord._mapping.lease import Role
from tensord._mapping.local_memory import LocalMemory
from tensord._mapping.mapping import Access
from tensord._mapping.origin_file import FILE
from tensord._session.session import Session
from tensord._tensor.device_tensor import OpenedDeviceTensor
from tensord._tensor.reference import DEVICE_STORAGE, HEAP, MAPPED_STORAGES, TensorReference, instance_of
from tensord._tensor.tensor import OpenedTensor
from tensord._wire.region import RegionDescriptor
from tensord._wire.tensors import TensorInfo, make_info

from .heap import check_shared, is_heap, make_local

# How often the server may insist on what this process cannot see.
SAME_REGION_TRIES = 4
# A name may have a new region whenever it is asked for, and stock readers may unlink a name that was just brought back,
# but some answer is in time.
ATTACH_TRIES = 100
# How often to look where the server does not hold its answer back: for a writer, and within the last second.
POLL_SECONDS = 0.05

Fill = Callable[[int, RegionDescriptor], None]
"""Writes into the open file of a region that this process makes, before it is closed again; it can be mapped then."""

Keep = Callable[[str], "Callable[[], None] | None"]
"""Keeps a region, by its id, that no lock can keep. Returns what lets go of it, if it could. Raises ``NotFound``,
``RegionDraining`` if it does not stand.
"""

_log = logging.getLogger("tensord")

_STORAGES = (*MAPPED_STORAGES, DEVICE_STORAGE)
_SHOWN_STORAGES = " or ".join(_STORAGES)
# As in _mapping/mapping.py.
_WRITE, _PRIVATE = Access.WRITE, Access.PRIVATE
_MAKER, _CONSUMER = Role.MAKER, Role.CONSUMER
NEWER_HINT = "this version of the package maps nothing else: is there a newer one?"


def to_access(*, writable: bool, strict: bool) -> Access:
    """The access that two flags ask for. Raises ``ValidationFailed`` if they contradict each other."""
    if writable and strict:
        raise ValidationFailed("Cannot map with writable=True and strict=True: strict forbids writing")
    if writable:
        return _WRITE
    return Access.STRICT if strict else _PRIVATE


def find_region(api: Api, named: NamedRegion, timeout: float, *, writable: bool) -> RegionDescriptor:
    """The region of that name. With a timeout in seconds it waits: for a reader until it is sealed, for a writer
    until it is there. Raises ``RegionNotFound``, or ``RegionNotSealed`` if it is still open when the time is over.
    """
    if timeout == 0:
        return api.region_by_name(named, to_map=True)
    (region,) = find_regions(lambda until: [api.region_by_name(named, until, to_map=True)], timeout, writable=writable)
    return region


def find_regions(
    ask: Callable[[float | None], list[RegionDescriptor]], timeout: float, *, writable: bool
) -> list[RegionDescriptor]:
    """As ``find_region``, of one region or of a group, which ``ask`` gets: all as they are at once. Its argument is
    until when the answer may be held back.
    """
    if timeout == 0:
        return ask(None)
    ready = ("sealed", "open") if writable else ("sealed",)
    deadline = time.monotonic() + timeout
    while True:
        asked_at = time.monotonic()
        missing: NotFound | None = None
        try:
            regions = ask(None if writable else deadline)
        except (RegionNotFound, ModelNotFound) as error:
            missing = error
        else:
            awaited = [region for region in regions if region.state not in ready]
            if not awaited:
                return regions
        now = time.monotonic()
        if now >= deadline:
            break
        if now - asked_at < POLL_SECONDS:
            time.sleep(min(POLL_SECONDS, deadline - now))
    if missing is not None:
        raise missing
    region = awaited[0]
    raise RegionNotSealed(
        f"Cannot attach {region.shown}: it is still {region.state} after {timeout:g} s, want sealed",
        hint="timeout=0 maps it as it is, and shows what its writer has written so far",
        fields={"region": region.id, "state": region.state},
    )


Mapped = tuple[RegionDescriptor, Attachment]


def map_region(
    region: RegionDescriptor,
    ask: Callable[[], RegionDescriptor],
    choose: Callable[[RegionDescriptor], Access],
    asked: Asked,
    keep: Keep,
    *,
    created: bool,
    fill: Fill | None = None,
) -> Mapped:
    """Maps all of a region. ``ask`` gets its descriptor anew when the file is not what the last one said, ``choose``
    the access for each one; ``asked`` is the server, where its name does not serve; ``keep`` keeps one that no lock
    can keep; ``created`` says that this process is its maker, which may ``fill`` it. Raises ``WrongNamespace`` or
    ``StaleRef`` if the server insists on what this process cannot see.
    """
    (mapped,) = map_regions([region], lambda: [ask()], choose, asked, keep, created=created, fill=fill)
    return mapped


def map_if_there(
    region: RegionDescriptor, access: Access, asked: Asked, *, created: bool, fill: Fill | None
) -> Attachment | None:
    """As ``map_region`` of what is the rule, host memory that its name leads to, at half of what that takes beside the
    kernel. ``None`` of all else, and where anything is not as it was told, which ``map_region`` looks into from the
    beginning: nothing has been done then. Raises ``MappingFailed``, ``RegionSealed``, ``OutOfDescriptors``.
    """
    storage = region.storage
    if (
        storage.kind != SHM
        or storage.path is None
        or storage.dev is None
        or storage.ino is None
        or storage.href is not None
        or storage.changed is not None
        or not (region.state == "open" or (region.state == "sealed" and access is not _WRITE))
    ):
        return None
    role = _MAKER if created and storage.maker_byte else _CONSUMER
    instance = instance_of(storage.path)
    if instance is None:
        return None
    place = Place(region.id, storage.path, storage.dev, storage.ino, storage.byte_size, asked, role, SHM, instance)
    if fill is not None:
        place.fill = lambda fd: fill(fd, region)
    view = map_at_once(place, 0, place.byte_size, access)
    if view is None:
        return None
    place.fill = None
    return Attachment(place, view)


def map_regions(
    regions: list[RegionDescriptor],
    ask: Callable[[], list[RegionDescriptor]],
    choose: Callable[[RegionDescriptor], Access],
    asked: Asked,
    keep: Keep,
    *,
    created: bool = False,
    fill: Fill | None = None,
) -> list[Mapped]:
    """As ``map_region``, of one region or of a group: where one member's file is not what its descriptor said, all that
    were mapped are let go, and all are asked for anew. What comes back is one answer's.
    """
    same = 0
    for _ in range(ATTACH_TRIES):
        mapped: list[Mapped] = []
        # The server has just been asked whether they stand: what it insists on, and is not here, it hands out.
        stands = _is_said_again if same > 0 else _is_said_once
        try:
            for region in regions:
                attachment = _map_all_of(region, choose(region), asked, stands, keep, created=created, fill=fill)
                mapped.append((region, attachment))
            return mapped
        except BaseException as error:
            for _region, attachment in mapped:
                attachment.close()
            if not isinstance(error, Mismatch):
                raise
            mismatch = error
        answer = ask()
        places = [region.storage for region in regions]
        same = same + 1 if [region.storage for region in answer] == places else 0
        # One file system shows the regions, unless a stock reader has just unlinked one; another never will.
        if same >= SAME_REGION_TRIES and not isinstance(mismatch.to_error(), StaleRef):
            break
        regions = answer
    raise _busy(region) if mismatch.sealed else mismatch.to_error() from mismatch


def _is_said_once(_: Place) -> bool:
    return False


def _is_said_again(_: Place) -> bool:
    return True


def _map_all_of(
    region: RegionDescriptor,
    access: Access,
    asked: Asked,
    stands: Callable[[Place], bool],
    keep: Keep,
    *,
    created: bool,
    fill: Fill | None,
) -> Attachment:
    place = _to_place(region, _MAKER if created and region.storage.maker_byte else _CONSUMER, asked)
    if fill is not None:
        place = replace(place, fill=lambda fd: fill(fd, region))
    _check_state(region, access)
    if is_heap(region):
        place = replace(place, copy=_get_copy(region, access, asked, created=created))
    attachment = (
        attach_device(place, access, keep=keep)
        if place.storage == DEVICE_STORAGE
        else _map(place, 0, place.byte_size, access, keep, stands)
    )
    if place.fill is not None or (place.instance is None and asked.instance is not None):
        # Of what has no name only who has handed it out says whose it is.
        instance = place.instance or (asked.instance and asked.instance())
        attachment.place = replace(place, instance=instance, fill=None)
    return attachment


def _get_copy(region: RegionDescriptor, access: Access, asked: Asked, *, created: bool) -> LocalMemory:
    if created:
        return make_local(region)
    check_shared(region, writable=access is Access.WRITE)
    assert asked.copy is not None, "a client asks"
    return asked.copy(region.id)


def place_of(ref: TensorReference, asked: Asked | None = None, storages: tuple[str, ...] = MAPPED_STORAGES) -> Place:
    """The file that holds a reference's tensor. Raises ``FeatureUnavailable`` if it is in no such thing."""
    if ref.storage not in storages:
        raise FeatureUnavailable(
            f"Cannot map the tensor at {ref.byte_offset} of {ref.region}: its storage is {ref.storage}, want "
            f"{' or '.join(storages)}",
            hint=NEWER_HINT,
        )
    copy: LocalMemory | None = None
    if ref.storage == FILE:
        return _find_file(ref, asked)
    if ref.storage == HEAP:
        if asked is None or asked.copy is None:
            raise FeatureUnavailable(
                f"Cannot open the tensor at {ref.byte_offset} of {ref.region}: no process maps its region, and no "
                "server can be asked for its bytes",
                hint="open it with a client: client.open(ref)",
            )
        copy = asked.copy(ref.region)
        if ref.byte_offset + ref.byte_size > copy.byte_size:
            raise StaleRef(f"Cannot open the tensor at {ref.byte_offset} of {ref.region}: its region ends before")
    return Place(
        ref.region,
        ref.path,
        ref.dev,
        ref.ino,
        0 if ref.storage == DEVICE_STORAGE else ref.byte_offset + ref.byte_size,
        asked,
        storage=ref.storage,
        instance=ref.instance,
        copy=copy,
    )


def _find_file(ref: TensorReference, asked: Asked | None) -> Place:
    """Where the file is, by the server's word alone: a sender's could have this process open any."""
    if asked is None or asked.file is None:
        raise FeatureUnavailable(
            f"Cannot open the tensor at {ref.byte_offset} of {ref.region}: its region is a file, and no server can be "
            "asked for its path",
            hint="open it with a client: client.open(ref)",
        )
    try:
        place = asked.file(ref.region)
    except (NotFound, RegionDraining) as error:
        raise StaleRef(f"Cannot open the tensor at {ref.byte_offset} of {ref.region}: {error.detail}") from error
    if (place.dev, place.ino) != (ref.dev, ref.ino) or ref.byte_offset + ref.byte_size > place.byte_size:
        raise StaleRef(f"Cannot open the tensor at {ref.byte_offset} of {ref.region}: its region is another file")
    return replace(place, asked=asked, instance=ref.instance)


def to_file(region: RegionDescriptor) -> Place:
    """The file that a region of ``file`` storage is. Raises ``RegionDraining``, ``StaleRef`` if it is not what it
    was.
    """
    if region.storage.kind != FILE:
        raise StaleRef(f"Cannot map {region.shown}: its storage is {region.storage.kind}, want {FILE}")
    _check_state(region, Access.PRIVATE)
    return _to_place(region)


def open_reference(
    ref: TensorReference,
    access: Access,
    asked: Asked | None = None,
    keep: Keep | None = None,
) -> OpenedTensor:
    """Maps the pages of one tensor. Asks nobody, but ``asked`` where its name does not serve, and ``keep`` where no
    lock can be taken. Raises ``StaleRef``, ``RegionSealed``, ``FeatureUnavailable``.
    """
    place = place_of(ref, asked, _STORAGES)
    if place.copy is not None and access is _WRITE:
        raise RegionSealed(f"Cannot write to {ref.region}: it is sealed", hint="open it without writable=True")
    info = make_info("", ref.dtype, ref.shape, ref.byte_offset, ref.byte_size)
    try:
        if ref.storage == DEVICE_STORAGE:
            return _open_on_device(place, ref, info, attach_device(place, access, keep=keep))
        attachment = _map(place, ref.byte_offset, ref.byte_size, access, keep)
    except Mismatch as mismatch:
        error = mismatch.to_error()
        if isinstance(error, RegionSealed):
            raise error from mismatch
        raise StaleRef(
            str(mismatch),
            hint="its region was deleted, or this process sees another file system than the sender; ask for a new one",
            fields={"cause": error.code},
        ) from mismatch
    return OpenedTensor(attachment, info)


def _open_on_device(
    place: Place, ref: TensorReference, info: TensorInfo, attachment: DeviceAttachment
) -> OpenedDeviceTensor:
    if ref.byte_offset + ref.byte_size > attachment.storage.allocation_bytes or not is_same(
        attachment.device.uuid, ref.device_uuid or ""
    ):
        attachment.close()
        raise Mismatch(place, "is another one than the reference says")
    return OpenedDeviceTensor(attachment, info)


def keeps_by(session: Session | None) -> Keep:
    """Leases a region by request, through the session. Where that cannot be, it says so: the pages are there all the
    same for as long as they are mapped.
    """

    def keep(region: str) -> Callable[[], None] | None:
        why = "this client has no session"
        if session is not None:
            try:
                return session._lease(region).end
            except (NotFound, RegionDraining):
                raise
            except TensordError as error:
                why = str(error)
        _log.warning(
            "Region %s is mapped without a lease, so the server may count it as unused and end it: no lock can be "
            "taken of it, since another process write-locks its lease byte or the file is somebody else's, and no "
            "lease could be asked for (%s). What is mapped here stays.",
            region,
            why,
        )
        return None

    return keep


def _map(
    place: Place,
    byte_offset: int,
    byte_size: int,
    access: Access,
    keep: Keep | None,
    stands: Callable[[Place], bool] | None = None,
) -> Attachment:
    if stands is None:
        # Of a reference; of a descriptor it was tried before.
        view = map_at_once(place, byte_offset, byte_size, access)
        if view is not None:
            return Attachment(place, view)
    is_file = place.storage == FILE
    if not is_file:
        try:
            return Attachment(place, map_place(place, byte_offset, byte_size, access, stands=stands))
        except Barred:
            if keep is None:
                raise
    end: Callable[[], None] | None = None
    try:
        end = None if keep is None else keep(place.region)
    except (NotFound, RegionDraining) as error:
        # Of another the check of the file says what has become of it.
        if is_file:
            raise Mismatch(place, f"is no region any more: {error.detail}") from error
    try:
        view = map_place(place, byte_offset, byte_size, access, leased=False, stands=stands)
    except BaseException:
        if end is not None:
            end()
        raise
    if end is not None:
        view.at_end(end)
    return Attachment(place, view)


def _check_state(region: RegionDescriptor, access: Access) -> None:
    changed = region.storage.changed
    if region.state in ("open", "sealed") and changed is None and access is not _WRITE:
        return
    problem: TensordError | None = None
    if region.state in ("draining", "deleted"):
        problem = RegionDraining(f"Cannot attach {region.shown}: it is {region.state}", hint="it was deleted")
    elif region.state == "creating":
        problem = _busy(region)
    elif access is _WRITE and region.state == "sealed":
        problem = RegionSealed(f"Cannot write to {region.shown}: it is sealed", hint="attach it without writable=True")
    elif access is _WRITE and region.state == "sealing":
        problem = _busy(region)
    elif changed is not None:
        problem = StaleRef(
            f"Cannot attach {region.shown}: its file {region.storage.path} is {changed.replace('-', ' ')} since it was "
            "loaded",
            hint="load it again: what is there now is another version; replace a model file by a rename, and what is "
            "mapped stays whole",
            fields={"changed": changed},
        )
    if problem is not None:
        raise problem


def _to_place(region: RegionDescriptor, role: Role = _CONSUMER, asked: Asked | None = None) -> Place:
    storage = region.storage
    if storage.kind not in _STORAGES:
        raise FeatureUnavailable(
            f"Cannot map {region.shown}: its storage is {storage.kind}, want {_SHOWN_STORAGES}", hint=NEWER_HINT
        )
    if storage.dev is None or storage.ino is None:
        raise FeatureUnavailable(f"Cannot map {region.shown}: its {storage.kind} storage has no file")
    instance = None if storage.path is None or storage.kind == FILE else instance_of(storage.path)
    return Place(
        region.id,
        storage.path,
        storage.dev,
        storage.ino,
        # Of memory of a device the file carries the locks alone.
        0 if storage.kind == DEVICE_STORAGE else storage.byte_size,
        asked,
        role,
        storage.kind,
        instance,
        mtime_ns=storage.mtime_ns,
    )


def _busy(region: RegionDescriptor) -> RegionBusy:
    return RegionBusy(
        f"Cannot attach {region.shown}: it is {region.state}, in the middle of a step", hint="try again in a moment"
    )
