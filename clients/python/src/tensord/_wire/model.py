"""What the server says about a model: a plain, frozen record parsed from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .reading import read

if TYPE_CHECKING:
    from . import schemas


@dataclass(frozen=True, slots=True)
class Model:
    """A pool with a limit of its own, and its books, as the server described them at one moment.

    ``memory_limit_bytes`` is ``None`` without a limit; ``used_bytes`` is what its ``regions``, so many, take, and
    ``draining_bytes`` what deleted ones do while somebody maps them. ``raw`` is the JSON object itself.
    """

    name: str
    memory_limit_bytes: int | None
    used_bytes: int
    draining_bytes: int
    regions: int
    revision: int
    created_at: str
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def parse_model(value: Any) -> Model:
    """Reads a model's JSON. Raises ``ServerFault`` if it is none."""
    return read("model", _to_model, value)


def _to_model(value: schemas.Model) -> Model:
    return Model(
        name=str(value["name"]),
        memory_limit_bytes=value["memory_limit_bytes"],
        used_bytes=int(value["used_bytes"]),
        draining_bytes=int(value["draining_bytes"]),
        regions=int(value["regions"]),
        revision=int(value["revision"]),
        created_at=str(value["created_at"]),
        raw=value,
    )
