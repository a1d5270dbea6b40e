"""tensord: one copy of every tensor per machine.

Workers create, attach and seal *regions* of shared memory through a local server and map them themselves: no tensor
byte travels over HTTP, and nothing is copied to attach. Start with ``connect``; see the README for the rest.
"""

from ._client import Client
from ._connect import attach, attach_shared_tensor, connect, create_shared_tensor, get_or_create, hold
from ._errors import (
    AccessDenied,
    AlreadyMapped,
    Cancelled,
    ClaimNotFound,
    Closed,
    Conflict,
    DeadlineExceeded,
    DeviceNotFound,
    DriverFailed,
    ElasticPoolExists,
    ElasticPoolNotFound,
    FeatureUnavailable,
    Forbidden,
    InternalError,
    InUse,
    InvalidModelFile,
    InvalidPageSize,
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
    NotMapped,
    OperationNotFound,
    OutOfDescriptors,
    OutOfDeviceMemory,
    OutOfInodes,
    OutOfMemory,
    OutOfRange,
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
    RequestFailed,
    RevisionMismatch,
    RouteNotFound,
    ServerFault,
    ServerUnavailable,
    SessionNotFound,
    SessionQuotaExceeded,
    SourceUnavailable,
    StaleRef,
    StorageUnavailable,
    TensordError,
    TensorNotFound,
    TooManyRequests,
    Unauthorized,
    UnsupportedFormat,
    UnsupportedMediaType,
    UpgradeRequired,
    ValidationFailed,
    WrongNamespace,
)
from ._events.event import Event
from ._events.event_stream import EventStream
from ._mapping.memory_lock import MemoryLock
from ._progress_bar import progress_bar
from ._region.device_region import DeviceRegion
from ._region.group import Group
from ._region.operation import Operation
from ._region.path_hold import PathHold
from ._region.pin import Pin
from ._region.region import Region
from ._ring.call import Call
from ._ring.message import Message
from ._ring.receiver import Receiver
from ._ring.ring import Ring
from ._ring.rings import Rings
from ._ring.slot import Slot
from ._session.session import Session
from ._tensor.device_tensor import DeviceTensor
from ._tensor.reference import TensorReference
from ._tensor.tensor import OpenedTensor, Tensor
from ._tensor.tensor_lock import TensorLock
from ._version import __version__
from ._warnings import TensordWarning
from ._wire.device import Device, DeviceList
from ._wire.eviction import EvictedRegion, Eviction, KeptRegion
from ._wire.model import Model
from ._wire.operation import OperationDescriptor
from ._wire.pool import Pool, ServerPool
from ._wire.region import (
    Checksum,
    Deletion,
    Drain,
    Holder,
    Owner,
    RegionDescriptor,
    Storage,
    Verification,
)
from ._wire.residency import Residency
from ._wire.session import ClientDescriptor, Lease, SessionDescriptor, SessionEnd
from ._wire.stats import HttpStats, InodeStats, RegionStats, Stats
from ._wire.tensors import TensorInfo

__all__ = [
    "AccessDenied",
    "AlreadyMapped",
    "Call",
    "Cancelled",
    "Checksum",
    "ClaimNotFound",
    "Client",
    "ClientDescriptor",
    "Closed",
    "Conflict",
    "DeadlineExceeded",
    "Deletion",
    "Device",
    "DeviceList",
    "DeviceNotFound",
    "DeviceRegion",
    "DeviceTensor",
    "Drain",
    "DriverFailed",
    "ElasticPoolExists",
    "ElasticPoolNotFound",
    "Event",
    "EventStream",
    "EvictedRegion",
    "Eviction",
    "FeatureUnavailable",
    "Forbidden",
    "Group",
    "Holder",
    "HttpStats",
    "InUse",
    "InodeStats",
    "InternalError",
    "InvalidModelFile",
    "InvalidPageSize",
    "InvalidRequest",
    "KeptRegion",
    "Lease",
    "LeaseNotFound",
    "MalformedBody",
    "MappingFailed",
    "MemoryLock",
    "Message",
    "MethodNotAllowed",
    "Model",
    "ModelExists",
    "ModelInUse",
    "ModelLimitExceeded",
    "ModelNotFound",
    "NameClaimed",
    "NameTaken",
    "NotFound",
    "NotMapped",
    "OpenedTensor",
    "Operation",
    "OperationDescriptor",
    "OperationNotFound",
    "OutOfDescriptors",
    "OutOfDeviceMemory",
    "OutOfInodes",
    "OutOfMemory",
    "OutOfRange",
    "OutOfSharedMemory",
    "Owner",
    "OwnerRequired",
    "PathHold",
    "PayloadTooLarge",
    "Pin",
    "Pool",
    "PoolFull",
    "RangeNotSatisfiable",
    "ReadWriteError",
    "Receiver",
    "Region",
    "RegionBusy",
    "RegionDescriptor",
    "RegionDraining",
    "RegionHasWriters",
    "RegionNotFound",
    "RegionNotSealed",
    "RegionSealed",
    "RegionStats",
    "RequestFailed",
    "Residency",
    "RevisionMismatch",
    "Ring",
    "Rings",
    "RouteNotFound",
    "ServerFault",
    "ServerPool",
    "ServerUnavailable",
    "Session",
    "SessionDescriptor",
    "SessionEnd",
    "SessionNotFound",
    "SessionQuotaExceeded",
    "Slot",
    "SourceUnavailable",
    "StaleRef",
    "Stats",
    "Storage",
    "StorageUnavailable",
    "Tensor",
    "TensorInfo",
    "TensorLock",
    "TensorNotFound",
    "TensorReference",
    "TensordError",
    "TensordWarning",
    "TooManyRequests",
    "Unauthorized",
    "UnsupportedFormat",
    "UnsupportedMediaType",
    "UpgradeRequired",
    "ValidationFailed",
    "Verification",
    "WrongNamespace",
    "__version__",
    "attach",
    "attach_shared_tensor",
    "connect",
    "create_shared_tensor",
    "get_or_create",
    "hold",
    "progress_bar",
]

# What a traceback and a pickle call them: the name that a caller can import.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
del _name
