"""What the server says about a model: a plain, frozen record parsed from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .pool import Pool, to_pool
from .reading import read

if TYPE_CHECKING:
    from . import schemas


@dataclass(frozen=True, slots=True)
class Model:
    """A name with limits of its own, and its books, as the server described them at one moment.

    ``pools`` are what its ``regions``, so many, take: of host memory always, and of each device they are on. ``raw`` is
    the JSON object itself. ``workers`` is how many processes use its regions, 0 also from a server that does not say.
    """

    name: str
    pools: tuple[Pool, ...]
    regions: int
    revision: int
    created_at: str
    workers: int = 0
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def parse_model(value: Any) -> Model:
    """Reads a model's JSON. Raises ``ServerFault`` if it is none."""
    return read("model", _to_model, value)


def _to_model(value: schemas.Model) -> Model:
    return Model(
        name=str(value["name"]),
        pools=tuple(map(to_pool, value["pools"])),
        regions=int(value["regions"]),
        revision=int(value["revision"]),
        created_at=str(value["created_at"]),
        workers=int(value.get("workers", 0)),
        raw=value,
    )
