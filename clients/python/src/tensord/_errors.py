"""Every exception of this package, and the one place where a server's answer becomes one.

The tree; what stands in brackets is a built-in class that the exception is as well, so that plain ``except`` works::

    TensordError
    ├── ServerUnavailable  [ConnectionError]  nobody listens, the answer was lost, it is starting or shutting down
    ├── AccessDenied       [PermissionError]  this uid may not open the socket or the region's file
    ├── MappingFailed      [OSError]          a system call on the region's file failed
    ├── WrongNamespace                        this process looks at another file system than the server
    ├── StaleRef                              a reference, or a descriptor, to a region that is gone
    ├── RequestFailed                         who answers a ring's requests said so, died, or gave it up
    ├── Closed             [ValueError]       the region, tensor or client was closed by this program
    ├── DriverFailed                          a call of a device's driver failed; by the driver's own name and text
    ├── FeatureUnavailable                    this host, build or environment cannot do it
    │   └── StorageUnavailable                the server's host cannot give that storage
    ├── NotFound           [LookupError]
    │   ├── RegionNotFound
    │   ├── ModelNotFound
    │   ├── SessionNotFound                   it ended: by its TTL while nobody held it, or by request
    │   ├── ClaimNotFound
    │   ├── LeaseNotFound
    │   ├── OperationNotFound                 it ended a while ago, or with another server
    │   ├── RouteNotFound
    │   ├── DeviceNotFound
    │   ├── ElasticPoolNotFound
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
    │   ├── ElasticPoolExists                 with other values than those asked for
    │   ├── InUse                             by workers, which the message names
    │   ├── AlreadyMapped
    │   ├── NotMapped
    │   └── Cancelled
    ├── InvalidRequest     [ValueError]
    │   ├── ValidationFailed                  also raised by this package, before anything is sent
    │   ├── OwnerRequired
    │   ├── MalformedBody
    │   ├── MethodNotAllowed
    │   ├── PayloadTooLarge
    │   ├── RangeNotSatisfiable
    │   ├── OutOfRange                        of an elastic pool: not whole pages, outside of it, or without a hole
    │   ├── InvalidPageSize
    │   ├── UnsupportedMediaType
    │   ├── InvalidModelFile                  the file is broken, or not what it says
    │   ├── UnsupportedFormat                 the server loads no such file, whole as it may be
    │   └── UpgradeRequired
    ├── Unauthorized                          the server wants a token, or another one
    ├── Forbidden                             it refuses the request's origin, or the token may not do that
    ├── TooManyRequests                       too many wait, or follow, at once
    ├── DeadlineExceeded   [TimeoutError]     the time for it is over: for memory, for another builder, for a body
    ├── OutOfMemory        [MemoryError]
    │   ├── SessionQuotaExceeded
    │   ├── ModelLimitExceeded
    │   ├── PoolFull
    │   ├── OutOfSharedMemory
    │   ├── OutOfInodes
    │   └── OutOfDeviceMemory
    ├── OutOfDescriptors   [OSError]          this process, or the server, may open no more files
    └── ServerFault                           the server failed, or answered what is no answer
        ├── InternalError
        ├── ReadWriteError                    the operating system refused something to the server
        └── SourceUnavailable                 where the model file lies does not answer

A code that this version does not know becomes the nearest branch by its HTTP status.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

if sys.platform != "win32":
    import resource


class TensordError(Exception):
    """The root of everything that this package raises on purpose.

    ``code`` is one of the codes that ``openapi.yaml`` lists, ``status`` the HTTP status or ``None`` if no server was
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
    """Nobody listens, the answer was lost (``fields["request_sent"]``), or the server is starting or shutting down."""

    code = "server-unavailable"


class AccessDenied(TensordError, PermissionError):
    """This uid may not open the socket or the region's file; the message says which uid, groups and mode."""

    code = "access-denied"


class MappingFailed(TensordError, OSError):
    """A system call on the region's file failed."""

    code = "mapping-failed"


class WrongNamespace(TensordError):
    """This process looks at another file system than the server, as containers without a common volume do."""

    code = "wrong-namespace"


class StaleRef(TensordError):
    """A reference, or a descriptor, to a region that is gone, or to a slot that holds something else by now."""

    code = "stale-ref"


class RequestFailed(TensordError):
    """A request that went by a ring has no result: whoever took it said why, died, or gave it up."""

    code = "request-failed"


class Closed(TensordError, ValueError):
    """The region, tensor, slot, stream or client was closed by this program."""

    code = "closed"


class FeatureUnavailable(TensordError):
    """This host, build or environment cannot do it: an extra is missing, or numpy or torch has no such type."""

    code = "feature-unavailable"


