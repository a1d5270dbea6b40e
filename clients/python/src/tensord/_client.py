"""The client: what a program says to one server. Regions are made, found and mapped here."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast, overload

from ._api import Api, NamedGroup, NamedRegion
from ._arguments.checked import checked_class
from ._arguments.kinds import (
    ByteCount,
    Count,
    DeviceName,
    FilePath,
    Label,
    LabelChanges,
    Labels,
    Name,
    PoolLimits,
    Prefixes,
    Revision,
    Seconds,
    Shape,
    State,
    TensorSpecs,
    Text,
    Timeout,
    Version,
)
from ._cuda.devices import choose_device
from ._elastic.shared_pool import SharedPool, open_pool
from ._errors import TensordError, ValidationFailed
from ._events.event_stream import EventStream
from ._region.asked import asked_by
from ._region.claim import get_or_build
from ._region.device_region import DeviceRegion, check_device, to_wanted_device
from ._region.group import Group, open_group, seal_group
from ._region.heap import is_heap, refuse_ring
from ._region.known_sealed import KnownSealed
from ._region.load import LoadIfExists, LoadMode, start_load, to_load
from ._region.make import make_region, open_region
from ._region.mapper import find_region, keeps_by, open_reference, to_access
from ._region.operation import Operation, Progress, finish_copy, start_copy
from ._region.path_hold import PathHold, check_has_path
from ._region.region import Region
from ._region.requests import (
    HugePages,
    IfExists,
    OnFull,
    StorageKind,
    to_change,
    to_copy,
    to_creation,
    to_eviction,
    to_pool_limits,
    to_session,
    to_specs,
)
from ._ring.receiver import Receiver
from ._ring.ring import Ring, to_ring_tensors
from ._ring.rings import Rings
from ._ring.slot_tensor import open_slot
from ._session.hold import Hold
from ._session.holding import HoldBy
from ._session.session import Session
from ._tensor.reference import TensorReference, is_region_id
from ._tensor.tensor import OpenedTensor
from ._transport.endpoint import Endpoint
from ._transport.transport import Transport
from ._wire.device import Device, DeviceList
from ._wire.elastic_pool import PoolStatistics
from ._wire.eviction import Eviction
from ._wire.model import Model
from ._wire.region import Deletion, RegionDescriptor, Verification
from ._wire.session import Lease, SessionDescriptor
from ._wire.stats import Stats

if TYPE_CHECKING:
    from ._wire import schemas

DEFAULT_MODEL = "default"
RETRY_SECONDS = 10.0
LINGER_SECONDS = 600.0

OperationState = Literal["running", "succeeded", "failed", "cancelled"]
Names = list[Name] | tuple[Name, ...]
AnyRegion = Name | RegionDescriptor | Region


@checked_class
class Client:
    """One server's client; ``connect`` makes it. Thread-safe, and safe to use in a child after ``fork``.

    Closing it ends its session, and closes its connections. Regions stay mapped and their memory valid; what asks the
    server (``seal``, ``refresh``) raises ``Closed`` then. Every method raises ``TensordError``s, and
    ``ServerUnavailable`` among them. A region is named by its name, model and version, and, where it is
    changed, by its id, descriptor or ``Region`` as well.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        retry: float = RETRY_SECONDS,
        session: bool = True,
        name: str | None = None,
        quota_bytes: int | None = None,
        session_ttl: float | None = None,
        hold: HoldBy | None = None,
    ) -> None:
        self._transport = Transport(endpoint, retry)
        self._api = Api(self._transport)
        self._asked = asked_by(self._api)
        # What is kept is used only where a session tells the server of each mapping: it evicts what was used least.
        self._known_sealed = KnownSealed()
        self._session: Session | None = None
        self._pools: weakref.WeakSet[SharedPool] = weakref.WeakSet()
        if session:
            request = to_session(quota_bytes=quota_bytes, ttl=session_ttl)
            self._session = Session(self._api, Hold(self._transport, request, name, hold))

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.endpoint.url

    @property
    def session(self) -> Session | None:
        """This process's session, opened when it is needed; ``None`` if it was connected without."""
        return self._session

    def create(
        self,
        name: Name | None,
        data: Any = None,
        *,
        shape: Shape | None = None,
        dtype: Any = None,
        tensors: TensorSpecs | None = None,
        model: Name = DEFAULT_MODEL,
        version: Version | None = None,
        ttl: Seconds | None = None,
        linger: Seconds | None = None,
        handoff: Seconds | None = None,
        persist: bool = False,
        if_exists: IfExists = "fail",
        evictable: bool = False,
        on_full: OnFull = "fail",
        deadline: Seconds | None = None,
        labels: Labels | None = None,
        storage: StorageKind | None = None,
        private: bool = False,
        huge_pages: HugePages | None = None,
        device: DeviceName | None = None,
    ) -> Region:
        """Makes a region and maps it for writing. Others can attach it at once, and see it sealed after ``seal``.

        What it holds is one of: ``data``, an array-like (numpy, torch on the CPU, nested lists), which becomes the
        tensor ``data``, or a mapping of names to array-likes, copied in; ``shape`` and ``dtype`` of a lone ``data``;
        or ``tensors``, names to ``(dtype, shape)``. The last two are zeros to be written. A dtype is safetensors'
        name, numpy's or torch's.

        Arrays of ``data`` that share memory share it in the region: one array under two names, and contiguous views
        inside another array, are aliases, whose bytes are there once. What shares memory otherwise is copied apart,
        with a ``TensordWarning``.

        Its owner decides its end: this client's session, so that it ends with the process, however that ends; or
        ``ttl`` in seconds from now; ``linger``, as long as somebody maps it and that many seconds after (0 is a
        hand-off: once sealed, gone when its consumer lets go, or if none came within ``handoff`` seconds, 60, after its
        maker let go); ``persist=True`` until it is deleted, which needs a name.
        ``name=None`` makes a region that is reached by id or reference only.

        ``version`` says which build of the name it is; versions stand side by side, each with an owner of its own.

        ``if_exists`` says what a taken name, or version of it, means: ``"fail"``; ``"attach"``, which maps the region
        that is there if names, dtypes and shapes agree (for writing if it is open, else read-only) **without copying
        data**, and leaves ``created`` false; or ``"replace"``, which takes the name over when this region is sealed.

        ``on_full`` says what a full pool means: ``"fail"``; ``"evict"``, which frees what is ``evictable``, sealed and
        mapped by nobody; or ``"wait"``, which evicts, and waits up to ``deadline`` seconds (30) for others to let go.

        ``private=True`` gives it no name that other users could open: it is mapped by a descriptor from the server's
        broker (``Region.attached_by``). ``storage="memfd"`` does so as well, and has the kernel refuse all writes once
        it is sealed. ``huge_pages="2MiB"`` makes it of such pages, of which the host must have reserved enough.

        ``storage="heap"`` is for processes that share no memory with the server, and the default where the server has
        nothing else: what is mapped here is this process's own memory until ``seal`` uploads it, once; who attaches it
        downloads it, once a process. Until then nobody else can attach it (``StorageUnavailable``), nor is there a ring
        of it. Without ``storage`` it is the first that the server has of ``shm``, ``memfd`` and ``heap``; and ``heap``
        where such a region can be reached here neither by its name nor by the broker, which is logged once.

        ``device="cuda:0"``, or its UUID, makes it in the memory of that device instead: a ``DeviceRegion``, into which
        ``data`` is copied.

        If anything fails after the server made the region, it is deleted again. A create whose answer is lost is
        repeated only with ``if_exists="attach"``, since otherwise it could find its own region in the way. Raises
        ``NameTaken``, ``NameClaimed``, ``OutOfMemory`` and its kinds, ``DeadlineExceeded``, ``ValidationFailed``,
        ``OwnerRequired`` where there is no session.
        """
        sources, specs = to_specs(data, shape, dtype, tensors)
        body = to_creation(
            model=model,
            name=name,
            version=version,
            ttl=ttl,
            linger=linger,
            handoff=handoff,
            persist=persist,
            evictable=evictable,
            on_full=on_full,
            deadline=deadline,
            labels=labels,
            storage=storage,
            private=private,
            huge_pages=huge_pages,
            device=device,
        )
        body["tensors"] = specs
        body["if_exists"] = if_exists
        return make_region(self._api, self._session, sources, body, self._asked)

    def get_or_create(
        self,
        name: Name,
        build: Callable[[], Any],
        *,
        model: Name = DEFAULT_MODEL,
        version: Version | None = None,
        linger: Seconds | None = None,
        handoff: Seconds | None = None,
        ttl: Seconds | None = None,
        persist: bool = False,
        timeout: Timeout | None = None,
        rebuild: bool = False,
        checksum: bool = False,
        strict: bool = False,
        evictable: bool = False,
        on_full: OnFull = "fail",
        deadline: Seconds | None = None,
        labels: Labels | None = None,
        storage: StorageKind | None = None,
        private: bool = False,
        huge_pages: HugePages | None = None,
        device: DeviceName | None = None,
    ) -> Region:
        """The region of that name, sealed and mapped for reading. If there is none, one caller of all processes builds.

        ``build()`` returns what ``create`` takes as ``data``: an array, or a mapping of names to arrays (a
        ``state_dict``). It runs in one process at a time; the others wait, up to ``timeout`` seconds, and get what it
        has made, never a part of it. If it raises, or its process dies, the next in line builds.

        ``version`` names one build of it: of this code, of this configuration; each version is built once. Without it
        the name alone is meant, as in ``attach``, and what is built has the empty version.

        What is there is found though the code that builds it has changed since: ``created`` tells whether this call
        has built it, ``age`` how old it is. ``rebuild=True`` builds it anew, the empty version unless one is said.
        Until the new one is sealed, which takes the name over, everybody else gets the old one, whose memory is needed
        beside the new one's; if the build fails it stays. Of several who ask for that at a time one builds, and the
        others get what it has made.

        By default the region lingers for 600 seconds after the last process that maps it; ``linger`` with ``handoff``,
        ``ttl`` or ``persist`` say otherwise, as in ``create``. They, ``device`` and the rest count where it is built;
        ``created`` tells whether that was here. ``strict`` counts where it is not, as in ``attach``.

        Raises what ``build`` raises, ``DeadlineExceeded`` when the time is over and somebody builds still, and what
        ``create`` and ``seal`` raise.
        """
        if self._session is None:
            raise ValidationFailed(
                f"Cannot take turns to build {name!r}: this client has no session", hint="connect without session=False"
            )
        if ttl is None and not persist and linger is None and handoff is None:
            linger = LINGER_SECONDS
        body = to_creation(
            model=model,
            name=name,
            version=version,
            ttl=ttl,
            linger=linger,
            handoff=handoff,
            persist=persist,
            evictable=evictable,
            on_full=on_full,
            deadline=deadline,
            labels=labels,
            storage=storage,
            private=private,
            huge_pages=huge_pages,
            device=device,
        )
        return get_or_build(
            self._api,
            self._session,
            build,
            body,
            name=name,
            timeout=timeout,
            checksum=checksum,
            strict=strict,
            rebuild=rebuild,
        )

    @overload
    def attach(
        self,
        region: Name | RegionDescriptor,
        *,
        model: Name = DEFAULT_MODEL,
        version: Version | None = None,
        timeout: Timeout = 0.0,
        writable: bool = False,
        strict: bool = False,
        device: None = None,
    ) -> Region: ...
    @overload
    def attach(
        self,
        region: Name | RegionDescriptor,
        *,
        model: Name = DEFAULT_MODEL,
        version: Version | None = None,
        timeout: Timeout = 0.0,
        writable: bool = False,
        strict: bool = False,
        device: DeviceName,
    ) -> DeviceRegion: ...
    @overload
    def attach(
        self,
        region: Names,
        *,
        model: Name = DEFAULT_MODEL,
        version: Version | None = None,
        timeout: Timeout = 0.0,
        writable: bool = False,
        strict: bool = False,
    ) -> Group: ...
    def attach(
        self,
        region: Name | RegionDescriptor | Names,
        *,
        model: Name = DEFAULT_MODEL,
        version: Version | None = None,
        timeout: Timeout = 0.0,
        writable: bool = False,
        strict: bool = False,
        device: DeviceName | None = None,
    ) -> Region | Group:
        """Maps a region that exists, by its name in ``model``, or by a descriptor in hand, which costs no request,
        unless it comes from a list.

        A list of up to 1,000 names maps a group: all of them as they are in one turn of the server, so that what
        ``seal`` or ``replace`` changed together is met together, all of the old or all of the new. It is a ``Group`` of
        ``Region``s in that order; the rest counts for each of them.

        ``version`` names one build of the name. Without it the name alone is meant: the newest version that is sealed,
        or, where none is, the newest; so it is with a ``timeout`` in every moment of the wait. What is sealed, and was
        attached so before by this client, costs no request as long as it stands and, by its name alone, neither was
        changed nor has a newer version; ``descriptor`` is what the server said of it then.

        ``timeout=0`` maps it at once, open or sealed; an open one shows what its writers write. With a ``timeout`` in
        seconds a reader waits until the region is there *and sealed*, a writer until it is there. ``writable=True``
        maps an open region for writing. Otherwise it is read-only: ``numpy()`` is ``writeable=False``, and in-place
        torch operations stay private to this process; ``strict=True`` makes any such write a crash instead, and
        forbids ``torch()``.

        A region in the memory of a device is mapped there, as a ``DeviceRegion``. ``device="cuda:0"``, or its UUID,
        says that it must be on that one, and ``"cuda"`` that it must be on any: ``FeatureUnavailable`` otherwise.

        Raises ``RegionNotFound``, ``RegionNotSealed`` if the time ends with an open region, ``RegionSealed`` for a
        writer, ``WrongNamespace`` if this process sees another file system than the server, ``AccessDenied``.
        """
        if isinstance(region, (list, tuple)):
            # A tuple by now, whatever it was.
            if device is not None:
                raise ValidationFailed("Cannot attach a group with device=: say it for one region", hint="leave it out")
            group = NamedGroup(model, tuple(region), version)
            return open_group(self._api, self._session, group, timeout, writable=writable, strict=strict)
        wanted = None if device is None else to_wanted_device(device)
        if isinstance(region, RegionDescriptor):
            check_device(region, wanted)
            return open_region(
                self._api, self._session, region, None, writable=writable, strict=strict, asked=self._asked
            )

        named = NamedRegion(model, region, version)

        def find() -> RegionDescriptor:
            found = find_region(self._api, named, timeout, writable=writable)
            check_device(found, wanted)
            if self._session is not None:
                self._known_sealed.note(self._api, named, found)
            return found

        known = None if writable or wanted is not None else self._known_sealed.get(self._api, named)
        return open_region(
            self._api, self._session, known or find(), find, writable=writable, strict=strict, asked=self._asked
        )

    def hold(
        self,
        region: Name | RegionDescriptor,
        *,
        model: Name = DEFAULT_MODEL,
        version: Version | None = None,
        timeout: Timeout = 0.0,
    ) -> PathHold:
        """Keeps a region in use while something in this process reads its file by path: an engine that maps it, as ONNX
        Runtime and llama.cpp do, takes no lease, and what nobody leases may be evicted, or end with its owner.
        Arguments as for ``attach``.

        ``with tensord.hold("weights") as path:`` gives the path; what was loaded from it is to be let go before the
        end, or the hold kept as long. It needs address space of the region's size, and no memory.

        Raises as ``attach`` does, and ``FeatureUnavailable`` of ``heap`` storage and of memory on a device.
        """

        def find() -> RegionDescriptor:
            if isinstance(region, RegionDescriptor):
                found = self._api.region(region.id)
            else:
                found = find_region(self._api, NamedRegion(model, region, version), timeout, writable=False)
            check_has_path(found)
            return found

        return PathHold(open_region(self._api, self._session, find(), find, writable=False, strict=True))

    def seal(
        self,
        regions: Sequence[AnyRegion],
        *,
        model: Name = DEFAULT_MODEL,
        version: Version | None = None,
        checksum: bool = False,
        stock_writable: bool = False,
        if_match: Sequence[Revision] | None = None,
    ) -> tuple[RegionDescriptor, ...]:
        """Seals a group, up to 1,000 regions of one model, in one turn: all or none. Names that they take over
        (``if_exists="replace"``) change hands together, so that who attaches all of them meets one version.

        Each is a ``Region`` that this process maps, which it gives up writing to as ``Region.seal`` does, or else what
        ``delete`` takes, which nobody may map for writing. Flags as for ``Region.seal``; ``if_match`` is a list of
        revisions, one for each. Returns their descriptors, without ``tensors`` for those that are not mapped here.

        If one is refused, which the error names, every one stays open, and writable here. Raises as ``Region.seal``
        does, and ``ValidationFailed`` for regions of two models, or two that would have one name.
        """
        members = [region if isinstance(region, Region) else self._id_of(region, model, version) for region in regions]
        return seal_group(self._api, members, if_match, checksum=checksum, stock_writable=stock_writable)

    def open(
        self, ref: TensorReference, *, writable: bool = False, strict: bool = False, timeout: Timeout | None = None
    ) -> OpenedTensor:
        """Maps one tensor from a reference. Asks no server, so it works while there is none; only where the file is not
        there the server is asked whether its region stands, since a stock reader's exit may have taken the name.

        Flags as in ``attach``. The caller closes it. Raises ``StaleRef`` if the file is not the one meant,
        ``RegionSealed`` for a writer, ``AccessDenied``.

        One in a slot of a ring is locked until it is closed. While somebody writes into the slot it waits, for at most
        ``timeout`` seconds, without end if that is ``None``, and raises ``DeadlineExceeded``; ``StaleRef`` if the slot
        holds something else by now.
        """
        access = to_access(writable=writable, strict=strict)
        if ref.generation:
            return open_slot(ref, access, timeout, self._asked)
        tensor = open_reference(ref, access, self._asked, keeps_by(self._session))
        if self._session is not None and tensor._attachment.place.copy is None:
            # Told once there is a session for another reason: no server is asked here.
            self._session._report(tensor._attachment, start=False, hand_off=None)
        return tensor

    def rings(self) -> Rings:
        """Opens references of rings as ``open`` does, and keeps the rings mapped in between: for who opens many."""
        return Rings(self._asked)

    def receiver(self, ref: TensorReference, *, writable: bool = False, only_new: bool = False) -> Receiver:
        """Receives what the owner of a ring sends: ``ref`` is its ``ring.ref()``. Asks no server, as ``open``.

        With ``writable=True`` it takes requests too, which it answers in their slots. It begins with the oldest message
        that is still there; with ``only_new=True`` with the next one that is sent. The caller closes it. Raises
        ``StaleRef`` if the ring is gone; ``ValidationFailed`` if the reference is of something else, as of a slot;
        ``FeatureUnavailable`` for a ring of a later layout; ``AccessDenied``.
        """
        return Receiver(ref, writable=writable, only_new=only_new, asked=self._asked)

    def ring(
        self,
        *,
        slots: Count = 16,
        slot_bytes: Count = 8 << 20,
        name: Name | None = None,
        model: Name = DEFAULT_MODEL,
        version: Version | None = None,
        ttl: Seconds | None = None,
        linger: Seconds | None = None,
        handoff: Seconds | None = None,
        persist: bool = False,
        if_exists: Literal["fail", "attach"] = "fail",
        on_full: OnFull = "fail",
        deadline: Seconds | None = None,
        labels: Labels | None = None,
        storage: StorageKind | None = None,
        private: bool = False,
        huge_pages: HugePages | None = None,
    ) -> Ring:
        """Makes a ring: ``slots`` of ``slot_bytes`` each, to send tensors of single requests to other processes.

        ``slot_bytes`` is rounded up to a multiple of 8. ``name`` and the rest are those of ``create``, the owner among
        them: it ends the ring's region, which is never sealed. A ring has one owner: a name that is there is
        ``NameTaken`` with ``if_exists="attach"`` too, which only says that the create may be repeated after a lost
        answer. Raises as ``create`` does.
        """
        if storage == "heap":
            raise refuse_ring()
        made = self.create(
            name,
            tensors=to_ring_tensors(slots, slot_bytes),
            model=model,
            version=version,
            ttl=ttl,
            linger=linger,
            handoff=handoff,
            persist=persist,
            if_exists=if_exists,
            on_full=on_full,
            deadline=deadline,
            labels=labels,
            storage=storage,
            private=private,
            huge_pages=huge_pages,
        )
        try:
            if is_heap(made.descriptor):
                # The default of a server that has nothing else. What can never be used shall not be left behind.
                with contextlib.suppress(TensordError):
                    self.delete(made)
                raise refuse_ring(made.descriptor)
            return Ring(made)
        except BaseException:
            made.close()
            raise

    def get(self, name: Name, *, model: Name = DEFAULT_MODEL, version: Version | None = None) -> RegionDescriptor:
        """The region of that name and ``version``, as it is now; which one without, ``attach`` says. Raises
        ``RegionNotFound``.
        """
        return self._api.region_by_name(NamedRegion(model, name, version))

    def get_by_id(self, region_id: Text) -> RegionDescriptor:
        """The region with that id, as it is now. Raises ``RegionNotFound``."""
        return self._api.region(region_id)

    def list(
        self,
        *,
        model: Name | None = None,
        name: Name | None = None,
        version: Version | None = None,
        state: State | None = None,
        session: Text | Session | None = None,
        label: Label | None = None,
    ) -> Iterator[RegionDescriptor]:
        """All regions that match, everybody's, page by page as they are consumed.

        ``session`` narrows them to those that end with one session, by its id; ``client.session`` is this client's own.
        ``label`` is a key and its value. By ``name`` all its versions are listed, unless one is said.
        """
        if isinstance(session, Session):
            if session.opened_id is None:
                # Opened only to be told that it has nothing, it would be another session to end.
                return iter(())
            session = session.opened_id
        query = {"model": model, "name": name, "version": version, "state": state, "session": session}
        return self._api.regions({**query, "label": None if label is None else "=".join(label)})

    def change(
        self,
        region: AnyRegion,
        *,
        model: Name = DEFAULT_MODEL,
        version: Version | None = None,
        ttl: Seconds | None = None,
        linger: Seconds | None = None,
        handoff: Seconds | None = None,
        persist: bool = False,
        evictable: bool | None = None,
        labels: LabelChanges | None = None,
        if_match: Revision | None = None,
    ) -> RegionDescriptor:
        """Changes a region's owner, whether it may be evicted, or its labels. ``region`` is as for ``delete``.

        ``ttl`` is in seconds from now; ``linger`` and ``handoff`` are as in ``create``. Labels that are not
        named stay; ``None`` removes one. With ``if_match`` only a region of that ``revision`` is changed. Raises
        ``RevisionMismatch``.
        """
        body = to_change(ttl=ttl, linger=linger, handoff=handoff, persist=persist, evictable=evictable, labels=labels)
        return self._api.change_region(self._id_of(region, model, version), body, if_match)

    def verify(self, region: AnyRegion, *, model: Name = DEFAULT_MODEL, version: Version | None = None) -> Verification:
        """Has the server recompute a sealed region's checksum and compare it with the one taken at its seal.

        ``region`` is as for ``delete``. Raises ``RegionNotSealed``, ``RegionNotFound``.
        """
        return self._api.verify(self._id_of(region, model, version))

    def delete(
        self,
        region: AnyRegion,
        *,
        model: Name = DEFAULT_MODEL,
        version: Version | None = None,
        if_match: Revision | None = None,
    ) -> Deletion:
        """Deletes a region. Its name is free at once; its memory when the last process that maps it lets go.

        ``region`` is a ``Region``, a descriptor, an id, or a name in ``model``, of that ``version``; which one without,
        ``attach`` says. With ``if_match`` only a region of that ``revision``. Raises ``RegionNotFound``,
        ``RevisionMismatch``.
        """
        return self._api.delete_region(self._id_of(region, model, version), if_match)

    def evict(
        self, byte_size: ByteCount, *, model: Name | None = None, pool: Text | None = None, dry_run: bool = False
    ) -> Eviction:
        """Frees that many bytes beyond what is free, of what is evictable, sealed and mapped by nobody; least recently
        used first. ``pool`` is ``"host"``, which is the default, or a device's UUID. Says what went, what stayed and
        why; with ``dry_run`` what would go.
        """
        return self._api.evict(to_eviction(byte_size, model, pool, dry_run=dry_run))

    def copy(
        self,
        region: AnyRegion,
        *,
        name: Name | None = None,
        model: Name = DEFAULT_MODEL,
        version: Version | None = None,
        ttl: Seconds | None = None,
        linger: Seconds | None = None,
        handoff: Seconds | None = None,
        persist: bool = False,
        if_exists: IfExists = "fail",
        evictable: bool = False,
        on_full: OnFull = "fail",
        deadline: Seconds | None = None,
        labels: Labels | None = None,
        storage: StorageKind | None = None,
        private: bool = False,
        huge_pages: HugePages | None = None,
        device: DeviceName | None = None,
    ) -> Operation[RegionDescriptor]:
        """Has the server copy a sealed region into a new one, of any storage, and returns at once: the ``Operation``
        goes on by itself, and ``operation.wait()`` is its end. The copy is read back, compared, and there only when it
        is whole and sealed. Its source is kept until then.

        ``region`` is as for ``delete``, a name being looked up in ``model``, as ``attach`` does; all else is what the
        copy is to be, as in ``create``: ``name``, ``version``, an owner of its own (this client's session, if none is
        said), and what it is made of. With ``if_exists="attach"`` a region of that name which has the same tensors is
        taken instead: of many who ask for one copy the first makes it.

        Raises ``RegionNotFound``, ``RegionNotSealed``, ``StorageUnavailable``, ``OwnerRequired`` where there is no
        session; what goes wrong later, ``Operation.wait`` raises.
        """
        body = to_creation(
            model=model,
            name=name,
            version=version,
            ttl=ttl,
            linger=linger,
            handoff=handoff,
            persist=persist,
            evictable=evictable,
            on_full=on_full,
            deadline=deadline,
            labels=labels,
            storage=storage,
            private=private,
            huge_pages=huge_pages,
            device=device,
        )
        return start_copy(self._api, self._session, self._id_of(region, model, None), to_copy(body, if_exists))

    def load(
        self,
        path: FilePath,
        *,
        name: Name | None = None,
        model: Name = DEFAULT_MODEL,
        version: Version | None = None,
        raw: bool = False,
        mode: LoadMode = "copy",
        ttl: Seconds | None = None,
        linger: Seconds | None = None,
        handoff: Seconds | None = None,
        persist: bool = False,
        if_exists: LoadIfExists = "attach",
        evictable: bool = False,
        on_full: OnFull = "fail",
        deadline: Seconds | None = None,
        labels: Labels | None = None,
        storage: StorageKind | None = None,
        private: bool = False,
        huge_pages: HugePages | None = None,
        device: DeviceName | None = None,
    ) -> Operation[RegionDescriptor]:
        """Has the server load a model file into a region, and returns at once: the ``Operation`` goes on by itself, and
        ``operation.wait()`` is its end. Safetensors, GGUF, ``.npy`` and ``.npz``, each also compressed as a whole by
        gzip or zstd, and with ``raw=True`` any file, are kept byte for byte, so that engines find in the region's
        file what they know; a model in several files is one region, by its ``.safetensors.index.json``. The region is
        there only when it is whole and sealed.

        ``path`` is as the server sees it, below one of the folders of its ``TENSORD_MODEL_ROOTS``, or the URI
        of an object, ``s3://bucket/key``, below one of its prefixes; the server reads it, so this process need not be
        able to. ``name`` is the file's, without its suffix, unless it is said. ``version``
        is one that stands for the state of the file, unless it is said: who loads the same file gets the same region,
        also while it is still loading, and a file that has changed becomes another version beside. With
        ``if_exists="fail"`` a version that is there is ``NameTaken`` instead.

        With ``mode="map"`` the region is the file itself: nothing is copied or charged, every process maps the file
        and so must be able to read it, and who writes to it changes what is mapped. ``"auto"`` maps one file that is
        not compressed, lies on a file system of this machine, and that no worker may write to, and copies any other;
        ``operation.descriptor`` has the ``mode`` and the ``reason``.

        All else is what the region is to be, as in ``create``; by default it lingers for 600 seconds after the last
        process that maps it.

        Raises ``Forbidden`` for a path below no root, ``ModelNotFound``, ``StorageUnavailable``; what goes wrong later,
        ``Operation.wait`` raises: ``InvalidModelFile``, ``UnsupportedFormat``, ``ReadWriteError``,
        ``SourceUnavailable``, ``OutOfMemory``.
        """
        if ttl is None and not persist and linger is None and handoff is None:
            linger = LINGER_SECONDS
        body = to_creation(
            model=model,
            name=name,
            version=version,
            ttl=ttl,
            linger=linger,
            handoff=handoff,
            persist=persist,
            evictable=evictable,
            on_full=on_full,
            deadline=deadline,
            labels=labels,
            storage=storage,
            private=private,
            huge_pages=huge_pages,
            device=device,
        )
        # Text by now, whatever kind of path it was.
        of_model, load = to_load(cast("str", path), body, if_exists, raw=raw, mode=mode)
        return start_load(self._api, of_model, load)

    def load_model(
        self,
        path: FilePath,
        *,
        name: Name | None = None,
        model: Name = DEFAULT_MODEL,
        version: Version | None = None,
        raw: bool = False,
        mode: LoadMode = "copy",
        ttl: Seconds | None = None,
        linger: Seconds | None = None,
        handoff: Seconds | None = None,
        persist: bool = False,
        if_exists: LoadIfExists = "attach",
        evictable: bool = False,
        on_full: OnFull = "fail",
        deadline: Seconds | None = None,
        labels: Labels | None = None,
        storage: StorageKind | None = None,
        private: bool = False,
        huge_pages: HugePages | None = None,
        device: DeviceName | None = None,
        timeout: Timeout | None = None,
        progress: Progress | None = None,
        strict: bool = False,
    ) -> Region:
        """Loads a model file as ``load`` does, waits for its end, and maps the region for reading: a mapping of the
        file's names to tensors. Of N workers that ask one load is made, and all share it; those who come later map what
        is there.

        ``progress(done_bytes, total_bytes)`` is called about once a second: ``tensord.progress_bar`` draws a bar.
        ``timeout`` in seconds bounds the wait, and cancels the load when it is over. ``strict`` counts as in
        ``attach``. Raises as ``load``, ``Operation.wait`` and ``attach`` do.
        """
        operation = self.load(
            path,
            name=name,
            model=model,
            version=version,
            raw=raw,
            mode=mode,
            ttl=ttl,
            linger=linger,
            handoff=handoff,
            persist=persist,
            if_exists=if_exists,
            evictable=evictable,
            on_full=on_full,
            deadline=deadline,
            labels=labels,
            storage=storage,
            private=private,
            huge_pages=huge_pages,
            device=device,
        )
        region = finish_copy(operation, timeout, progress)
        return open_region(self._api, self._session, region, None, writable=False, strict=strict)

    def operations(
        self, *, model: Name | None = None, state: OperationState | None = None
    ) -> Iterator[Operation[RegionDescriptor | None]]:
        """The operations that run, and those that ended a while ago, everybody's, page by page as they are consumed."""
        for descriptor in self._api.operations({"model": model, "state": state}):
            yield Operation(self._api, descriptor)

    def operation(self, operation_id: Text) -> Operation[RegionDescriptor | None]:
        """The operation with that id, as it is now. Raises ``OperationNotFound``."""
        return Operation(self._api, self._api.operation(operation_id))

    def leases(
        self, region: AnyRegion, *, model: Name = DEFAULT_MODEL, version: Version | None = None
    ) -> Iterator[Lease]:
        """A region's leases by request, page by page as they are consumed; ``holders`` of a descriptor says who maps
        it. ``region`` is as for ``delete``. Raises ``RegionNotFound``.
        """
        return self._api.leases(self._id_of(region, model, version))

    def sessions(self) -> Iterator[SessionDescriptor]:
        """All sessions, of every process, page by page as they are consumed."""
        return self._api.sessions()

    def models(self) -> Iterator[Model]:
        """All models, page by page as they are consumed."""
        return self._api.models()

    def model(self, name: Name) -> Model:
        """One model with its books. Raises ``ModelNotFound``."""
        return self._api.model(name)

    def register_model(
        self, name: Name, *, memory_limit_bytes: ByteCount | None = None, limits: PoolLimits | None = None
    ) -> Model:
        """Registers a model, with limits of its own: of host memory, and by pool (``"host"``, or a device's UUID).

        Raises ``ModelExists``.
        """
        body: schemas.RegisterModel = {"name": name}
        if memory_limit_bytes is not None:
            body["memory_limit_bytes"] = memory_limit_bytes
        if limits:
            body["limits"] = to_pool_limits(limits)
        return self._api.register_model(body)

    def change_model(
        self,
        name: Name,
        *,
        memory_limit_bytes: ByteCount | Literal["unchanged"] | None = "unchanged",
        limits: PoolLimits | None = None,
        if_match: Revision | None = None,
    ) -> Model:
        """Changes a model's limits: of host memory, and by pool (``"host"``, or a device's UUID). ``None`` removes one,
        and pools that are not named keep theirs. With ``if_match`` only a model of that ``revision``.

        Raises ``ModelNotFound``, ``RevisionMismatch``.
        """
        body: schemas.ChangeModel = {}
        if memory_limit_bytes != "unchanged":
            body["memory_limit_bytes"] = memory_limit_bytes
        if limits:
            body["limits"] = to_pool_limits(limits)
        return self._api.change_model(name, body, if_match)

    def unregister_model(self, name: Name, *, drain: bool = False, if_match: Revision | None = None) -> Deletion:
        """Unregisters a model; ``drain=True`` deletes its regions with it. With ``if_match`` only a model of that
        ``revision``. Raises ``ModelInUse``, ``ModelNotFound``, ``RevisionMismatch``.
        """
        return self._api.unregister_model(name, drain=drain, if_match=if_match)

    def stats(self) -> Stats:
        """The server's books: bytes, inodes, regions by state, models."""
        return self._api.stats()

    def devices(self) -> DeviceList:
        """The GPUs of the server's host: what each has and what is taken of it, and why one cannot be used."""
        return self._api.devices()

    def device(self, device_uuid: Text) -> Device:
        """One of them, by its UUID. Raises ``DeviceNotFound``."""
        return self._api.device(device_uuid)

    def pool(
        self,
        model: Name,
        device: DeviceName,
        capacity: ByteCount | None = None,
        *,
        page_size: ByteCount | None = None,
        minimum: ByteCount | None = None,
        maximum: ByteCount | None = None,
        moves: bool = False,
    ) -> SharedPool:
        """A model's elastic pool on a device (``"cuda:0"``, or a UUID): a range of addresses that stays, into which
        pages are mapped and out of which they go, in every process that follows it. Of ``capacity`` bytes it is made,
        or, without, found; all that is mapped in it is mapped here when this returns. Close it, or use it in ``with``;
        ``Client.close`` does.

        ``page_size`` is a power of two, 64 MiB if it is not said. At least ``minimum`` bytes are kept for it, and at
        most ``maximum`` are taken. ``moves=True`` lets ``compact`` move pages while this process follows.

        Raises ``ElasticPoolExists`` for another one with other values, ``ElasticPoolNotFound``, ``ModelNotFound``,
        ``InvalidPageSize``, ``PoolFull``, ``DeviceNotFound``, ``FeatureUnavailable``, ``DriverFailed``.
        """
        if capacity is None and (page_size, minimum, maximum) != (None, None, None):
            raise ValidationFailed(
                "Cannot find an elastic pool by its values: page_size, minimum or maximum is there without capacity",
                hint="pass the capacity, which makes the pool if there is none",
            )
        pool = open_pool(
            self._api,
            self._session,
            model,
            choose_device(device),
            capacity=capacity,
            page_size=page_size,
            minimum=minimum,
            maximum=maximum,
            moves=moves,
            open_events=self._follow_pools,
        )
        self._pools.add(pool)
        return pool

    def pools(self, *, model: Name | None = None) -> Iterator[PoolStatistics]:
        """The elastic pools of every model, or of one, with their sums and without their runs, page by page as they are
        consumed.
        """
        return self._api.elastic_pools({"model": model})

    def delete_pool(self, model: Name, device: DeviceName, *, if_match: Revision | None = None) -> Deletion:
        """Deletes an elastic pool with all that is mapped in it. With ``if_match`` only one of that ``revision``.
        Raises ``InUse`` while a process follows it, ``ElasticPoolNotFound``, ``RevisionMismatch``.
        """
        return self._api.delete_elastic_pool(model, choose_device(device), if_match)

    def _follow_pools(self, after: str, model: str) -> EventStream:
        query = {"after": after, "model": model, "types": "tensord.vmm."}
        return EventStream(self._transport, query, reconnect=True)

    def events(
        self,
        *,
        after: Text | None = None,
        model: Name | None = None,
        session: Text | None = None,
        types: Prefixes | None = None,
        reconnect: bool = True,
    ) -> EventStream:
        """Follows what happens to regions, sessions and models: everything from now on, or after the event with the
        id ``after``.

        When this returns the stream has begun: whatever changes from here on will come, so list *then*, and follow.
        ``model`` narrows it to one model and its regions, ``session`` to one session, by its id, and the regions that
        it owns, ``types`` to types with one of these prefixes (``"tensord.region."``).

        The stream resumes by itself after a cut connection and through restarts of the server, however long they take;
        ``reconnect=False`` ends it with ``ServerUnavailable`` at the first cut instead. An event of the type
        ``tensord.stream.gap`` says that some are not kept any more, or that nobody knows after a crash: list again.
        Raises ``ServerUnavailable``, ``ValidationFailed``, ``TooManyRequests``.
        """
        # Several are one text by now.
        prefixes = cast("str | None", types)
        query = _without_none({"after": after, "model": model, "session": session, "types": prefixes})
        return EventStream(self._transport, query, reconnect=reconnect)

    def _id_of(self, region: AnyRegion, model: str, version: str | None) -> str:
        if not isinstance(region, str):
            return region.id
        # What looks like an id is one, though a region may be called so.
        return region if is_region_id(region) else self._api.region_by_name(NamedRegion(model, region, version)).id

    def close(self) -> None:
        """Closes elastic pools, ends the session, and with it what it owns; closes the connections; event streams raise
        ``Closed``. Safe to call twice. Regions stay mapped.
        """
        self._known_sealed.clear()
        with contextlib.ExitStack() as ending:
            ending.callback(self._transport.close)
            ending.callback(self._api.broker.close)
            if self._session is not None:
                ending.callback(self._session.end)
            for pool in list(self._pools):
                ending.callback(pool.close)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<tensord.Client {self.url}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client cannot be pickled or copied: connect again")


def _without_none(query: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in query.items() if value is not None}
