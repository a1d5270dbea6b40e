"""A mapped region, as its regions and tensors share it: the mapping, the file it came from, and the switch between
writing and reading that a seal makes. It asks no server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from tensord._errors import Closed
from tensord._tensor.reference import instance_of

from .attach import Place, map_place, remap_place
from .mapping import Access, Mapping


class Attachment:
    """Holds one mapping until ``close``. Every use after that raises ``Closed``."""

    def __init__(self, place: Place, byte_offset: int, byte_size: int, access: Access) -> None:
        self.place = place
        # Hears of each switch.
        self.on_remap: Callable[[Access], None] | None = None
        self._mapping = map_place(place, byte_offset, byte_size, access)

    @property
    def mapping(self) -> Mapping:
        """The mapping. Raises ``Closed``."""
        if self._mapping.closed:
            raise Closed(
                f"Cannot use region {self.place.region}: it was closed here",
                hint="attach it again; arrays and tensors taken before stay valid",
            )
        return self._mapping

    @property
    def closed(self) -> bool:
        return self._mapping.closed

    @property
    def access(self) -> Access:
        return self._mapping.access

    @property
    def instance(self) -> str:
        """The instance whose region it is, as the file's name says."""
        return instance_of(self.place.path) or ""

    def close(self) -> None:
        self._mapping.close()

    def remap(self, access: Access) -> None:
        """Changes how it is mapped, and which locks it holds; every address stays. Raises as ``map_place`` does."""
        remap_place(self.place, self.mapping, access)
        if self.on_remap is not None:
            self.on_remap(access)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a mapped region cannot be pickled or copied: send tensor.ref() and open it there")