class DriverFailed(TensordError):
    """A call of a device's driver failed. ``fields`` have the ``call``, the driver's ``result``, a number, and its
    ``result_name``, or ``None`` for one that the driver has no name for. Raised by this package.
    """

    code = "driver-failed"


class StorageUnavailable(FeatureUnavailable):
    """The server's host cannot give that storage."""

    code = "storage-unavailable"


class NotFound(TensordError, LookupError):
    """There is no such thing on the server."""

    code = "not-found"


class RegionNotFound(NotFound):
    """No region has that id, or that name in its model."""

    code = "region-not-found"
    python_hint = "client.create(name, array, ttl=600) makes it, client.attach(name, timeout=30) waits for it"


class ModelNotFound(NotFound):
    """No model has that name."""

    code = "model-not-found"
    python_hint = "client.register_model(name)"


class SessionNotFound(NotFound):
    """The session has ended: by its TTL while nobody held it, or by request."""

    code = "session-not-found"


class ClaimNotFound(NotFound):
    """The claim was released, or its builder's session has ended."""

    code = "claim-not-found"


class LeaseNotFound(NotFound):
    """The lease by request was released, or its TTL is over."""

    code = "lease-not-found"


class OperationNotFound(NotFound):
    """The operation ended a while ago, or with a server that was there before."""

    code = "operation-not-found"
    python_hint = "client.operations() lists those that there are"


class RouteNotFound(NotFound):
    """The server has no such route: is it an older version?"""

    code = "route-not-found"


class DeviceNotFound(NotFound):
    """The server's host has no device of that UUID."""

    code = "device-not-found"
    python_hint = "client.devices() lists them"


class ElasticPoolNotFound(NotFound):
    """The model has no elastic pool on that device."""

    code = "vmm-pool-not-found"
    python_hint = "client.pool(model, device, capacity) makes it"


class TensorNotFound(NotFound, KeyError):
    """The region has no tensor of that name. Raised by this package."""

    code = "tensor-not-found"


class Conflict(TensordError):
    """The state of what was asked for forbids it."""

    code = "conflict"


class ModelExists(Conflict):
    """The model is registered already."""

    code = "model-exists"
    python_hint = "client.change_model(name, memory_limit_bytes=...)"


class ModelInUse(Conflict):
    """The model has regions: ``drain=True`` deletes them with it."""

    code = "model-in-use"
    python_hint = "client.unregister_model(name, drain=True)"


class NameTaken(Conflict):
    """Another region of the model has that name; ``if_exists`` says what else that may mean."""

    code = "name-taken"
    python_hint = 'if_exists="attach" or "replace"; client.delete(name)'


class NameClaimed(Conflict):
    """Somebody else has the right to build that name: ``get_or_create`` takes turns."""

    code = "name-claimed"
    python_hint = "client.get_or_create(name, build) takes turns"


class RegionSealed(Conflict):
    """The region is final: it can be mapped for reading only."""

    code = "region-sealed"


class RegionNotSealed(Conflict):
    """The region is still open, and what was asked for needs a sealed one."""

    code = "region-not-sealed"


class RegionDraining(Conflict):
    """The region was deleted, and is only kept until the last process that maps it lets go."""

    code = "region-draining"


class RegionHasWriters(Conflict):
    """Another process, a forked child or another ``Region`` of this process maps it for writing."""

    code = "region-has-writers"


class RegionBusy(Conflict):
    """The region is in the middle of a step: try again in a moment."""

    code = "region-busy"


class RevisionMismatch(Conflict):
    """The region was changed since the revision that the request names."""

    code = "revision-mismatch"


class ElasticPoolExists(Conflict):
    """The model has an elastic pool on that device already, with other values than those asked for."""

    code = "vmm-pool-exists"
    python_hint = "client.pool(model, device) follows it as it is"


class InUse(Conflict):
    """Workers use the elastic pool; the message names them."""

    code = "in-use"


class AlreadyMapped(Conflict):
    """Pages of that range are mapped already; the message says which."""

    code = "already-mapped"


class NotMapped(Conflict):
    """Pages of that range are not mapped; the message says which."""

    code = "not-mapped"


class Cancelled(Conflict):
    """The work was cancelled by another request."""

    code = "cancelled"


class InvalidRequest(TensordError, ValueError):
    """The request cannot be right, whatever the server's state."""

    code = "invalid-request"


class ValidationFailed(InvalidRequest):
    """An argument has no meaning there. Also raised by this package, before anything is sent."""

    code = "validation-failed"


class OwnerRequired(InvalidRequest):
    """The region has no owner, so nothing would ever end it."""

    code = "owner-required"
    python_hint = "pass ttl=<seconds>, linger=<seconds>, or persist=True with a name; or connect with a session"


class MalformedBody(InvalidRequest):
    """The server could not read the request's body."""

    code = "malformed-body"


