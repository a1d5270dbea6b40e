"""What the server says of a region's pages: a plain, frozen record parsed from its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .reading import read

if TYPE_CHECKING:
    from . import schemas


@dataclass(frozen=True, slots=True)
class Residency:
    """How many of a region's ``byte_size`` bytes were in memory before the kernel was advised, and are now; ``None``
    where it does not tell the server.
    """

    byte_size: int
    resident_bytes_before: int | None
    resident_bytes_after: int | None


def parse_residency(value: Any) -> Residency:
    """Reads the answer of an advice. Raises ``ServerFault`` if it is none."""
    return read("residency", _to_residency, value)


def parse_flushed(value: Any) -> bool:
    """Reads the answer of a flush. Raises ``ServerFault`` if it is none."""
    return read("answer of a flush", _to_durable, value)


def _to_residency(value: schemas.Residency) -> Residency:
    return Residency(int(value["byte_size"]), value["resident_bytes_before"], value["resident_bytes_after"])


def _to_durable(value: schemas.Flushed) -> bool:
    return bool(value["durable"])
