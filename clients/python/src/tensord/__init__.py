"""tensord: one copy of every tensor per machine.

Workers create, attach and seal *regions* of shared memory through a local server and map them themselves: no tensor
byte travels over HTTP, and nothing is copied to attach. Start with ``connect``; see the README for the rest.
"""

from ._client import Client
from ._connect import attach, attach_shared_tensor, connect, create_shared_tensor, get_or_create
from ._errors import (
    AccessDenied,
    Cancelled,
    ClaimNotFound,
    Closed,
    Conflict,
    DeadlineExceeded,
    FeatureUnavailable,
    Forbidden,
    InternalError,
    InvalidRequest,
    LeaseNotFound,
    MalformedBody,
    MappingFailed,
    MethodNotAllowed,
    ModelExists,
    ModelInUse,
    ModelLimitExceeded,
    ModelNotFound,
    NameClaimed,
    NameTaken,
    NotFound,
    OutOfInodes,
    OutOfMemory,
    OutOfSharedMemory,
    OwnerRequired,
    PayloadTooLarge,
    PoolFull,
    RangeNotSatisfiable,
    ReadWriteError,
    RegionBusy,
    RegionDraining,
    RegionHasWriters,
    RegionNotFound,
    RegionNotSealed,
    RegionSealed,
    RevisionMismatch,
    RouteNotFound,
    ServerFault,
    ServerUnavailable,
    SessionNotFound,
    SessionQuotaExceeded,
    StaleRef,
    StorageUnavailable,
    TensordError,
    TensorNotFound,
    TooManyRequests,
    UnsupportedMediaType,
    UpgradeRequired,
    ValidationFailed,
    WrongNamespace,
)
from ._events.event import Event
from ._events.event_stream import EventStream
from ._region.region import Region
from ._ring.ring import Ring
from ._ring.rings import Rings
from ._ring.slot import Slot
from ._session.session import Session
from ._tensor.reference import TensorReference
from ._tensor.tensor import OpenedTensor, Tensor
from ._tensor.tensor_lock import TensorLock
from ._wire.descriptor import Checksum, DeleteResult, RegionDescriptor, Storage, TensorInfo, VerifyResult

__all__ = [
    "AccessDenied",
    "Cancelled",
    "Checksum",
    "ClaimNotFound",
    "Client",
    "Closed",
    "Conflict",
    "DeadlineExceeded",
    "DeleteResult",
    "Event",
    "EventStream",
    "FeatureUnavailable",
    "Forbidden",
    "InternalError",
    "InvalidRequest",
    "LeaseNotFound",
    "MalformedBody",
    "MappingFailed",
    "MethodNotAllowed",
    "ModelExists",
    "ModelInUse",
    "ModelLimitExceeded",
    "ModelNotFound",
    "NameClaimed",
    "NameTaken",
    "NotFound",
    "OpenedTensor",
    "OutOfInodes",
    "OutOfMemory",
    "OutOfSharedMemory",
    "OwnerRequired",
    "PayloadTooLarge",
    "PoolFull",
    "RangeNotSatisfiable",
    "ReadWriteError",
    "Region",
    "RegionBusy",
    "RegionDescriptor",
    "RegionDraining",
    "RegionHasWriters",
    "RegionNotFound",
    "RegionNotSealed",
    "RegionSealed",
    "RevisionMismatch",
    "Ring",
    "Rings",
    "RouteNotFound",
    "ServerFault",
    "ServerUnavailable",
    "Session",
    "SessionNotFound",
    "SessionQuotaExceeded",
    "Slot",
    "StaleRef",
    "Storage",
    "StorageUnavailable",
    "Tensor",
    "TensorInfo",
    "TensorLock",
    "TensorNotFound",
    "TensorReference",
    "TensordError",
    "TooManyRequests",
    "UnsupportedMediaType",
    "UpgradeRequired",
    "ValidationFailed",
    "VerifyResult",
    "WrongNamespace",
    "attach",
    "attach_shared_tensor",
    "connect",
    "create_shared_tensor",
    "get_or_create",
]

# What a traceback and a pickle call them: the name that a caller can import.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
del _name
