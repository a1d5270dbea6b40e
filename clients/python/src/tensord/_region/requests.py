"""The bodies of requests, from what the caller gave. Nothing is sent from here."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex

from tensord._api import Json
from tensord._errors import ValidationFailed
from tensord._tensor.dtype import parse_dtype

from .copy import LONE_TENSOR, Source, to_sources

Shape = SupportsIndex | Iterable[SupportsIndex]


def to_specs(
    data: Any, shape: Shape | None, dtype: Any, tensors: Mapping[str, tuple[Any, Shape]] | None
) -> tuple[list[Source], list[Json]]:
    """What to copy, and the wire form of the tensors, from one of three ways to say it. Raises ``ValidationFailed``."""
    ways = [data is not None, shape is not None or dtype is not None, tensors is not None]
    if sum(ways) != 1 or (shape is None) != (dtype is None):
        raise ValidationFailed("Cannot create a region: want either data, or shape and dtype, or tensors")
    if data is not None:
        sources = to_sources(data)
        return sources, [_to_spec(source.name, source.dtype, source.shape) for source in sources]
    wanted = tensors if tensors is not None else {LONE_TENSOR: (dtype, shape if shape is not None else ())}
    return [], [_to_spec(name, parse_dtype(kind), sizes) for name, (kind, sizes) in wanted.items()]


def _to_spec(name: str, dtype: str, shape: Shape) -> Json:
    return {"name": name, "dtype": dtype, "shape": list(to_sizes(shape))}


def to_sizes(shape: Shape) -> tuple[int, ...]:
    """A shape as numpy takes it: one size or several."""
    return tuple(operator.index(size) for size in (shape if isinstance(shape, Iterable) else (shape,)))


def to_changes(
    *,
    ttl: float | None,
    linger: float | None,
    persist: bool,
    evictable: bool | None,
    labels: Mapping[str, str | None] | None,
) -> Json:
    """The owner and what else create and patch both take, ``None`` where nothing was given."""
    return {
        "ttl_ms": to_ms(ttl, "keep a region"),
        "linger_ms": to_ms(linger, "let a region linger"),
        "persist": True if persist else None,
        "evictable": evictable,
        "labels": None if labels is None else dict(labels),
    }


def without_none(body: Mapping[str, Any]) -> Json:
    """Only what was given: the server's defaults stay the server's."""
    return {key: value for key, value in body.items() if value is not None}


def to_ms(seconds: float | None, what: str) -> int | None:
    """Whole milliseconds, rounded up. Raises ``ValidationFailed``."""
    if seconds is None:
        return None
    if not math.isfinite(seconds):
        raise ValidationFailed(f"Cannot {what} for {seconds} seconds: want a number", hint="or persist=True")
    return math.ceil(seconds * 1000)
