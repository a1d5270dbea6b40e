"""A tensor over mapped bytes: the same memory as a numpy array, a torch tensor, raw bytes or a reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from tensord._arguments.checked import checked_class
from tensord._arguments.kinds import Timeout
from tensord._arguments.quoting import quote
from tensord._errors import FeatureUnavailable, RegionNotSealed, ValidationFailed
from tensord._mapping.attach import is_sealed
from tensord._mapping.attachment import Attachment
from tensord._mapping.lock_file import LockKind
from tensord._mapping.mapping import Access, View
from tensord._mapping.origin_file import FILE
from tensord._wire.tensors import TensorInfo, TensorRow, to_row

from .dlpack import CPU_DEVICE, to_capsule
from .dtype import import_torch, to_numpy_dtype, to_shared_dtypes, to_torch_dtype
from .reference import TensorReference
from .tensor_lock import TensorLock, lock_tensor

if TYPE_CHECKING:
    # By another name: inside the class, `torch` is its method.
    from torch import Tensor as TorchTensor


@checked_class
class Tensor:
    """A named, typed slice of a mapped region. Nothing is copied, and each call gives a new view of the same bytes.

    Arrays and tensors taken from it stay valid, and keep the region's pages, after the region or client is closed; the
    methods here then raise ``Closed``. Not picklable: send ``ref()``.

    Attributes: ``name``; ``dtype``, by safetensors' name; ``shape``, in elements; ``byte_offset`` from the start of the
    region's file; ``byte_size``; ``alias_of``, the name of the tensor whose bytes these are, if they are another's.
    """

    __slots__ = ("__weakref__", "_attachment", "_info")

    def __init__(self, attachment: Attachment, info: TensorInfo) -> None:
        self._attachment = attachment
        self._info = info

    @property
    def name(self) -> str:
        return self._info.name

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
    def alias_of(self) -> str | None:
        return self._info.alias_of

    @property
    def writable(self) -> bool:
        """Whether writes reach the other processes."""
        return self._attachment.access is Access.WRITE

    def numpy(self, *, private: bool = False) -> npt.NDArray[Any]:
        """A C-contiguous little-endian array of ``shape``; writable only if the region is mapped for writing.

        With ``private=True`` it is writable over a region that is mapped for reading: writes change private pages of
        this process and nobody else's, as with ``torch()``. Without it the processor itself forbids them: what ignores
        that the array is read-only and writes, such as ``torch.from_numpy(array).add_(1)``, ends the process.

        bf16 and fp8 need ``ml_dtypes``. Raises ``Closed``; ``FeatureUnavailable`` if numpy has no such type, or for
        ``private=True`` of a region attached with ``strict=True``; ``ValidationFailed`` for it where writes would reach
        the others; ``MappingFailed``.
        """
        view = self._view
        dtype = to_numpy_dtype(self.dtype)
        return view.hand_out(self._raw(view, private).view(dtype).reshape(self.shape))

    def bytes(self, *, private: bool = False) -> npt.NDArray[np.uint8]:
        """The raw bytes, a ``uint8`` array of shape ``[byte_size]``, whatever the dtype. ``private`` and what is
        raised: as with ``numpy()``.
        """
        view = self._view
        return view.hand_out(self._raw(view, private))

    def _raw(self, view: View, private: bool) -> npt.NDArray[np.uint8]:
        if not private:
            return view.bytes(self.byte_offset, self.byte_size)
        if view.access is Access.WRITE:
            raise ValidationFailed(
                f"Cannot show tensor {self.name!r} privately: it is mapped for writing, and writes reach the others",
                hint="attach the region without writable=True, or copy() the array",
            )
        _check_not_strict(view, f"make a private array of tensor {self.name!r}")
        return view.writable(self.byte_offset, self.byte_size)

    def torch(self) -> TorchTensor:
        """A contiguous CPU tensor of ``shape``, sharing the memory.

        torch knows no read-only tensors: over a region that is not mapped for writing, an in-place operation changes
        private pages of this process and nobody else's. Raises ``Closed``, ``FeatureUnavailable`` if torch is missing,
        has no such type, or the region was attached with ``strict=True``, where such an operation would be a crash;
        ``MappingFailed``.
        """
        return to_torch_tensors(self._attachment, [to_row(self._info)])[self.name]

    def ref(self) -> TensorReference:
        """What another process of this machine needs to map this tensor without the server: ``client.open(ref)``.

        It keeps nothing alive. Raises ``Closed``; ``RegionNotSealed`` for a hand-off that is still open, which ends
        with the session of who builds it.
        """
        if self._attachment.is_open_hand_off and not is_sealed(self._attachment.place):
            raise RegionNotSealed(
                f"Cannot refer to tensor {quote(self.name)} of {self._attachment.place.region}: it is a hand-off that "
                "is still open, and ends with its maker's session; want it sealed",
                hint="seal() the region first, or give it another owner than linger=0",
            )
        return self._reference()

    def _reference(self) -> TensorReference:
        place = self._attachment.place
        _ = self._view
        return TensorReference(
            instance=place.instance or "",
            region=place.region,
            path=None if place.storage == FILE else place.path,
            dev=place.dev,
            ino=place.ino,
            byte_offset=self.byte_offset,
            byte_size=self.byte_size,
            dtype=self.dtype,
            shape=self.shape,
            storage=place.storage,
            device_uuid=self._device_uuid,
        )

    @property
    def _device_uuid(self) -> str | None:
        return None

    def lock_read(self, timeout: Timeout | None = None) -> TensorLock:
        """Keeps writers who lock it too out of the tensor: ``with tensor.lock_read(): …``. Many may read at a time.

        Waits at most ``timeout`` seconds, without end if that is ``None``. The kernel ends the lock with its process.
        It is not re-entrant: a thread that holds it and asks for ``lock_write`` waits for itself, also by an alias, as
        the lock is one of bytes. It binds only those who lock. Raises ``DeadlineExceeded``, ``StaleRef`` if the region
        was deleted, ``Closed``.
        """
        return self._lock(LockKind.READ, timeout)

    def lock_write(self, timeout: Timeout | None = None) -> TensorLock:
        """Has the tensor alone among those who lock it: ``with tensor.lock_write(): …``. As ``lock_read``.

        Raises ``ValidationFailed`` too, if the region is not mapped for writing.
        """
        return self._lock(LockKind.WRITE, timeout)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack: memory of the CPU."""
        return CPU_DEVICE

    def __dlpack__(self, **options: Any) -> object:
        """DLPack, for ``torch.from_dlpack(tensor)`` and its like: the same memory, which the consumer keeps mapped.

        The ``options`` are the protocol's. A tensor that is not mapped for writing is told as read-only; where the
        consumer ignores that, as torch does, its writes stay private, as with ``torch()``. Raises ``Closed``,
        ``FeatureUnavailable`` as ``torch()`` does, ``BufferError`` for another device.
        """
        return to_capsule(self._view, self._info, options)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """numpy 2's protocol: no copy unless asked for or needed, and ``ValueError`` if needed but forbidden."""
        array = self.numpy()
        if dtype is not None and np.dtype(dtype) != array.dtype:
            if copy is False:
                raise ValueError(f"Cannot make a {np.dtype(dtype)} array of {self.dtype} without a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    @property
    def _view(self) -> View:
        return self._attachment.view

    def _lock(self, kind: LockKind, timeout: float | None) -> TensorLock:
        return lock_tensor(self._attachment, self._info, kind, timeout)

    def __repr__(self) -> str:
        state = "closed" if self._attachment.closed else self._attachment.access.value
        alias = "" if self.alias_of is None else f", alias of {self.alias_of!r}"
        return f"<tensord.{type(self).__name__} {self.name!r} {self.dtype} {list(self.shape)}{alias}, {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a mapped tensor cannot be pickled or copied: send tensor.ref() and open it there")


