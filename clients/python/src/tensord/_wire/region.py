"""What the server says about a region: plain, frozen records parsed from its JSON. Nothing here maps or asks.

Fields that this version does not know are kept in ``RegionDescriptor.raw`` and otherwise ignored. Words are read as
they stand: a kind of storage or an element type that this version does not know matters only to who maps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from .quick_record import maker_of
from .reading import read
from .session import ClientDescriptor, to_client
from .tensors import TensorInfo, TensorInfos

if TYPE_CHECKING:
    from . import schemas


@dataclass(frozen=True, slots=True)
class Owner:
    """What decides a region's end: ``kind`` is ``session``, ``ttl``, ``linger`` or ``persist``. The field of that kind
    says which session, or how many milliseconds; ``handoff_ms`` how long a hand-off waits for its consumer.
    """

    kind: str
    ttl_ms: int | None = None
    linger_ms: int | None = None
    handoff_ms: int | None = None
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a region's bytes are: ``byte_size`` is all of them. ``dev`` and ``ino`` are the identity of the file at
    ``path``; ``None`` where the ``kind`` of storage has no such thing. ``maker_byte`` says whether the server asks for
    the maker's byte, which who makes the region holds in place of the lease byte. ``href`` is where the bytes come and
    go of storage that no process maps.

    Of memory of a device, ``device_uuid`` says of which, ``handle_type`` as what it is shared, and ``allocation_bytes``
    how much is mapped (of other memory what it takes, or ``None``); ``dev`` and ``ino`` are those of the file that
    carries its locks. Of other memory the first two are ``None``.

    Of ``file`` storage, whose bytes are a file of somebody else's, ``immutable`` is false, ``mtime_ns`` is when it was
    last written as it was loaded, and ``changed`` says what has become of it since: ``modified``, ``replaced``,
    ``gone``, ``not-allowed``, or ``None`` if it is as it was.
    """

    kind: str
    path: str | None
    shm_name: str | None
    dev: int | None
    ino: int | None
    byte_size: int
    maker_byte: bool = False
    href: str | None = None
    device_uuid: str | None = None
    handle_type: str | None = None
    allocation_bytes: int | None = None
    immutable: bool = True
    mtime_ns: int | None = None
    changed: str | None = None


@dataclass(frozen=True, slots=True)
class Checksum:
    """A sealed region's checksum, as recorded at its seal."""

    algorithm: str
    chunk_bytes: int
    value: str


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that maps a region ``mappings`` times, as its client reports. ``session`` is the id of its session."""

    session: str
    client: ClientDescriptor | None
    mappings: int
    writable: bool


@dataclass(frozen=True, slots=True)
class Drain:
    """Why a deleted region is there still: it ``waits_for`` a ``lease``, since a process maps it, or a ``hard-link``,
    since something outside links its file. ``reason`` is why it was deleted.
    """

    reason: str | None
    waits_for: str | None


@dataclass(frozen=True, slots=True)
class RegionDescriptor:
    """A region as the server described it at one moment.

    ``state`` is ``creating``, ``open``, ``sealing``, ``sealed``, ``draining`` or ``deleted``; times are RFC 3339.
    ``version`` tells builds of one name apart. ``session`` is the one that ends it: its owner, or its builder until it
    is sealed. ``pending_name`` is the name that it takes over when it is sealed.

    In lists, where the server does not ask the kernel, ``None`` are: ``in_use``; ``has_writers``;
    ``lease_barred``, whether somebody write-locks its lease byte; ``leases``, those by
    request; ``holders``, who maps it, as their clients report; and ``unknown_holders``, whether somebody maps it whom
    nobody reported. So are ``tensors``, of which there may be thousands: ``tensor_count`` says how many. ``drain`` is
    there while it drains. ``raw`` is the JSON object itself.
    """

    id: str
    model: str
    name: str | None
    state: str
    revision: int
    owner: Owner
    expires_at: str | None
    labels: Mapping[str, str]
    storage: Storage
    tensor_count: int
    tensors: Sequence[TensorInfo] | None
    checksum: Checksum | None
    created_at: str
    sealed_at: str | None
    in_use: bool | None = None
    has_writers: bool | None = None
    lease_barred: bool | None = None
    session: str | None = None
    evictable: bool = False
    version: str = ""
    holders: tuple[Holder, ...] | None = None
    unknown_holders: bool | None = None
    pending_name: str | None = None
    last_used_at: str | None = None
    leases: int | None = None
    drain: Drain | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def shown(self) -> str:
        """How messages call it: its id, and its name if it has one."""
        return self.id if self.name is None else f"{self.id} ({self.model}/{self.name}{show_version(self.version)})"


_make_region, _make_owner, _make_storage = maker_of(RegionDescriptor), maker_of(Owner), maker_of(Storage)


def is_hand_off(region: RegionDescriptor) -> bool:
    """Whether it is gone when its consumer lets go."""
    return region.owner.kind == "linger" and region.owner.linger_ms == 0


@dataclass(frozen=True, slots=True)
class Verification:
    """A recomputed checksum beside the recorded one. ``ok`` and ``expected`` are ``None`` if none was recorded."""

    ok: bool | None
    algorithm: str
    expected: str | None
    actual: str


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a delete did: ``state`` is ``deleted``, or ``draining`` while somebody still maps the region.

    ``freed_bytes`` is what came back at once; 0 as well if a restart of the server swallowed the first answer.
    """

    state: str
    freed_bytes: int


