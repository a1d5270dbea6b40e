"""A region's pages registered with a device driver or the kernel (``cudaHostRegister``, io_uring), without a copy: by a
map of its own, since pinning a reader's view copies what it pins. The caller brings the registration.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import NoReturn

from tensord._errors import FeatureUnavailable
from tensord._mapping.attach import Mismatch, Place, map_to_pin
from tensord._mapping.attachment import Attachment
from tensord._tensor.tensor import Tensor
from tensord._wire.tensors import TensorInfo

Register = Callable[[int, int], object]
Unregister = Callable[[int], object]


class Pin:
    """A second map of a region, whose pages are registered at ``address``. Made by ``region.pin``; release it, or use
    it in a ``with`` statement. ``pin[name]`` is a ``Tensor`` over it, for reading: ``numpy()`` and ``bytes()``.

    Attributes: ``address`` and ``byte_size`` of what is registered, which begins as the region's file does.
    """

    def __init__(
        self,
        place: Place,
        infos: Mapping[str, TensorInfo],
        register: Register,
        unregister: Unregister | None,
        *,
        read_only: bool,
    ) -> None:
        """Raises ``FeatureUnavailable``, what ``register`` raises, and as ``map_place`` does."""
        try:
            view = map_to_pin(place, writable=not read_only)
        except Mismatch as mismatch:
            if not mismatch.sealed:
                raise mismatch.to_error() from mismatch
            raise FeatureUnavailable(
                f"Cannot pin region {place.region} without a copy: pins ask for the right to write, and this process "
                "may not open the sealed file for that",
                hint="read_only=True, if the registration only reads (cudaHostRegisterReadOnly); or seal it with "
                "stock_writable=True, where all who may open it are trusted",
            ) from mismatch
        anchor, _ = view.buffer()
        self.address = ctypes.addressof(anchor)
        self.byte_size = place.byte_size
        self._attachment = Attachment(place, view)
        self._infos = infos
        try:
            register(self.address, self.byte_size)
            # What may still be written through the map itself would reach everybody.
            view.mapping.protect()
        except BaseException:
            view.close()
            raise
        self._unregister = weakref.finalize(self, unregister or _nothing, self.address)
        self._unregister.atexit = False

    @property
    def released(self) -> bool:
        return self._attachment.closed

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of that name over the pinned pages. Raises ``KeyError``."""
        return Tensor(self._attachment, self._infos[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def release(self) -> None:
        """Unregisters the pages, then lets go of them. Safe to release twice. Arrays stay valid, and unpinned."""
        try:
            self._unregister()
        finally:
            self._attachment.close()

    def __enter__(self) -> Pin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a pin cannot be pickled or copied: pin the region where it is needed")


def _nothing(_: int) -> None:
    """For who unregisters by himself."""
