"""Pools: a limit and its sums each, of host memory or of the memory of one device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import schemas


@dataclass(frozen=True, slots=True)
class Pool:
    """What a model's regions take of one pool: ``pool`` is ``"host"`` or a device's UUID.

    ``limit_bytes`` is ``None`` without a limit; ``used_bytes`` is what regions take, and ``draining_bytes`` what
    deleted ones do while somebody maps them.
    """

    pool: str
    limit_bytes: int | None
    used_bytes: int
    draining_bytes: int


@dataclass(frozen=True, slots=True)
class ServerPool(Pool):
    """As ``Pool``, of the whole server: ``available_bytes`` may still be had, by the limit and what is free;
    ``unaccounted_bytes`` others use there (``None`` of a device, of which nobody tells); ``reserve_bytes`` of the
    available ones lie ready for regions to come.
    """

    available_bytes: int
    unaccounted_bytes: int | None
    reserve_bytes: int


def to_pool(value: schemas.Pool) -> Pool:
    return Pool(
        pool=str(value["pool"]),
        limit_bytes=value["limit_bytes"],
        used_bytes=int(value["used_bytes"]),
        draining_bytes=int(value["draining_bytes"]),
    )


def to_server_pool(value: schemas.ServerPool) -> ServerPool:
    return ServerPool(
        pool=str(value["pool"]),
        limit_bytes=value["limit_bytes"],
        used_bytes=int(value["used_bytes"]),
        draining_bytes=int(value["draining_bytes"]),
        available_bytes=int(value["available_bytes"]),
        unaccounted_bytes=value["unaccounted_bytes"],
        # A server of before the reserve says nothing of it.
        reserve_bytes=int(value.get("reserve_bytes", 0)),
    )
