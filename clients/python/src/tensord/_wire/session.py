"""What the server says about a session: plain, frozen records parsed from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .reading import read

if TYPE_CHECKING:
    from . import schemas


@dataclass(frozen=True, slots=True)
class ClientDescriptor:
    """Who a worker says it is: for people who ask who maps what. ``None`` is what it did not say.

    ``pid`` is as the server sees it. Of a worker in another PID namespace, such as a container's, ``pid_namespace``
    says which and ``namespace_pid`` what it is called there; ``pid`` is ``None`` if the server cannot find it.
    """

    name: str | None
    pid: int | None
    pid_namespace: str | None
    namespace_pid: int | None
    hostname: str | None
    version: str | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SessionDescriptor:
    """A session as the server described it at one moment.

    ``used_bytes`` is what its ``regions``, so many, take; ``quota_bytes`` what they may, ``None`` without a bound.
    While it is ``held``, by a process that is there, it does not expire; times are RFC 3339. ``raw`` is the JSON object
    itself.
    """

    id: str
    name: str | None
    client: ClientDescriptor | None
    quota_bytes: int | None
    used_bytes: int
    regions: int
    ttl_ms: int
    held: bool
    expires_at: str | None
    created_at: str
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """What ended with a session: so many ``regions``. ``state`` is ``deleted``, or ``draining`` while somebody maps one
    of them; ``freed_bytes`` is what came back at once.
    """

    state: str
    freed_bytes: int
    regions: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease by request, of those who cannot hold a kernel lock: it keeps ``region``, an id, until ``expires_at``,
    ``ttl_ms`` after it was renewed, and no longer than its ``session``, an id, if it has one.
    """

    id: str
    region: str
    session: str | None
    ttl_ms: int
    expires_at: str


def parse_session(value: Any) -> SessionDescriptor:
    """Reads a session's JSON. Raises ``ServerFault`` if it is none."""
    return read("session", _to_session, value)


def parse_session_end(value: Any) -> SessionEnd:
    """Reads the answer of a session's end. Raises ``ServerFault`` if it is none."""
    return read("end of a session", _to_session_end, value)


def parse_lease(value: Any) -> Lease:
    """Reads a lease's JSON. Raises ``ServerFault`` if it is none."""
    return read("lease", _to_lease, value)


def to_client(value: schemas.ClientDescriptor | None) -> ClientDescriptor | None:
    """The record of a client, if there is one. Raises what ``read`` catches."""
    if value is None:
        return None
    return ClientDescriptor(
        name=value["name"],
        pid=value["pid"],
        pid_namespace=value.get("pid_namespace"),
        namespace_pid=value.get("namespace_pid"),
        hostname=value["hostname"],
        version=value["version"],
        labels=dict(value.get("labels") or {}),
    )


def _to_session(value: schemas.Session) -> SessionDescriptor:
    return SessionDescriptor(
        id=str(value["id"]),
        name=value["name"],
        client=to_client(value["client"]),
        quota_bytes=value["quota_bytes"],
        used_bytes=int(value["used_bytes"]),
        regions=int(value["regions"]),
        ttl_ms=int(value["ttl_ms"]),
        held=bool(value["held"]),
        expires_at=value["expires_at"],
        created_at=str(value["created_at"]),
        raw=value,
    )


def _to_session_end(value: schemas.SessionEnd) -> SessionEnd:
    return SessionEnd(str(value["state"]), int(value["freed_bytes"]), int(value["regions"]))


def _to_lease(value: schemas.Lease) -> Lease:
    return Lease(
        id=str(value["id"]),
        region=str(value["region"]),
        session=value["session"],
        ttl_ms=int(value["ttl_ms"]),
        expires_at=str(value["expires_at"]),
    )