def to_torch_tensors(attachment: Attachment, rows: Sequence[TensorRow]) -> dict[str, TorchTensor]:
    """Tensors of one mapping as ``Tensor.torch`` makes them, each with a storage of its own; the pages become writable
    once for all of them, and stay as long as any of them does. Raises as ``Tensor.torch``.

    A model has thousands, so a tensor is two calls into C, and nothing of ours is kept for it.
    """
    view = attachment.view
    if rows:
        _check_not_strict(view, f"make a torch tensor of {rows[0][0]!r}")
    dtypes = {dtype: to_shared_dtypes(dtype) for dtype in dict.fromkeys(row[1] for row in rows)}
    torch = import_torch()
    begin = min((row[3] for row in rows if row[4] > 0), default=0)
    end = max((row[3] + row[4] for row in rows if row[4] > 0), default=0)
    raw = view.writable(begin, end - begin)
    from_numpy, from_buffer, array, prod = torch.from_numpy, torch.frombuffer, np.ndarray, math.prod
    made: dict[str, TorchTensor] = {}
    for name, dtype, shape, byte_offset, byte_size in rows:
        torch_dtype, numpy_dtype = dtypes[dtype]
        if byte_size == 0:
            # frombuffer refuses to make tensors of no elements, and numpy those outside its buffer.
            made[name] = torch.empty(shape, dtype=torch_dtype, device="cpu")
        elif numpy_dtype is not None:
            made[name] = from_numpy(array(shape, numpy_dtype, raw, byte_offset - begin))
        else:
            flat = from_buffer(raw, dtype=torch_dtype, count=prod(shape), offset=byte_offset - begin)
            # In place, of as many elements: a view would be one more tensor, and one of another.
            made[name] = flat.resize_(shape)
    return made


def _check_not_strict(view: View, action: str) -> None:
    if view.access is Access.STRICT:
        raise FeatureUnavailable(
            f"Cannot {action}: it is mapped with strict=True, or pinned, where a write ends the process",
            hint="attach without strict: such writes then stay private to this process",
        )


def to_torch_alias(alias: Tensor, target: Tensor, torch_target: TorchTensor) -> TorchTensor:
    """An alias of ``target`` as torch sees it: in the storage of ``torch_target``, which is that tensor's, so that
    torch knows the two for tied.
    """
    dtype = to_torch_dtype(alias.dtype)
    begin, rest = divmod(alias.byte_offset - target.byte_offset, dtype.itemsize)
    # Elsewhere no server of today puts an alias, and one of no bytes has nothing to share.
    is_inside = begin >= 0 and begin * dtype.itemsize + alias.byte_size <= target.byte_size
    if rest != 0 or not is_inside or alias.byte_size == 0:
        return alias.torch()
    empty: TorchTensor = import_torch().empty(0, dtype=dtype, device=torch_target.device)
    flat = empty.set_(torch_target.untyped_storage(), begin, (math.prod(alias.shape),), (1,))
    return flat.reshape(alias.shape)


class OpenedTensor(Tensor):
    """A tensor mapped from a reference. It owns its mapping: close it, or use it in a ``with`` statement."""

    __slots__ = ()

    @property
    def closed(self) -> bool:
        return self._attachment.closed

    def close(self) -> None:
        """Lets go of the region. Arrays and tensors taken from it stay valid and keep it mapped."""
        self._attachment.close()

    def __enter__(self) -> OpenedTensor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
