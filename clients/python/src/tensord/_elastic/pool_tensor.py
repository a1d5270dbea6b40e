"""A tensor over pages of an elastic pool: it holds as long as those very pages lie there."""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from tensord._arguments.checked import checked_class
from tensord._errors import FeatureUnavailable, OutOfRange, ValidationFailed
from tensord._mapping.mapping import Access, Mapping, View
from tensord._tensor.device_protocols import COPY_HINT, to_array_interface, to_torch
from tensord._tensor.dlpack import CUDA_DEVICE_TYPE, to_device_capsule
from tensord._tensor.dtype import byte_size_of, element_bytes, to_numpy_dtype
from tensord._wire.tensors import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor as TorchTensor

    from .pool import Pool


class _DeviceBytes(Mapping):
    """Addresses that the processor does not reach: there is nothing to protect."""

    __slots__ = ()

    def will_write(self, root: Any, address: int, length: int) -> None:
        """Nothing: the device's driver says what may be written."""


@checked_class
class PoolTensor:
    """A typed piece of an elastic pool; ``Pool.tensor`` makes it. The processor does not reach its memory.

    ``torch()``, ``torch.from_dlpack(tensor)``, ``cupy.asarray(tensor)`` and ``numba.cuda.as_cuda_array(tensor)`` copy
    nothing. It keeps the pool from being collected, and **not** its pages from going: what is unmapped, evicted,
    trimmed, or moved by ``compact``, is gone under whatever was made of this before, and a use of that is the device's
    error, which ends this process's context. Every method here looks first, and raises ``NotMapped``.

    Attributes: ``dtype``, by safetensors' name; ``shape``; ``byte_offset`` in the pool; ``byte_size``; ``device``, this
    process's name of it (``"cuda:0"``); ``device_uuid``, everybody's.
    """

    __slots__ = ("__weakref__", "_anchor", "_change", "_info", "_pages", "_pool")

    def __init__(self, pool: Pool, byte_offset: int, shape: tuple[int, ...], dtype: str) -> None:
        byte_size = byte_size_of(dtype, shape)
        name = f"{dtype} {list(shape)} at offset {byte_offset}"
        if byte_offset % element_bytes(dtype) != 0 or byte_offset + byte_size > pool.capacity:
            raise OutOfRange(
                f"Cannot make a tensor {name}: want a multiple of {element_bytes(dtype)}, and an end within the pool's "
                f"{pool.capacity} bytes",
                fields={"byte_offset": byte_offset, "byte_size": byte_size, "virtual_capacity": pool.capacity},
            )
        self._info = TensorInfo(name, dtype, shape, byte_offset, byte_size)
        self._pool = pool
        self._pages, self._change = pool._pages_of(byte_offset, byte_size, name)
        self._anchor: Any = (ctypes.c_ubyte * max(byte_size, 1)).from_address(pool.base_address + byte_offset)
        # What a library made of it keeps the anchor, and by that the pool.
        weakref.finalize(self._anchor, _forget, pool).atexit = False

    @property
    def dtype(self) -> str:
        return self._info.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self._info.shape

    @property
    def byte_offset(self) -> int:
        return self._info.byte_offset

    @property
    def byte_size(self) -> int:
        return self._info.byte_size

    @property
    def device(self) -> str:
        return self._pool.device

    @property
    def device_uuid(self) -> str:
        return self._pool.device_uuid

    @property
    def address(self) -> int:
        """Of its first byte, as the device sees it in this process: the same for every tensor at this offset of the
        pool, however large. Raises ``NotMapped``, ``Closed``.
        """
        self._check()
        return self._pool.base_address + self.byte_offset

    def copy_to_host(self) -> npt.NDArray[Any]:
        """A copy in host memory, an array of ``shape``. bf16 and fp8 need ``ml_dtypes``. Raises ``NotMapped``,
        ``DriverFailed``, ``FeatureUnavailable``, ``Closed``.
        """
        array = np.empty(self.shape, to_numpy_dtype(self.dtype))
        self._pool._copy(self._check, self.byte_offset, array.ctypes.data, self.byte_size, to_device=False)
        return array

    def copy_from_host(self, data: Any) -> None:
        """Copies an array of the same shape and dtype from host memory; it is there when this returns. Raises
        ``ValidationFailed`` for another one, ``NotMapped``, ``DriverFailed``, ``Closed``.
        """
        array = np.asarray(data)
        dtype = to_numpy_dtype(self.dtype)
        if array.shape != self.shape or array.dtype.newbyteorder("=") != dtype:
            raise ValidationFailed(
                f"Cannot copy to tensor {self._info.name}: it is {dtype} {list(self.shape)}, and the array is "
                f"{array.dtype} {list(array.shape)}"
            )
        source = np.ascontiguousarray(array.astype(dtype, copy=False))
        self._pool._copy(self._check, self.byte_offset, source.ctypes.data, source.nbytes, to_device=True)

    def torch(self) -> TorchTensor:
        """A contiguous tensor of torch's on this device, sharing the memory. Raises ``NotMapped``, ``Closed``,
        ``FeatureUnavailable`` if torch is missing, cannot use CUDA here, or has no such type.
        """
        self._check()
        return to_torch(self, self._info, self.device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The CUDA array interface, version 3, for numba, cupy and torch. bf16 and fp8 it cannot name:
        ``FeatureUnavailable``, use DLPack. Raises ``NotMapped``, ``Closed``.
        """
        return to_array_interface(self._info, self.address, writable=True)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack: memory of a CUDA device, by its number in this process."""
        return CUDA_DEVICE_TYPE, self._pool._ordinal

    def __dlpack__(self, **options: Any) -> object:
        """DLPack, for ``torch.from_dlpack(tensor)`` and its like: the same memory. Raises ``NotMapped``, ``Closed``;
        ``BufferError`` for another device, or a copy.
        """
        self._check()
        view = View(_DeviceBytes(self._anchor, self.byte_offset, Access.WRITE, 1), self._anchor, self.byte_offset)
        return to_device_capsule(view, self._info, options, self._pool._ordinal)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> NoReturn:
        """numpy finds it, and would make an array of one object of it otherwise."""
        raise FeatureUnavailable(
            f"Cannot show tensor {self._info.name} by np.asarray: it is memory of {self.device}, which the processor "
            "does not reach",
            hint=COPY_HINT,
        )

    def _check(self) -> None:
        """Raises ``NotMapped`` if other pages, or none, lie there by now; ``Closed``."""
        self._change = self._pool._check_pages(
            self._pages, self._change, self.byte_offset, self.byte_size, self._info.name
        )

    def __repr__(self) -> str:
        return f"<tensord.cuda.PoolTensor {self._info.name} on {self.device}>"


def _forget(_: object) -> None:
    """Keeps its argument for as long as it is to be called."""
