"""What a session's client maps, and which messages tell the server of it. Pure: nothing here sends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


# Not frozen, as ``Place``.
@dataclass(slots=True)
class Reported:
    """A mapping of this process: of which region, whether for writing, and whether this process is only its maker.

    ``hand_off`` says whether the server waits for its end; ``None``, of a reference, that nobody here knows.
    """

    region: str
    writable: bool = False
    is_makers: bool = False
    hand_off: bool | None = False


@dataclass(frozen=True, slots=True)
class Mappings:
    """This process's mappings of one region: how many, and whether one of them is for writing."""

    count: int = 0
    writable: bool = False


NONE = Mappings()

Key = tuple[str, "bool | None"]
"""A region, and whether it is its maker that maps it: ``None`` for a server that does not tell makers apart."""


def to_key(reported: Reported, *, tells_makers: bool) -> Key:
    return reported.region, reported.is_makers if tells_makers else None


def count_mappings(mapped: Iterable[Reported], *, tells_makers: bool) -> dict[Key, Mappings]:
    """Sums up mappings."""
    sums: dict[Key, Mappings] = {}
    for reported in mapped:
        key = to_key(reported, tells_makers=tells_makers)
        known = sums.get(key, NONE)
        sums[key] = Mappings(known.count + 1, known.writable or reported.writable)
    return sums


def count_passed(ended: Iterable[Reported], *, tells_makers: bool) -> dict[Key, int]:
    """Sums up mappings that came and went untold. By references, which nobody counts, one of a region is told."""
    sums: dict[Key, int] = {}
    for reported in ended:
        key = to_key(reported, tells_makers=tells_makers)
        sums[key] = sums.get(key, 0) + 1 if reported.hand_off else max(sums.get(key, 0), 1)
    return sums


def to_messages(
    told: Mapping[Key, Mappings], now: Mapping[Key, Mappings], passed: Mapping[Key, int]
) -> Iterator[dict[str, Any]]:
    """The messages after which a server that was told ``told`` knows ``now``, and of each mapping that ``passed``."""
    for key in {**told, **now, **passed}:
        before, after = told.get(key, NONE), now.get(key, NONE)
        more = after.count - before.count
        for _ in range(max(more, 0)):
            yield _attach(key, after)
        for _ in range(passed.get(key, 0)):
            yield _attach(key, NONE)
            yield _detach(key)
        if before.writable and not after.writable:
            # The server takes a region for mapped for writing until its last mapping is gone: say that it is.
            yield from (_detach(key) for _ in range(max(before.count, after.count)))
            yield from (_attach(key, after) for _ in range(after.count))
        elif more <= 0 and after.writable and not before.writable:
            yield from (_detach(key) for _ in range(1 - more))
            yield _attach(key, after)
        else:
            yield from (_detach(key) for _ in range(-more))


def _attach(key: Key, mappings: Mappings) -> dict[str, Any]:
    return {"attach": key[0], "writable": mappings.writable, **_says_who(key)}


def _detach(key: Key) -> dict[str, Any]:
    return {"detach": key[0], **_says_who(key)}


def _says_who(key: Key) -> dict[str, Any]:
    return {} if key[1] is None else {"maker": key[1]}
