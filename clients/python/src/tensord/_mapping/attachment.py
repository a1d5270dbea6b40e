"""A mapped region, or a part of one, as regions and tensors share it: the file it came from, a view of its bytes, and
the switch between writing and reading that a seal makes. It asks no server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

from tensord._errors import Closed

from .attach import AttachedBy, Place, remap_place
from .lease import Role
from .mapping import Access, View

_MAKER = Role.MAKER


class Attachment:
    """Holds a view of the file at ``place`` until ``close``. Every use after that raises ``Closed``."""

    __slots__ = ("_view", "is_open_hand_off", "on_remap", "place")

    def __init__(self, place: Place, view: View) -> None:
        self.place = place
        # Hears of each switch, and whether this process is only its maker then.
        self.on_remap: Callable[[Access, bool], None] | None = None
        # A hand-off that was open when the server was last asked: it ends with its maker's session.
        self.is_open_hand_off = False
        self._view = view

    @property
    def view(self) -> View:
        """The view. Raises ``Closed``."""
        if self._view.closed:
            raise Closed(
                f"Cannot use region {self.place.region}: it was closed here",
                hint="attach it again; arrays and tensors taken before stay valid",
            )
        return self._view

    @property
    def closed(self) -> bool:
        return self._view.closed

    @property
    def is_makers(self) -> bool:
        """Whether this process made it, and uses it for nothing else."""
        return self.place.role is _MAKER

    def use_as_well(self) -> None:
        """From the next switch on this process is one of those for whom the region was made."""
        if self.is_makers:
            self.place = replace(self.place, role=Role.BUILDER)

    @property
    def access(self) -> Access:
        return self._view.access

    @property
    def attached_by(self) -> AttachedBy:
        """How its file was reached when it was last mapped."""
        return self._view.mapping.attached_by

    def part(self, byte_offset: int, byte_size: int) -> Attachment:
        """A part of it, which keeps the mapping as long as it is open. Raises ``Closed``."""
        return Attachment(self.place, self.view.part(byte_offset, byte_size))

    def close(self) -> None:
        self._view.close()

    def remap(self, access: Access) -> None:
        """Changes how it is mapped, and which locks it holds; every address stays. Raises as ``map_place`` does."""
        remap_place(self.place, self.view.mapping, access)
        if self.on_remap is not None:
            self.on_remap(access, self.is_makers)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a mapped region cannot be pickled or copied: send tensor.ref() and open it there")
