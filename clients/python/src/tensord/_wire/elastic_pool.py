"""Elastic pools as records: what is mapped of one, what is free, and who uses it. The server's are parsed here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .reading import read


@dataclass(frozen=True, slots=True)
class Run:
    """Pages that were mapped by one request and lie in a row: ``byte_size`` bytes from ``byte_offset`` on, the first of
    which is page ``first_page``. Page numbers rise by one along a run, and none is used twice in its pool.

    ``session`` is whose it is, if anybody's, ``evictable`` whether the server may take it for others; ``state`` is
    ``"mapped"``, or ``"leaving"`` once it was announced that it goes, while the workers of the slots ``taken_by``
    have it; others may come. The times are the server's.
    """

    byte_offset: int
    byte_size: int
    first_page: int
    state: str = "mapped"
    evictable: bool = False
    session: str | None = None
    mapped_at: str | None = None
    last_used_at: str | None = None
    taken_by: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.byte_offset + self.byte_size


@dataclass(frozen=True, slots=True)
class FreeRun:
    """A hole: nothing is mapped in these bytes."""

    byte_offset: int
    byte_size: int


@dataclass(frozen=True, slots=True)
class Move:
    """Pages that ``compact`` has moved, with what is in them: tensors over the old place are to be made anew."""

    from_byte_offset: int
    to_byte_offset: int
    byte_size: int
    first_page: int


@dataclass(frozen=True, slots=True)
class KeptPage:
    """A page that the driver refuses to take back (*unreleased*), or to put back where it was (*stuck*): it counts as
    physical use, and is tried again. ``since`` is when that began, by this process's clock or the server's.
    """

    page: int
    byte_size: int
    since: str
    reason: str


@dataclass(frozen=True, slots=True)
class PoolWorker:
    """A process that follows a pool. ``taken_bytes`` is what it may have mapped, ``acknowledged`` the event that it has
    followed to, and ``overdue_bytes`` what it should have let go of a while ago.
    """

    slot: int
    session: str | None
    client: str | None
    agrees_to_moves: bool
    taken_bytes: int
    taken_pages: int
    acknowledged: str
    is_connected: bool
    overdue_bytes: int


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """An elastic pool at one moment. Sizes are bytes.

    ``physical_bytes`` is the device's memory that it has: what is mapped, what leaves, and what is unreleased or stuck.
    ``free_bytes`` are addresses without pages; ``fragmentation`` is the part of them that is outside of the largest
    hole, from 0 to 1. Of ``runs`` and ``free_runs`` the server lists the first thousand. A pool of this process's
    own has no ``id``, ``model``, ``leaving`` or ``workers``.
    """

    virtual_capacity: int
    page_size: int
    minimum_bytes: int
    maximum_bytes: int | None
    physical_bytes: int
    mapped_bytes: int
    run_count: int
    runs: tuple[Run, ...]
    free_bytes: int
    free_runs: tuple[FreeRun, ...]
    largest_free_bytes: int
    fragmentation: float
    unreleased: tuple[KeptPage, ...]
    stuck: tuple[KeptPage, ...]
    device_uuid: str
    id: str | None = None
    model: str | None = None
    revision: int | None = None
    created_at: str | None = None
    leaving: tuple[Run, ...] = ()
    workers: tuple[PoolWorker, ...] = ()
    sequence: str | None = None
    survives_restart: bool | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class MappedRun:
    """The answer of a map: the run, and the event that it was told by."""

    run: Run
    sequence: str


@dataclass(frozen=True, slots=True)
class Trimmed:
    """The answer of a trim."""

    freed_bytes: int
    sequence: str


@dataclass(frozen=True, slots=True)
class Compacted:
    """The answer of a compact."""

    moves: tuple[Move, ...]
    sequence: str


def parse_pool_statistics(value: Any) -> PoolStatistics:
    """Raises ``ServerFault``."""
    return read("elastic pool", _to_statistics, value)


def parse_mapped_run(value: Any) -> MappedRun:
    """Raises ``ServerFault``."""
    return read("mapped run", _to_mapped_run, value)


def parse_trimmed(value: Any) -> Trimmed:
    """Raises ``ServerFault``."""
    return read("trim", _to_trimmed, value)


def parse_compacted(value: Any) -> Compacted:
    """Raises ``ServerFault``."""
    return read("compact", _to_compacted, value)


def _to_mapped_run(value: Any) -> MappedRun:
    return MappedRun(_to_run(value["run"]), str(value["sequence"]))


def _to_trimmed(value: Any) -> Trimmed:
    return Trimmed(int(value["freed_bytes"]), str(value["sequence"]))


def _to_compacted(value: Any) -> Compacted:
    return Compacted(tuple(map(_to_move, value["moves"])), str(value["sequence"]))


def _to_run(value: Any) -> Run:
    taken_by = value.get("taken_by") or []
    return Run(
        byte_offset=int(value["byte_offset"]),
        byte_size=int(value["byte_size"]),
        first_page=int(value["first_page"]),
        state=str(value["state"]),
        evictable=bool(value["evictable"]),
        session=value["session"],
        mapped_at=value.get("mapped_at"),
        last_used_at=value.get("last_used_at"),
        taken_by=tuple(map(int, taken_by)),
    )


def _to_move(value: Any) -> Move:
    return Move(
        int(value["from_byte_offset"]),
        int(value["to_byte_offset"]),
        int(value["byte_size"]),
        int(value["first_page"]),
    )


def _to_free(value: Any) -> FreeRun:
    return FreeRun(int(value["byte_offset"]), int(value["byte_size"]))


def _to_kept(value: Any) -> KeptPage:
    return KeptPage(int(value["page"]), int(value["byte_size"]), str(value["since"]), str(value["reason"]))


def _to_worker(value: Any) -> PoolWorker:
    return PoolWorker(
        slot=int(value["slot"]),
        session=value["session"],
        client=value["client"],
        agrees_to_moves=bool(value["agrees_to_moves"]),
        taken_bytes=int(value["taken_bytes"]),
        taken_pages=int(value["taken_pages"]),
        acknowledged=str(value["acknowledged"]),
        is_connected=bool(value["is_connected"]),
        overdue_bytes=sum(int(each["byte_size"]) for each in value["overdue"]),
    )


def _to_statistics(value: Any) -> PoolStatistics:
    return PoolStatistics(
        virtual_capacity=int(value["virtual_capacity"]),
        page_size=int(value["page_size"]),
        minimum_bytes=int(value["minimum_bytes"]),
        maximum_bytes=value["maximum_bytes"],
        physical_bytes=int(value["physical_bytes"]),
        mapped_bytes=int(value["mapped_bytes"]),
        run_count=int(value["run_count"]),
        runs=tuple(map(_to_run, value.get("runs") or [])),
        free_bytes=int(value["free_bytes"]),
        free_runs=tuple(map(_to_free, value.get("free_runs") or [])),
        largest_free_bytes=int(value["largest_free_bytes"]),
        fragmentation=float(value["fragmentation"]),
        unreleased=tuple(map(_to_kept, value.get("unreleased") or [])),
        stuck=tuple(map(_to_kept, value.get("stuck") or [])),
        device_uuid=str(value["device_uuid"]),
        id=str(value["id"]),
        model=str(value["model"]),
        revision=int(value["revision"]),
        created_at=str(value["created_at"]),
        leaving=tuple(map(_to_run, value.get("leaving") or [])),
        workers=tuple(map(_to_worker, value.get("workers") or [])),
        sequence=str(value["sequence"]),
        survives_restart=value["survives_restart"],
        raw=dict(value),
    )
