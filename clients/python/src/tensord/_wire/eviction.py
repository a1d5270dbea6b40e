"""What an eviction did, or would do: plain, frozen records parsed from the server's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .reading import read

if TYPE_CHECKING:
    from . import schemas


@dataclass(frozen=True, slots=True)
class EvictedRegion:
    """A region that went, by its id, with so many ``bytes``; last used at that time (RFC 3339)."""

    region: str
    model: str
    name: str | None
    bytes: int
    last_used_at: str


@dataclass(frozen=True, slots=True)
class KeptRegion:
    """An evictable region that stayed: ``reason`` is ``leased`` (somebody maps it), ``handed-out`` (somebody may be
    about to) or ``not-needed``.
    """

    region: str
    model: str
    name: str | None
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Eviction:
    """What went, and which evictable regions stayed, the first of them; with ``dry_run`` what would go.

    ``enough`` says whether the bytes that were asked for went. ``raw`` is the JSON object itself.
    """

    dry_run: bool
    enough: bool
    freed_bytes: int
    evicted: tuple[EvictedRegion, ...]
    kept: tuple[KeptRegion, ...]
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def parse_eviction(value: Any) -> Eviction:
    """Reads the answer of an eviction. Raises ``ServerFault`` if it is none."""
    return read("eviction", _to_eviction, value)


def _to_eviction(value: schemas.Eviction) -> Eviction:
    return Eviction(
        dry_run=bool(value["dry_run"]),
        enough=bool(value["enough"]),
        freed_bytes=int(value["freed_bytes"]),
        evicted=tuple(map(_to_evicted, value["evicted"])),
        kept=tuple(map(_to_kept, value["kept"])),
        raw=value,
    )


def _to_evicted(value: schemas.Evicted) -> EvictedRegion:
    return EvictedRegion(
        region=str(value["region"]),
        model=str(value["model"]),
        name=value["name"],
        bytes=int(value["bytes"]),
        last_used_at=str(value["last_used_at"]),
    )


def _to_kept(value: schemas.Kept) -> KeptRegion:
    return KeptRegion(
        region=str(value["region"]),
        model=str(value["model"]),
        name=value["name"],
        bytes=int(value["bytes"]),
        reason=str(value["reason"]),
    )