class MethodNotAllowed(InvalidRequest):
    """The route has no such method: is the server another version?"""

    code = "method-not-allowed"


class PayloadTooLarge(InvalidRequest):
    """The request's body is larger than the server reads."""

    code = "payload-too-large"


class RangeNotSatisfiable(InvalidRequest):
    """The range of bytes lies outside of the region or tensor."""

    code = "range-not-satisfiable"


class OutOfRange(InvalidRequest):
    """The range is not of whole pages, lies outside of the elastic pool, or no hole of it is as large."""

    code = "out-of-range"


class InvalidPageSize(InvalidRequest):
    """An elastic pool cannot have pages of that size: want a power of two, from the device's granularity to 1 GiB."""

    code = "invalid-page-size"


class UnsupportedMediaType(InvalidRequest):
    """The request's body is of a kind that the route does not take."""

    code = "unsupported-media-type"


class InvalidModelFile(InvalidRequest):
    """The model file is broken, or not what it says; ``path`` names it as the server was asked for it."""

    code = "invalid-model-file"


class UnsupportedFormat(InvalidRequest):
    """The server loads no files of that format; the hint says what to do instead."""

    code = "unsupported-format"


class UpgradeRequired(InvalidRequest):
    """The route is for WebSockets."""

    code = "upgrade-required"


class TooManyRequests(TensordError):
    """Too many wait, or follow, at once."""

    code = "too-many-requests"


class DeadlineExceeded(TensordError, TimeoutError):
    """The time for it is over: for memory, for another builder, for a slot or a lock."""

    code = "deadline-exceeded"


class Unauthorized(TensordError):
    """The server wants a token (``TENSORD_TOKEN``), or another one."""

    code = "unauthorized"


class Forbidden(TensordError):
    """The server refuses the request's origin, or its token may not do that."""

    code = "forbidden"


class OutOfMemory(TensordError, MemoryError):
    """There is no memory for it; ``fields`` say how much was asked for and how much there is."""

    code = "out-of-memory"


class SessionQuotaExceeded(OutOfMemory):
    """The session owns as much as its ``quota_bytes`` allow."""

    code = "session-quota-exceeded"


class ModelLimitExceeded(OutOfMemory):
    """The model's regions take as much as its ``memory_limit_bytes`` allow."""

    code = "model-limit-exceeded"


class PoolFull(OutOfMemory):
    """All regions together take as much as the server's limit allows."""

    code = "pool-full"


class OutOfSharedMemory(OutOfMemory):
    """The file system that holds the regions is full, or this container's memory limit is reached."""

    code = "out-of-shared-memory"


class OutOfInodes(OutOfMemory):
    """The file system that holds the regions has no room for another file."""

    code = "out-of-inodes"


class OutOfDeviceMemory(OutOfMemory):
    """The device has no such memory free: other processes use it, too."""

    code = "out-of-device-memory"


class OutOfDescriptors(TensordError, OSError):
    """This process may open no more files (``status`` is ``None`` then), or the server may not."""

    code = "out-of-descriptors"


def refuse_without_descriptor(error: OSError, action: str) -> None:
    """Raises ``OutOfDescriptors`` if ``error``, met at ``action``, says that this process or machine has none left."""
    if error.errno not in (errno.EMFILE, errno.ENFILE):
        return
    if error.errno == errno.ENFILE:
        raise OutOfDescriptors(
            f"Cannot {action}: this machine has no file descriptor left (ENFILE)",
            hint="raise fs.file-max (sysctl), or end what holds so many files",
        ) from error
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if sys.platform != "win32" else 0
    raise OutOfDescriptors(
        f"Cannot {action}: this process has no file descriptor left, {limit} are the most (EMFILE)",
        hint="close files and sockets that it does not need, or raise the limit before it starts: ulimit -n, "
        "LimitNOFILE= in systemd, --ulimit nofile= in Docker; up to the hard limit resource.setrlimit does it from "
        "inside",
        fields={"limit": limit},
    ) from error


class ServerFault(TensordError):
    """The server failed, or answered what is no answer."""

    code = "server-fault"


class InternalError(ServerFault):
    """An unexpected failure inside the server; ``fields`` carry its id, and the server's log the rest."""

    code = "internal"


class ReadWriteError(ServerFault):
    """The operating system refused something to the server."""

    code = "io-error"


class SourceUnavailable(ServerFault):
    """Where the model file lies does not answer, however often the server asks: load it again later."""

    code = "source-unavailable"


def _descendants(kind: type[TensordError]) -> Iterator[type[TensordError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


_by_code = {kind.code: kind for kind in _descendants(TensordError)} | {
    "not-ready": ServerUnavailable,
    "shutting-down": ServerUnavailable,
}
_by_status: dict[int, type[TensordError]] = {
    401: Unauthorized,
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