def show_version(version: str | None) -> str:
    """How messages go on behind a name."""
    return f", version {version}" if version else ""


def parse_descriptor(value: Any) -> RegionDescriptor:
    """Reads a region's JSON. Raises ``ServerFault`` if it is not one."""
    return read("region descriptor", _to_descriptor, value)


def parse_described_storage(value: Any) -> Storage:
    """The storage of a region's JSON, as the broker answers it. Raises ``ServerFault`` if there is none."""
    return read("region descriptor", _to_described_storage, value)


def parse_verification(value: Any) -> Verification:
    """Reads the answer of verify. Raises ``ServerFault`` if it is not one."""
    return read("verification", _to_verification, value)


def parse_deletion(value: Any) -> Deletion:
    """Reads the answer of a delete. Raises ``ServerFault`` if it is not one."""
    return read("deletion", _to_deletion, value)


def _to_descriptor(value: schemas.RegionFacts) -> RegionDescriptor:
    # What one region has and an item of a list has not.
    detail = cast("schemas.RegionDetail", value)
    checksum, holders, drain = value.get("checksum"), detail.get("holders"), detail.get("drain")
    tensors = None if detail.get("tensors") is None else TensorInfos(detail["tensors"])
    return _make_region(
        id=str(value["id"]),
        model=str(value["model"]),
        name=value.get("name"),
        state=str(value["state"]),
        revision=int(value["revision"]),
        owner=_to_owner(value["owner"]),
        expires_at=value.get("expires_at"),
        labels=dict(value.get("labels") or {}),
        storage=_to_storage(value["storage"]),
        tensor_count=int(value["tensor_count"]),
        tensors=tensors,
        checksum=None if checksum is None else _to_checksum(checksum),
        created_at=str(value["created_at"]),
        sealed_at=value.get("sealed_at"),
        in_use=detail.get("in_use"),
        has_writers=detail.get("has_writers"),
        lease_barred=detail.get("lease_barred"),
        session=value.get("session"),
        evictable=bool(value.get("evictable")),
        version=value.get("version") or "",
        holders=None if holders is None else tuple(map(_to_holder, holders)),
        unknown_holders=detail.get("unknown_holders"),
        pending_name=value.get("pending_name"),
        last_used_at=value.get("last_used_at"),
        leases=detail.get("leases"),
        drain=None if drain is None else Drain(reason=drain["reason"], waits_for=drain["waits_for"]),
        raw=value,
    )


def _to_owner(value: schemas.Owner) -> Owner:
    return _make_owner(
        kind=str(value["kind"]),
        ttl_ms=value.get("ttl_ms"),
        linger_ms=value.get("linger_ms"),
        handoff_ms=value.get("handoff_ms"),
        session=value.get("session"),
    )


def _to_described_storage(value: schemas.RegionFacts) -> Storage:
    return _to_storage(value["storage"])


def _to_storage(value: schemas.Storage) -> Storage:
    dev, ino = value.get("dev"), value.get("ino")
    # Only memory of a device has these.
    more: Mapping[str, Any] = value
    device_uuid, handle_type = more.get("device_uuid"), more.get("handle_type")
    allocation_bytes, mtime_ns = more.get("allocation_bytes"), more.get("mtime_ns")
    return _make_storage(
        kind=str(value["kind"]),
        path=value.get("path"),
        shm_name=value.get("shm_name"),
        dev=None if dev is None else int(dev),
        ino=None if ino is None else int(ino),
        byte_size=int(value["byte_size"]),
        # A server from before there was one says nothing of it.
        maker_byte=value.get("maker_byte") is True,
        href=value.get("href"),
        device_uuid=device_uuid,
        handle_type=handle_type,
        allocation_bytes=None if allocation_bytes is None else int(allocation_bytes),
        immutable=more.get("immutable") is not False,
        mtime_ns=None if mtime_ns is None else int(mtime_ns),
        changed=more.get("changed"),
    )


def _to_checksum(value: schemas.Checksum) -> Checksum:
    return Checksum(str(value["algorithm"]), int(value["chunk_bytes"]), str(value["value"]))


def _to_holder(value: schemas.Holder) -> Holder:
    return Holder(
        session=str(value["session"]),
        client=to_client(value["client"]),
        mappings=int(value["mappings"]),
        writable=bool(value["writable"]),
    )


def _to_verification(value: schemas.Verification) -> Verification:
    return Verification(value["ok"], str(value["algorithm"]), value["expected"], str(value["actual"]))


def _to_deletion(value: schemas.Deletion) -> Deletion:
    return Deletion(str(value["state"]), int(value["freed_bytes"]))
