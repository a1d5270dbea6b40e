"""A mapped region: its tensors, its seal, its end in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from tensord._api import Api
from tensord._arguments.checked import checked_class
from tensord._arguments.kinds import DeviceName, Name, Revision, Seconds, Timeout, Version
from tensord._arguments.quoting import quote
from tensord._collector import make_uncollected
from tensord._errors import TensorNotFound
from tensord._mapping.attach import AttachedBy, Place
from tensord._mapping.attachment import Attachment
from tensord._mapping.mapping import Access
from tensord._mapping.memory_lock import MemoryLock
from tensord._mapping.page_advice import Advice, advise, resident_bytes
from tensord._tensor.reference import TensorReference
from tensord._tensor.tensor import Tensor, to_torch_alias, to_torch_tensors
from tensord._tensor.tensor_lock import TensorLock
from tensord._wire.region import RegionDescriptor, is_hand_off
from tensord._wire.residency import Residency
from tensord._wire.tensors import TensorInfo, TensorInfos

from .pin import Pin, Register, Unregister
from .sealing import seal_mapped

if TYPE_CHECKING:
    from torch import Tensor as TorchTensor

    from tensord._wire import schemas

    from .device_region import DeviceRegion

_Kept = TypeVar("_Kept", MemoryLock, Pin)


@checked_class
class Region:
    """A region that this process maps. Made by ``create`` and ``attach``; close it, or use it in a ``with`` statement.

    ``region["w"]`` is a ``Tensor``; ``numpy()``, ``torch()``, ``bytes()`` and ``ref()`` of the region itself are
    those of its only tensor. Closing it lets go of the memory here and changes nothing for others: whoever owns the
    region (a session, a TTL …) decides its end. Arrays and tensors taken before stay valid and keep the pages mapped. A
    child made by ``fork`` inherits the mapping, and its lease, until it ends. Not picklable: send ``ref()``.
    """

    def __init__(self, api: Api, descriptor: RegionDescriptor, attachment: Attachment, *, created: bool) -> None:
        self._api = api
        self._descriptor = descriptor
        self._attachment = attachment
        self._created = created
        self._seal_lock = threading.Lock()
        tensors = descriptor.tensors
        self._infos = (tensors if isinstance(tensors, TensorInfos) else TensorInfos([])).by_name
        # Locks and pins, which end with it.
        self._kept: list[MemoryLock | Pin] = []
        if descriptor.state == "open":
            self._hear(descriptor)

    @property
    def id(self) -> str:
        return self._descriptor.id

    @property
    def name(self) -> str | None:
        return self._descriptor.name

    @property
    def version(self) -> str:
        """Which build of the name; empty unless its maker said one."""
        return self._descriptor.version

    @property
    def model(self) -> str:
        return self._descriptor.model

    @property
    def state(self) -> str:
        """The state when the server was last asked: at attach, ``seal`` or ``refresh``."""
        return self._descriptor.state

    @property
    def descriptor(self) -> RegionDescriptor:
        """What the server said when it was last asked."""
        return self._descriptor

    @property
    def created(self) -> bool:
        """Whether this call made the region; false if it was found, by ``attach``, by ``get_or_create``, or through
        ``if_exists="attach"``: ``age`` says how old it is then.
        """
        return self._created

    @property
    def created_at(self) -> str:
        """When it was made, by whomever: RFC 3339, as the descriptor has it."""
        return self._descriptor.created_at

    @property
    def age(self) -> float:
        """Seconds since it was made, by this machine's clock, which is the server's as well."""
        return max(0.0, time.time() - datetime.fromisoformat(self.created_at).timestamp())

    @property
    def writable(self) -> bool:
        """Whether writes here reach the other processes. False once it was sealed through this object."""
        return self._attachment.access is Access.WRITE

    @property
    def attached_by(self) -> AttachedBy:
        """How this process reached its memory: by its ``"name"`` in the shared directory, or by a ``"descriptor"`` from
        the server's broker, since it has no name, or none that this process can open; or as a ``"copy"``, this
        process's own memory, of ``heap`` storage, which no process maps.
        """
        return self._attachment.attached_by

    @property
    def closed(self) -> bool:
        return self._attachment.closed

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, in the region's order. They need no closing."""
        return {name: self[name] for name in self._infos}

    def keys(self) -> tuple[str, ...]:
        """The tensors' names, in the region's order."""
        return tuple(self._infos)

    def __getitem__(self, name: str) -> Tensor:
        return Tensor(self._attachment, self._info(name))

    def _info(self, name: str) -> TensorInfo:
        info = self._infos.get(name) if isinstance(name, str) else None
        if info is None:
            raise TensorNotFound(
                f"Cannot find tensor {quote(name)} in {self._descriptor.shown}", hint=f"it has {_shorten(self.keys())}"
            )
        return info

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._infos

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def numpy(self, *, private: bool = False) -> npt.NDArray[Any]:
        """The only tensor as ``Tensor.numpy()``. Raises ``TypeError`` if there are several."""
        return self._only().numpy(private=private)

    def torch(self) -> TorchTensor:
        """The only tensor as ``Tensor.torch()``. Raises ``TypeError`` if there are several."""
        return self._only().torch()

    def bytes(self, *, private: bool = False) -> npt.NDArray[np.uint8]:
        """The only tensor as ``Tensor.bytes()``. Raises ``TypeError`` if there are several."""
        return self._only().bytes(private=private)

    def ref(self) -> TensorReference:
        """The only tensor's reference, as ``Tensor.ref()``. Raises ``TypeError`` if there are several."""
        return self._only().ref()

    def lock_read(self, timeout: Timeout | None = None) -> TensorLock:
        """The only tensor's ``Tensor.lock_read()``. Raises ``TypeError`` if there are several."""
        return self._only().lock_read(timeout)

    def lock_write(self, timeout: Timeout | None = None) -> TensorLock:
        """The only tensor's ``Tensor.lock_write()``. Raises ``TypeError`` if there are several."""
        return self._only().lock_write(timeout)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._only().__dlpack_device__()

    def __dlpack__(self, **options: Any) -> object:
        """The only tensor as ``Tensor.__dlpack__()``. Raises ``TypeError`` if there are several."""
        return self._only().__dlpack__(**options)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self._only().__array__(dtype, copy)

    def state_dict(self) -> dict[str, TorchTensor]:
        """Every tensor as torch sees it, without a copy: for ``module.load_state_dict(…, assign=True)``.

        Each has a storage of its own bytes alone, as ``torch.save`` of one needs it. Aliases are in the storage of the
        tensor whose bytes they show: tied weights are tied.
        """
        # Of each a row and what torch makes of it.
        return make_uncollected(2 * len(self), self._to_state_dict)

    def _to_state_dict(self) -> dict[str, TorchTensor]:
        aliases = self._infos.aliases()
        whole = self._to_torch(aliases)
        if not aliases:
            return whole
        return {name: whole[name] if name in whole else self._alias(name, whole) for name in self._infos}

    def _to_torch(self, without: Container[str]) -> dict[str, TorchTensor]:
        """All tensors but those ``without`` which it shall be, in the region's order."""
        return to_torch_tensors(self._attachment, [row for row in self._infos.rows() if row[0] not in without])

    def _alias(self, name: str, whole: Mapping[str, TorchTensor]) -> TorchTensor:
        target = self._infos[name].alias_of
        assert target is not None, "it is an alias"
        # An alias of an alias, which no server makes, is a tensor like any other.
        return to_torch_alias(self[name], self[target], whole[target]) if target in whole else self[name].torch()

    def seal(
        self, *, checksum: bool = False, stock_writable: bool = False, if_match: Revision | None = None
    ) -> RegionDescriptor:
        """Makes the region final for everybody, and this process's view of it read-only, in place.

        Every array and tensor stays valid at its address. Arrays that ``numpy()`` gave out become
        ``writeable=False``; views that the caller made of them, and torch tensors, cannot be told, and a write
        through one stays in this process's private pages. **All writing here must have stopped before**: what another
        thread writes meanwhile may be lost. ``checksum=True`` records a checksum for ``verify``.
        ``stock_writable=True`` keeps the file openable read-write for stock readers that insist (Python's
        ``SharedMemory``).

        With ``if_match`` only a region of that ``revision`` is sealed. If it fails, the view is writable again and
        the region open. Raises ``RevisionMismatch``, ``RegionHasWriters`` while another
        process, a forked child or another ``Region`` of this process maps it for writing, ``RegionSealed``,
        ``Closed``, ``ServerUnavailable``. If an answer was lost and the file is sealed already, the view stays
        read-only.
        """
        body: schemas.SealRegion = {"checksum": checksum, "stock_writable": stock_writable}

        def seal() -> list[RegionDescriptor]:
            return [self._hear(self._api.seal(self.id, body, if_match))]

        return seal_mapped([self], seal)[0]

    def to_device(
        self,
        device: DeviceName,
        *,
        name: Name | None = None,
        version: Version | None = None,
        ttl: Seconds | None = None,
        linger: Seconds | None = None,
        persist: bool = False,
        if_exists: Literal["fail", "attach", "replace"] = "fail",
        timeout: Timeout | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> DeviceRegion:
        """Has the server copy this sealed region to ``"cuda:0"``, or to the device with that UUID, and maps the copy
        there, for reading. ``progress(done_bytes, total_bytes)`` is called about once a second; a wait that ends
        otherwise, by ``timeout`` seconds or an exception, cancels the copy.

        The copy is a region of its own, in the same model. By default it has no name, and goes when nobody maps it any
        more; ``name``, ``ttl``, ``linger`` and ``persist`` are as in ``create``. With a ``name`` and
        ``if_exists="attach"`` all processes that ask for it share one copy on the device.

        Raises ``RegionNotSealed``, ``OutOfDeviceMemory`` and its kin, ``FeatureUnavailable``, ``StorageUnavailable``,
        ``DeadlineExceeded``.
        """
        # It makes regions, and so knows this class.
        from .on_device import copy_to_device

        return copy_to_device(
            self._api,
            self.descriptor,
            device,
            name=name,
            version=version,
            ttl=ttl,
            linger=linger,
            persist=persist,
            if_exists=if_exists,
            timeout=timeout,
            progress=progress,
        )

    def lock_memory(self) -> MemoryLock:
        """Locks the region's pages in memory, out of swap, until the lock is released or the region closed here.
        Nothing is copied, whatever views there are; ``mlock`` of a view that can be written to copies all of it.

        Raises ``MappingFailed`` if this process may not lock as much, ``StaleRef`` if the region was deleted,
        ``Closed``.
        """
        return self._keep(MemoryLock(self._standing()))

    def pin(self, register: Register, unregister: Unregister | None = None, *, read_only: bool = False) -> Pin:
        """Maps the pages once more and has ``register(address, byte_size)`` pin them, for a GPU say, without a copy;
        ``unregister(address)`` is called when the pin, or the region, is closed here.

        While ``register`` runs the map is writable, since that is what pins ask for; after it, read-only to the
        processor. With ``read_only=True`` it is so from the start: for registrations that only read. Raises
        ``FeatureUnavailable`` where this process may not open the sealed file for writing, what ``register`` raises,
        ``MappingFailed``, ``StaleRef`` if the region was deleted, ``Closed``.
        """
        return self._keep(Pin(self._standing(), self._infos, register, unregister, read_only=read_only))

    def advise(self, advice: Advice) -> Residency | None:
        """Tells the kernel what comes. ``"sequential"``, ``"random"`` and ``"normal"`` say in which order this process
        reads what it maps, and return ``None``. ``"willneed"`` has the kernel read the region's file ahead.
        ``"dontneed"`` lets go of the pages here, after a copy to a GPU say, and then of the kernel's copy of the file,
        as far as no other process maps that: the next read brings them back. Of regions in memory, which is the only
        copy of their bytes, nothing is let go of.

        Returns how much was in memory, and is. Raises ``ValidationFailed`` where pages were written to privately,
        which would be lost, ``MappingFailed``, ``Closed``, ``RegionDraining``, ``StorageUnavailable``, ``Forbidden``.
        """
        advise(self._standing(), self._attachment.view, advice)
        return self._api.advise(self.id, advice) if advice in ("willneed", "dontneed") else None

    def resident_bytes(self) -> int | None:
        """How many bytes of what is mapped here are in memory, by pages; ``None`` where the kernel does not tell this
        process, which neither owns the file nor may write to it. Raises ``MappingFailed``, ``Closed``.
        """
        return resident_bytes(self._standing(), self._attachment.view)

    def flush(self) -> bool:
        """Brings what was written to the region to the disk that its file is on, and waits for that. Others see what is
        written without it. Returns whether it is there without power: of memory it is not, and nothing is done.
        Raises ``ReadWriteError``, ``RegionDraining``, ``Forbidden``.
        """
        return self._api.flush(self.id)

    def refresh(self) -> RegionDescriptor:
        """Asks the server for the region as it is now."""
        return self._hear(self._api.region(self.id))

    def close(self) -> None:
        """Lets go of the region here. Safe to call twice. Arrays and tensors taken before stay valid."""
        try:
            while self._kept:
                self._kept.pop().release()
        finally:
            self._attachment.close()

    def __enter__(self) -> Region:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else self._attachment.access.value
        how = {"name": "", "descriptor": ", by descriptor", "copy": ", a copy"}[self.attached_by]
        return f"<tensord.Region {self._descriptor.shown}, {self.state}, {len(self)} tensors, {state}{how}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a mapped region cannot be pickled or copied: send region.ref(), or its name, and map it there")

    def _standing(self) -> Place:
        _ = self._attachment.view
        return self._attachment.place

    def _keep(self, kept: _Kept) -> _Kept:
        self._kept = [each for each in self._kept if not each.released]
        self._kept.append(kept)
        return kept

    def _hear(self, descriptor: RegionDescriptor) -> RegionDescriptor:
        self._descriptor = descriptor
        self._attachment.is_open_hand_off = is_hand_off(descriptor) and descriptor.state == "open"
        return descriptor

    def _only(self) -> Tensor:
        if len(self._infos) != 1:
            raise TypeError(
                f"{self._descriptor.shown} has {len(self)} tensors: choose one, as in region[name]; it has "
                f"{_shorten(self.keys())}"
            )
        return self[next(iter(self._infos))]


def _shorten(names: tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, names[:8]))
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown or "none"
