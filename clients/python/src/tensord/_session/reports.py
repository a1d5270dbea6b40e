"""What a session's client maps, and which messages tell the server of it. Pure: nothing here sends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Mappings:
    """This process's mappings of one region: how many, and whether one of them is for writing."""

    count: int = 0
    writable: bool = False


NONE = Mappings()


def count_mappings(mapped: Iterable[tuple[str, bool]]) -> dict[str, Mappings]:
    """Sums up mappings, each a region's id and whether it is for writing."""
    sums: dict[str, Mappings] = {}
    for region, writable in mapped:
        known = sums.get(region, NONE)
        sums[region] = Mappings(known.count + 1, known.writable or writable)
    return sums


def to_messages(told: Mapping[str, Mappings], now: Mapping[str, Mappings]) -> Iterator[dict[str, Any]]:
    """The messages after which a server that was told ``told`` knows ``now``."""
    for region in {**told, **now}:
        before, after = told.get(region, NONE), now.get(region, NONE)
        if before.writable and not after.writable:
            # The server takes a region for mapped for writing until its last mapping is gone: say that it is.
            yield from _detach(region, before.count)
            before = NONE
        yield from _detach(region, before.count - after.count)
        more = after.count - before.count
        if more <= 0 and after.writable and not before.writable:
            yield from _detach(region, 1)
            more = 1
        for _ in range(more):
            yield {"attach": region, "writable": after.writable}


def _detach(region: str, count: int) -> Iterator[dict[str, Any]]:
    for _ in range(count):
        yield {"detach": region}
