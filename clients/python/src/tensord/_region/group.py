"""Groups: regions that are sealed in one turn, and mapped as of one turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, overload

from tensord._api import Api, NamedGroup
from tensord._errors import ValidationFailed
from tensord._session.session import Session
from tensord._wire.region import RegionDescriptor, is_hand_off

from .asked import asked_by
from .device_region import to_region
from .mapper import find_regions, keeps_by, map_regions, to_access
from .region import Region
from .sealing import seal_mapped

if TYPE_CHECKING:
    from tensord._wire import schemas


class Group(Sequence[Region]):
    """Regions that were opened in one turn: one version of all of them. ``attach`` makes it, of a list of names.

    A sequence of ``Region``s in the order of the names; close it, which closes each, or use it in a ``with`` statement:
    ``with client.attach(["shard-0", "shard-1"]) as (first, second): …``
    """

    def __init__(self, regions: Iterable[Region]) -> None:
        self._regions = tuple(regions)

    @property
    def regions(self) -> tuple[Region, ...]:
        """All of them, in the order of the names."""
        return self._regions

    @overload
    def __getitem__(self, index: int) -> Region: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Region]: ...
    def __getitem__(self, index: int | slice) -> Region | Sequence[Region]:
        return self._regions[index]

    def __iter__(self) -> Iterator[Region]:
        return iter(self._regions)

    def __len__(self) -> int:
        return len(self._regions)

    def close(self) -> None:
        """Lets go of all of them here. Safe to call twice. Arrays and tensors taken before stay valid."""
        for region in self._regions:
            region.close()

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<tensord.Group of {len(self)} regions>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("mapped regions cannot be pickled or copied: send their names, and attach them there")


def open_group(
    api: Api, session: Session | None, named: NamedGroup, timeout: float, *, writable: bool, strict: bool
) -> Group:
    """Maps the regions of all these names as they are in one turn. Raises as ``attach`` of one does."""
    access = to_access(writable=writable, strict=strict)

    def find() -> list[RegionDescriptor]:
        return find_regions(lambda until: api.open_group(named, until), timeout, writable=writable)

    mapped = map_regions(find(), find, lambda _: access, asked_by(api), keeps_by(session))
    if session is not None:
        for region, attachment in mapped:
            if attachment.place.copy is None:
                session._report(attachment, start=True, hand_off=is_hand_off(region))
    return Group(to_region(api, region, attachment, created=False) for region, attachment in mapped)


def seal_group(
    api: Api,
    members: Sequence[Region | str],
    revisions: Sequence[int] | None,
    *,
    checksum: bool,
    stock_writable: bool,
) -> tuple[RegionDescriptor, ...]:
    """Seals all of them in one turn: those that are mapped here, by their view of it, and others by their id."""
    ids = [member if isinstance(member, str) else member.id for member in members]
    twice = next((region_id for at, region_id in enumerate(ids) if region_id in ids[:at]), None)
    if twice is not None:
        raise ValidationFailed(f"Cannot seal the group: {twice} is there twice, want each once")
    if revisions is not None and len(revisions) != len(ids):
        raise ValidationFailed(
            f"Cannot seal the group: if_match has {len(revisions)} revisions, want one for each of {len(ids)} regions"
        )
    wanted: list[schemas.GroupMember] = [{"region": region_id} for region_id in ids]
    for each, revision in zip(wanted, revisions or (), strict=False):
        each["revision"] = revision
    body: schemas.SealGroup = {"regions": wanted, "checksum": checksum, "stock_writable": stock_writable}
    mapped = [member for member in members if isinstance(member, Region)]
    sealed = seal_mapped(mapped, lambda: api.seal_group(body))
    return tuple(_tell(member, descriptor) for member, descriptor in zip(members, sealed, strict=True))


def _tell(member: Region | str, sealed: RegionDescriptor) -> RegionDescriptor:
    """What the server said of a member, which its region takes over: with its tensors, which a seal does not change."""
    if isinstance(member, str):
        return sealed
    return member._hear(dataclasses.replace(sealed, tensors=member.descriptor.tensors))
