"""What libraries for GPUs ask of a tensor in the memory of a device, whoever mapped it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensord._errors import FeatureUnavailable
from tensord._wire.tensors import TensorInfo

from .dtype import import_torch, to_numpy_dtype, to_torch_dtype

if TYPE_CHECKING:
    from torch import Tensor as TorchTensor

COPY_HINT = (
    "copy_to_host() copies it; torch, cupy and numba take it where it is (torch(), DLPack, the CUDA array interface)"
)


def to_array_interface(info: TensorInfo, address: int, *, writable: bool) -> dict[str, Any]:
    """The CUDA array interface, version 3. Raises ``FeatureUnavailable`` for a type that it cannot name."""
    dtype = to_numpy_dtype(info.dtype)
    if dtype.kind == "V" or dtype.type.__module__ != "numpy":
        raise FeatureUnavailable(
            f"Cannot show {info.dtype} by the CUDA array interface: it has no such type",
            hint="use DLPack, or torch()",
        )
    return {
        "shape": info.shape,
        "typestr": dtype.str,
        # Of nothing there is no address.
        "data": (address if info.byte_size > 0 else 0, not writable),
        "strides": None,
        "stream": None,
        "version": 3,
    }


def to_torch(source: Any, info: TensorInfo, device: str) -> TorchTensor:
    """A tensor of torch's over ``source``, which speaks DLPack. Raises ``FeatureUnavailable``."""
    dtype = to_torch_dtype(info.dtype)
    module = import_torch()
    if not module.cuda.is_available():
        raise FeatureUnavailable(
            f"Cannot make a torch tensor of {info.name!r}: this torch cannot use CUDA here",
            hint="want a build of torch for CUDA, on a machine with its driver",
        )
    if info.byte_size == 0:
        empty: TorchTensor = module.empty(info.shape, dtype=dtype, device=device)
        return empty
    shared: TorchTensor = module.from_dlpack(source)
    return shared
