"""Every exception of this package, and the one place where a server's answer becomes one.

The tree; what stands in brackets is a built-in class that the exception is as well, so that plain ``except`` works::

    TensordError
    ├── ServerUnavailable  [ConnectionError]  nobody listens, the answer was lost, it is starting or shutting down
    ├── AccessDenied       [PermissionError]  this uid may not open the socket or the region's file
    ├── MappingFailed      [OSError]          a system call on the region's file failed
    ├── WrongNamespace                        this process looks at another file system than the server
    ├── StaleRef                              a reference, or a descriptor, to a region that is gone
    ├── Closed             [ValueError]       the region, tensor or client was closed by this program
    ├── FeatureUnavailable                    this host, build or environment cannot do it
    │   └── StorageUnavailable                the server's host cannot give that storage
    ├── NotFound           [LookupError]
    │   ├── RegionNotFound
    │   ├── ModelNotFound
    │   ├── SessionNotFound                   it ended: by its TTL while nobody held it, or by request
    │   ├── ClaimNotFound
    │   ├── LeaseNotFound
    │   ├── RouteNotFound
    │   └── TensorNotFound                    raised by this package: the region has no such tensor
    ├── Conflict
    │   ├── ModelExists
    │   ├── ModelInUse
    │   ├── NameTaken
    │   ├── NameClaimed                       somebody else has the right to build it: use get_or_create
    │   ├── RegionSealed
    │   ├── RegionNotSealed
    │   ├── RegionDraining
    │   ├── RegionHasWriters
    │   ├── RegionBusy
    │   ├── RevisionMismatch
    │   └── Cancelled
    ├── InvalidRequest     [ValueError]
    │   ├── ValidationFailed                  also raised by this package, before anything is sent
    │   ├── OwnerRequired
    │   ├── MalformedBody
    │   ├── MethodNotAllowed
    │   ├── PayloadTooLarge
    │   ├── RangeNotSatisfiable
    │   ├── UnsupportedMediaType
    │   └── UpgradeRequired
    ├── Forbidden                             the server refuses the origin of the request
    ├── TooManyRequests                       too many wait, or follow, at once
    ├── DeadlineExceeded   [TimeoutError]     the time for it is over: for memory, for another builder, for a body
    ├── OutOfMemory        [MemoryError]
    │   ├── SessionQuotaExceeded
    │   ├── ModelLimitExceeded
    │   ├── PoolFull
    │   ├── OutOfSharedMemory
    │   └── OutOfInodes
    └── ServerFault                           the server failed, or answered what is no answer
        ├── InternalError
        └── ReadWriteError                    the operating system refused something to the server

A code that this version does not know becomes the nearest branch by its HTTP status.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class TensordError(Exception):
    """The root of everything that this package raises on purpose.

    ``code`` is a word of the failure table (design.md 13), ``status`` the HTTP status or ``None`` if no server was
    involved, ``detail`` what was asked and why it failed, ``hint`` what to do, and ``fields`` the numbers beside it
    (``requested_bytes``, ``available_bytes`` …).
    """

    code: str = "error"
    # What the server's hint cannot know: how the cure is spelled in Python.
    python_hint: ClassVar[str | None] = None

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        status: int | None = None,
        hint: str | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        if code is not None:
            self.code = code
        self.status = status
        self.detail = detail
        self.hint = hint
        self.fields: dict[str, Any] = dict(fields or {})

    def __str__(self) -> str:
        return self.detail if self.hint is None else f"{self.detail}\nhint: {self.hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword arguments are lost by the default, and workers send exceptions to their parents.
        return _rebuild, (type(self), self.detail, self.code, self.status, self.hint, self.fields)


def _rebuild(
    kind: type[TensordError],
    detail: str,
    code: str,
    status: int | None,
    hint: str | None,
    fields: dict[str, Any],
) -> TensordError:
    return kind(detail, code=code, status=status, hint=hint, fields=fields)


class ServerUnavailable(TensordError, ConnectionError):
    code = "server-unavailable"


class AccessDenied(TensordError, PermissionError):
    code = "access-denied"


class MappingFailed(TensordError, OSError):
    code = "mapping-failed"


class WrongNamespace(TensordError):
    code = "wrong-namespace"


class StaleRef(TensordError):
    code = "stale-ref"


class Closed(TensordError, ValueError):
    code = "closed"


class FeatureUnavailable(TensordError):
    code = "feature-unavailable"


class StorageUnavailable(FeatureUnavailable):
    code = "storage-unavailable"


class NotFound(TensordError, LookupError):
    code = "not-found"


class RegionNotFound(NotFound):
    code = "region-not-found"


class ModelNotFound(NotFound):
    code = "model-not-found"


class SessionNotFound(NotFound):
    code = "session-not-found"


class ClaimNotFound(NotFound):
    code = "claim-not-found"


class LeaseNotFound(NotFound):
    code = "lease-not-found"


class RouteNotFound(NotFound):
    code = "route-not-found"


class TensorNotFound(NotFound, KeyError):
    code = "tensor-not-found"


class Conflict(TensordError):
    code = "conflict"


class ModelExists(Conflict):
    code = "model-exists"


class ModelInUse(Conflict):
    code = "model-in-use"


class NameTaken(Conflict):
    code = "name-taken"


class NameClaimed(Conflict):
    code = "name-claimed"
    python_hint = "client.get_or_create(name, build) takes turns"


class RegionSealed(Conflict):
    code = "region-sealed"


class RegionNotSealed(Conflict):
    code = "region-not-sealed"


class RegionDraining(Conflict):
    code = "region-draining"


class RegionHasWriters(Conflict):
    code = "region-has-writers"


class RegionBusy(Conflict):
    code = "region-busy"


class RevisionMismatch(Conflict):
    code = "revision-mismatch"


class Cancelled(Conflict):
    code = "cancelled"


class InvalidRequest(TensordError, ValueError):
    code = "invalid-request"


class ValidationFailed(InvalidRequest):
    code = "validation-failed"


class OwnerRequired(InvalidRequest):
    code = "owner-required"
    python_hint = "pass ttl=<seconds>, linger=<seconds>, or persist=True with a name; or connect with a session"


class MalformedBody(InvalidRequest):
    code = "malformed-body"


class MethodNotAllowed(InvalidRequest):
    code = "method-not-allowed"


class PayloadTooLarge(InvalidRequest):
    code = "payload-too-large"


class RangeNotSatisfiable(InvalidRequest):
    code = "range-not-satisfiable"


class UnsupportedMediaType(InvalidRequest):
    code = "unsupported-media-type"


class UpgradeRequired(InvalidRequest):
    code = "upgrade-required"


class TooManyRequests(TensordError):
    code = "too-many-requests"


class DeadlineExceeded(TensordError, TimeoutError):
    code = "deadline-exceeded"


class Forbidden(TensordError):
    code = "forbidden"


class OutOfMemory(TensordError, MemoryError):
    code = "out-of-memory"


class SessionQuotaExceeded(OutOfMemory):
    code = "session-quota-exceeded"


class ModelLimitExceeded(OutOfMemory):
    code = "model-limit-exceeded"


class PoolFull(OutOfMemory):
    code = "pool-full"


class OutOfSharedMemory(OutOfMemory):
    code = "out-of-shared-memory"


class OutOfInodes(OutOfMemory):
    code = "out-of-inodes"


class ServerFault(TensordError):
    code = "server-fault"


class InternalError(ServerFault):
    code = "internal"


class ReadWriteError(ServerFault):
    code = "io-error"


def _descendants(kind: type[TensordError]) -> Iterator[type[TensordError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


_by_code = {kind.code: kind for kind in _descendants(TensordError)} | {
    "not-ready": ServerUnavailable,
    "shutting-down": ServerUnavailable,
}
_by_status: dict[int, type[TensordError]] = {
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    429: TooManyRequests,
    501: FeatureUnavailable,
    503: ServerUnavailable,
    507: OutOfMemory,
}
_standard_fields = frozenset({"type", "title", "status", "detail", "code", "hint", "instance"})


def from_problem(status: int, problem: Mapping[str, Any]) -> TensordError:
    """Turns an ``application/problem+json`` object into the exception of its ``code``."""
    code = problem.get("code")
    code = code if isinstance(code, str) else f"http-{status}"
    family = InvalidRequest if 400 <= status < 500 else ServerFault
    kind = _by_code.get(code) or _by_status.get(status, family)
    detail = problem.get("detail") or problem.get("title") or f"The server answered {status}"
    hints = [hint for hint in (problem.get("hint"), kind.python_hint) if isinstance(hint, str)]
    return kind(
        str(detail),
        code=code,
        status=status,
        hint="; in Python: ".join(hints) or None,
        fields={key: value for key, value in problem.items() if key not in _standard_fields},
    )
