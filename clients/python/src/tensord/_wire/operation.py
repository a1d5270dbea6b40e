"""What the server says of an operation: a plain, frozen record parsed from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .reading import read

if TYPE_CHECKING:
    from . import schemas


@dataclass(frozen=True, slots=True)
class OperationDescriptor:
    """An operation as it was at one moment. ``region`` is the id of what it made, ``problem`` what it failed with, as
    JSON. Of a load, ``mode`` is ``map`` or ``copy``, and ``reason`` why, in words that end a sentence. ``raw`` is the
    JSON object itself.
    """

    id: str
    kind: str
    state: str
    model: str
    source: str
    done_bytes: int
    total_bytes: int
    region: str | None
    problem: Mapping[str, Any] | None
    started_at: str
    ended_at: str | None
    mode: str | None = None
    reason: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def parse_operation(value: Any) -> OperationDescriptor:
    """Reads an operation's JSON. Raises ``ServerFault`` if it is none."""
    return read("operation", _to_operation, value)


def _to_operation(value: schemas.Operation) -> OperationDescriptor:
    problem = value["problem"]
    return OperationDescriptor(
        id=str(value["id"]),
        kind=str(value["kind"]),
        state=str(value["state"]),
        model=str(value["model"]),
        source=str(value["source"]),
        done_bytes=int(value["done_bytes"]),
        total_bytes=int(value["total_bytes"]),
        region=value["region"],
        problem=None if problem is None else {**problem},
        started_at=str(value["started_at"]),
        ended_at=value["ended_at"],
        # A server from before there were two says neither.
        mode=value.get("mode"),
        reason=value.get("reason"),
        raw=value,
    )
