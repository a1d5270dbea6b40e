"""What the server says about a region: plain, frozen records parsed from its JSON. Nothing here maps or asks.

Fields that this version does not know are kept in ``RegionDescriptor.raw`` and otherwise ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tensord._errors import ServerFault


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor of a region: ``byte_offset`` counts from the start of the region's file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    byte_offset: int
    byte_size: int


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a region's bytes are: ``dev`` and ``ino`` are the file's identity, ``byte_size`` is the whole file."""

    kind: str
    path: str | None
    shm_name: str | None
    dev: int
    ino: int
    byte_size: int


@dataclass(frozen=True, slots=True)
class Checksum:
    """A sealed region's checksum, as recorded at its seal."""

    algorithm: str
    chunk_bytes: int
    value: str


@dataclass(frozen=True, slots=True)
class RegionDescriptor:
    """A region as the server described it at one moment.

    ``state`` is ``creating``, ``open``, ``sealing``, ``sealed``, ``draining`` or ``deleted``; times are RFC 3339.
    ``session`` is the one that ends it: its owner, or its builder until it is sealed. In lists, where the server does
    not ask the kernel, ``None`` are: ``in_use``; ``has_writers``; ``holders``, who maps it, as their clients report;
    and ``unknown_holders``, whether somebody maps it whom nobody reported. Lists leave out ``tensors`` as well, of
    which they say ``tensor_count`` only. ``raw`` is the JSON object itself.
    """

    id: str
    model: str
    name: str | None
    state: str
    revision: int
    owner: Mapping[str, Any]
    expires_at: str | None
    labels: Mapping[str, str]
    storage: Storage
    tensor_count: int
    tensors: tuple[TensorInfo, ...]
    checksum: Checksum | None
    created_at: str
    sealed_at: str | None
    in_use: bool | None = None
    has_writers: bool | None = None
    session: str | None = None
    evictable: bool = False
    holders: tuple[Mapping[str, Any], ...] | None = None
    unknown_holders: bool | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def shown(self) -> str:
        """How messages call it: its id, and its name if it has one."""
        return self.id if self.name is None else f"{self.id} ({self.model}/{self.name})"


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """A recomputed checksum beside the recorded one. ``ok`` and ``expected`` are ``None`` if none was recorded."""

    ok: bool | None
    algorithm: str
    expected: str | None
    actual: str


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """What a delete did: ``state`` is ``deleted``, or ``draining`` while somebody still maps the region.

    ``freed_bytes`` is what came back at once; 0 as well if a restart of the server swallowed the first answer.
    """

    state: str
    freed_bytes: int


def parse_descriptor(value: Any) -> RegionDescriptor:
    """Reads a region's JSON. Raises ``ServerFault`` if it is not one."""
    try:
        storage, checksum = value["storage"], value.get("checksum")
        return RegionDescriptor(
            id=str(value["id"]),
            model=str(value["model"]),
            name=value.get("name"),
            state=str(value["state"]),
            revision=int(value["revision"]),
            owner=dict(value["owner"]),
            expires_at=value.get("expires_at"),
            labels=dict(value.get("labels") or {}),
            storage=Storage(
                kind=str(storage["kind"]),
                path=None if storage["path"] is None else str(storage["path"]),
                shm_name=storage.get("shm_name"),
                dev=int(storage["dev"]),
                ino=int(storage["ino"]),
                byte_size=int(storage["byte_size"]),
            ),
            tensor_count=int(value["tensor_count"]),
            tensors=tuple(_parse_tensor(tensor) for tensor in value.get("tensors", ())),
            checksum=None if checksum is None else _parse_checksum(checksum),
            created_at=str(value["created_at"]),
            sealed_at=value.get("sealed_at"),
            in_use=value.get("in_use"),
            has_writers=value.get("has_writers"),
            session=value.get("session"),
            evictable=bool(value.get("evictable")),
            holders=None if value.get("holders") is None else tuple(map(dict, value["holders"])),
            unknown_holders=value.get("unknown_holders"),
            raw=value,
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _not_a("region descriptor", error) from error


def parse_verify_result(value: Any) -> VerifyResult:
    """Reads the answer of verify. Raises ``ServerFault`` if it is not one."""
    try:
        return VerifyResult(value["ok"], str(value["algorithm"]), value["expected"], str(value["actual"]))
    except (LookupError, TypeError) as error:
        raise _not_a("verify result", error) from error


def parse_delete_result(value: Any) -> DeleteResult:
    """Reads the answer of a delete. Raises ``ServerFault`` if it is not one."""
    try:
        return DeleteResult(str(value["state"]), int(value["freed_bytes"]))
    except (LookupError, TypeError, ValueError) as error:
        raise _not_a("delete result", error) from error


def _parse_tensor(value: Any) -> TensorInfo:
    return TensorInfo(
        name=str(value["name"]),
        dtype=str(value["dtype"]),
        shape=tuple(int(size) for size in value["shape"]),
        byte_offset=int(value["byte_offset"]),
        byte_size=int(value["byte_size"]),
    )


def _parse_checksum(value: Any) -> Checksum:
    return Checksum(str(value["algorithm"]), int(value["chunk_bytes"]), str(value["value"]))


def _not_a(what: str, error: Exception) -> ServerFault:
    return ServerFault(
        f"Cannot read the server's answer: it is no {what} ({error!r})",
        hint="is the server another version, or is TENSORD_URL something else's address?",
    )
