"""The server's books: plain, frozen records parsed from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .pool import ServerPool, to_server_pool
from .reading import read

if TYPE_CHECKING:
    from . import schemas


@dataclass(frozen=True, slots=True)
class InodeStats:
    """Inodes of the file system that holds the regions."""

    used: int
    free: int


@dataclass(frozen=True, slots=True)
class RegionStats:
    """How many regions there are in each state."""

    creating: int
    open: int
    sealing: int
    sealed: int
    draining: int


@dataclass(frozen=True, slots=True)
class HttpStats:
    """Requests since the server's start, and the bytes of their bodies."""

    requests: int
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """The books of a server at one moment.

    ``models``, ``sessions``, ``claims`` and ``leases`` (those by request: kernel locks are not counted) say how many
    there are; ``epoch`` rises at every start of the server, and ``journal_bytes`` is what its own database takes.
    ``raw`` is the JSON object itself.
    """

    instance: str
    version: str
    epoch: int
    pools: tuple[ServerPool, ...]
    journal_bytes: int
    inodes: InodeStats
    regions: RegionStats
    models: int
    sessions: int
    claims: int
    leases: int
    http: HttpStats
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def parse_stats(value: Any) -> Stats:
    """Reads the books' JSON. Raises ``ServerFault`` if it is none."""
    return read("answer of /v1/stats", _to_stats, value)


def _to_stats(value: schemas.Stats) -> Stats:
    inodes, regions, http = value["inodes"], value["regions"], value["http"]
    return Stats(
        instance=str(value["instance"]),
        version=str(value["version"]),
        epoch=int(value["epoch"]),
        pools=tuple(map(to_server_pool, value["pools"])),
        journal_bytes=int(value["journal_bytes"]),
        inodes=InodeStats(used=int(inodes["used"]), free=int(inodes["free"])),
        regions=RegionStats(
            creating=int(regions["creating"]),
            open=int(regions["open"]),
            sealing=int(regions["sealing"]),
            sealed=int(regions["sealed"]),
            draining=int(regions["draining"]),
        ),
        models=int(value["models"]),
        sessions=int(value["sessions"]),
        claims=int(value["claims"]),
        leases=int(value["leases"]),
        http=HttpStats(
            requests=int(http["requests"]),
            received_bytes=int(http["received_bytes"]),
            sent_bytes=int(http["sent_bytes"]),
        ),
        raw=value,
    )
