"""A region in the memory of a device, mapped there: what a ``Region`` is for host memory."""

from __future__ import annotations

from collections.abc import Container, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from tensord._api import Api
from tensord._arguments.checked import checked_class
from tensord._cuda.attachment import DeviceAttachment
from tensord._cuda.devices import choose_device, is_same
from tensord._errors import FeatureUnavailable
from tensord._mapping.attachment import Attachment
from tensord._mapping.page_advice import Advice
from tensord._tensor.device_tensor import DeviceTensor
from tensord._wire.region import RegionDescriptor

from .copy import Source
from .pin import Register, Unregister
from .region import Region

if TYPE_CHECKING:
    from torch import Tensor as TorchTensor

# Whichever it is on.
ANY_DEVICE = "cuda"


@checked_class
class DeviceRegion(Region):
    """A region on a device that this process maps, in its primary context. Made by ``create`` and ``attach`` as any
    ``Region``; close it, or use it in a ``with`` statement. ``region["w"]`` is a ``DeviceTensor``.

    Closing waits for what this process has the device do, unmaps, and then ends the lease. What libraries made of its
    tensors stays valid, and keeps it mapped. A child made by ``fork`` has no CUDA, and no lease: everything of it
    raises ``Closed`` there.

    That a region is sealed binds those who map it by a client: a device's memory knows no such thing, and whoever has
    its descriptor can map it for writing.
    """

    def __init__(self, api: Api, descriptor: RegionDescriptor, attachment: DeviceAttachment, *, created: bool) -> None:
        super().__init__(api, descriptor, attachment, created=created)
        self._device_attachment = attachment

    @property
    def device(self) -> str:
        """The device as this process calls it: ``"cuda:0"``."""
        return self._device_attachment.device.shown

    @property
    def device_uuid(self) -> str:
        """The device's UUID, the same for every process."""
        return self._device_attachment.device.uuid

    def __getitem__(self, name: str) -> DeviceTensor:
        return DeviceTensor(self._device_attachment, self._info(name))

    def _to_torch(self, without: Container[str]) -> dict[str, TorchTensor]:
        return {name: self[name].torch() for name in self if name not in without}

    def copy_to_host(self) -> Any:
        """The only tensor's ``DeviceTensor.copy_to_host()``. Raises ``TypeError`` if there are several."""
        return self._only_on_device().copy_to_host()

    def copy_from_host(self, data: Any) -> None:
        """The only tensor's ``DeviceTensor.copy_from_host()``. Raises ``TypeError`` if there are several."""
        self._only_on_device().copy_from_host(data)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        # The interface has no word for an owner: whoever reads it keeps this region, and this its tensor.
        tensor = self._only_on_device()
        self._shown = tensor
        return tensor.__cuda_array_interface__

    def lock_memory(self) -> NoReturn:
        """Not of a device's memory, which is never swapped. Raises ``FeatureUnavailable``."""
        self._refuse("lock its pages in memory")

    def pin(self, register: Register, unregister: Unregister | None = None, *, read_only: bool = False) -> NoReturn:
        """Not of a device's memory, which is there already. Raises ``FeatureUnavailable``."""
        self._refuse("pin its pages")

    def advise(self, advice: Advice) -> NoReturn:
        """Not of a device's memory, which is there or not. Raises ``FeatureUnavailable``."""
        self._refuse("advise the kernel on its pages")

    def resident_bytes(self) -> NoReturn:
        """Not of a device's memory, which is there or not. Raises ``FeatureUnavailable``."""
        self._refuse("count its pages in memory")

    def flush(self) -> NoReturn:
        """Not of a device's memory, which no disk keeps. Raises ``FeatureUnavailable``."""
        self._refuse("flush it")

    def close(self) -> None:
        """Lets go of the region here, once the device has done what it was told. Safe to call twice. Raises
        ``DriverFailed`` if the driver refused a call; the error says whether anything is left.
        """
        self._shown = None
        super().close()

    def __enter__(self) -> DeviceRegion:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    _shown: DeviceTensor | None = None

    def _fill(self, sources: Sequence[Source]) -> None:
        for source in sources:
            self[source.name]._write(source.array)

    def _only_on_device(self) -> DeviceTensor:
        only = self._only()
        assert isinstance(only, DeviceTensor)
        return only

    def _refuse(self, what: str) -> NoReturn:
        raise FeatureUnavailable(f"Cannot {what}: {self.descriptor.shown} is memory of {self.device}")

    def __repr__(self) -> str:
        state = "closed" if self.closed else "write" if self.writable else "read"
        shown = f"{self.descriptor.shown} on {self.device}"
        return f"<tensord.DeviceRegion {shown}, {self.state}, {len(self)} tensors, {state}>"


def to_wanted_device(device: str) -> str:
    """The UUID of the device that a caller wants a region to be on; ``"cuda"`` means whichever. Raises as
    ``choose_device``.
    """
    return device if device == ANY_DEVICE else choose_device(device)


def check_device(region: RegionDescriptor, wanted: str | None) -> None:
    """Raises ``FeatureUnavailable`` if a region is not on the device that is wanted."""
    if wanted is None:
        return
    uuid = region.storage.device_uuid
    if uuid is None:
        raise FeatureUnavailable(
            f"Cannot attach {region.shown} on a device: it is in host memory ({region.storage.kind})",
            hint='attach it without device=; or make it there: client.create(name, data, device="cuda:0")',
        )
    if wanted != ANY_DEVICE and not is_same(uuid, wanted):
        raise FeatureUnavailable(
            f"Cannot attach {region.shown} on device {wanted}: it is on {uuid}",
            hint='device="cuda" takes it where it is',
        )


def to_region(api: Api, descriptor: RegionDescriptor, attachment: Attachment, *, created: bool) -> Region:
    """The region that a mapping is of."""
    if isinstance(attachment, DeviceAttachment):
        return DeviceRegion(api, descriptor, attachment, created=created)
    return Region(api, descriptor, attachment, created=created)
