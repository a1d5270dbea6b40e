"""A tensor over memory of a device: what libraries for GPUs take without a copy, and copies from and to the host."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from tensord._arguments.checked import checked_class
from tensord._cuda.attachment import DeviceAttachment
from tensord._cuda.devices import Device
from tensord._errors import DriverFailed, FeatureUnavailable, ValidationFailed
from tensord._wire.tensors import TensorInfo

from .device_protocols import COPY_HINT, to_array_interface, to_torch
from .dlpack import CUDA_DEVICE_TYPE, to_device_capsule
from .dtype import to_numpy_dtype
from .tensor import OpenedTensor, Tensor

if TYPE_CHECKING:
    from torch import Tensor as TorchTensor


@checked_class
class DeviceTensor(Tensor):
    """A named, typed slice of a region in the memory of a device. The processor does not reach it: ``numpy()`` and its
    like raise ``FeatureUnavailable``.

    ``torch()``, ``torch.from_dlpack(tensor)``, ``cupy.asarray(tensor)`` and ``numba.cuda.as_cuda_array(tensor)`` copy
    nothing. What they made stays valid, and keeps the region mapped, after the region is closed, as long as they keep
    this object or their capsule; the methods here then raise ``Closed``. Of a region that is not mapped for writing, a
    write is the device's error, which ends this process's context: libraries do not all ask whether they may.

    Attributes: as of a ``Tensor``; ``device``, this process's name of it (``"cuda:0"``); ``device_uuid``, everybody's;
    ``address``, as the device sees it in this process.
    """

    __slots__ = ("_device_attachment", "_kept")

    def __init__(self, attachment: DeviceAttachment, info: TensorInfo) -> None:
        super().__init__(attachment, info)
        self._device_attachment = attachment
        # What somebody may read through this object's address, who keeps this object meanwhile.
        self._kept: Any = None

    @property
    def device(self) -> str:
        return self._device.shown

    @property
    def device_uuid(self) -> str:
        return self._device.uuid

    @property
    def address(self) -> int:
        """Of its first byte, for who calls the driver himself; as long as he keeps this object. Raises ``Closed``."""
        anchor, _ = self._view.buffer()
        self._kept = anchor
        return self._device_attachment.memory.address + self.byte_offset

    def numpy(self, *, private: bool = False) -> NoReturn:
        """Not of a device's memory. Raises ``FeatureUnavailable``, ``Closed``."""
        self._refuse_host("numpy")

    def bytes(self, *, private: bool = False) -> NoReturn:
        """Not of a device's memory. Raises ``FeatureUnavailable``, ``Closed``."""
        self._refuse_host("bytes")

    def copy_to_host(self) -> npt.NDArray[Any]:
        """A copy in host memory, an array of ``shape``, once what the device was told before is done. bf16 and fp8 need
        ``ml_dtypes``. Raises ``DriverFailed``, ``FeatureUnavailable``, ``Closed``.
        """
        anchor, _ = self._view.buffer()
        array = np.empty(self.shape, to_numpy_dtype(self.dtype))
        if self.byte_size > 0:
            try:
                self._device_attachment.memory.copy_out(self.byte_offset, array.ctypes.data, self.byte_size)
            except DriverFailed as error:
                self._say_what(error, "copy")
                raise
        del anchor
        return array

    def copy_from_host(self, data: Any) -> None:
        """Copies an array of the same shape and dtype from host memory; it is there when this returns. Raises
        ``ValidationFailed`` for another one, or if the region is not mapped for writing; ``DriverFailed``, ``Closed``.
        """
        array = np.asarray(data)
        dtype = to_numpy_dtype(self.dtype)
        if array.shape != self.shape or array.dtype.newbyteorder("=") != dtype:
            raise ValidationFailed(
                f"Cannot copy to tensor {self.name!r}: it is {dtype} {list(self.shape)}, and the array is "
                f"{array.dtype} {list(array.shape)}"
            )
        self._write(array.astype(dtype, copy=False))

    def _write(self, array: npt.NDArray[Any]) -> None:
        """Copies an array of as many bytes, whatever its type."""
        anchor, _ = self._view.buffer()
        if not self.writable:
            raise ValidationFailed(
                f"Cannot write to tensor {self.name!r}: its region is mapped for reading",
                hint="attach an open region with writable=True; a sealed one is final",
            )
        source = np.ascontiguousarray(array)
        assert source.nbytes == self.byte_size, "its bytes were counted"
        if source.nbytes > 0:
            try:
                self._device_attachment.memory.copy_in(self.byte_offset, source.ctypes.data, source.nbytes)
            except DriverFailed as error:
                self._say_what(error, "write")
                raise
        del anchor

    def torch(self) -> TorchTensor:
        """A contiguous tensor of torch's on this device, sharing the memory. torch knows no read-only tensors: a write
        to one of a region that is not mapped for writing is the device's error, and ends this process's context.

        Raises ``Closed``, ``FeatureUnavailable`` if torch is missing, cannot use CUDA here, or has no such type.
        """
        _ = self._view
        return to_torch(self, self._info, self.device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The CUDA array interface, version 3, for numba, cupy and torch. Whoever reads it keeps this object. bf16 and
        fp8 it cannot name: ``FeatureUnavailable``, use DLPack. Raises ``Closed``.
        """
        address = self.address if self.byte_size > 0 else 0
        return to_array_interface(self._info, address, writable=self.writable)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack: memory of a CUDA device, by its number in this process."""
        _ = self._view
        return CUDA_DEVICE_TYPE, self._device.ordinal

    def __dlpack__(self, **options: Any) -> object:
        """DLPack, for ``torch.from_dlpack(tensor)`` and its like: the same memory, which the consumer keeps mapped. A
        tensor that is not mapped for writing is told as read-only, where the consumer's version has a word for it.
        Raises ``Closed``; ``BufferError`` for another device, or a copy.
        """
        return to_device_capsule(self._view, self._info, options, self._device.ordinal)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> NoReturn:
        """numpy finds it, and would make an array of one object of it otherwise."""
        self._refuse_host("np.asarray")

    def _refuse_host(self, what: str) -> NoReturn:
        _ = self._view
        raise FeatureUnavailable(
            f"Cannot show tensor {self.name!r} by {what}: it is memory of {self.device}, which the processor does not "
            "reach",
            hint=COPY_HINT,
        )

    def _say_what(self, error: DriverFailed, action: str) -> None:
        place = self._device_attachment.place
        error.detail = f"Cannot {action} tensor {self.name!r} of {place.region} on {self.device}: {error.detail}"

    @property
    def _device(self) -> Device:
        return self._device_attachment.device

    @property
    def _device_uuid(self) -> str | None:
        return self._device.uuid

    def __repr__(self) -> str:
        state = "closed" if self._attachment.closed else "write" if self.writable else "read"
        alias = "" if self.alias_of is None else f", alias of {self.alias_of!r}"
        shown = f"{self.name!r} {self.dtype} {list(self.shape)} on {self.device}{alias}"
        return f"<tensord.{type(self).__name__} {shown}, {state}>"


class OpenedDeviceTensor(DeviceTensor, OpenedTensor):
    """A tensor of a device, mapped from a reference. It owns its mapping: close it, or use it in ``with``."""

    __slots__ = ()

    def __enter__(self) -> OpenedDeviceTensor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
