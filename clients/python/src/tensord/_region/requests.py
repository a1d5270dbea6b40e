"""The bodies of requests, from what the caller gave: only that, so that the server's defaults stay the server's.

Nothing is sent from here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from tensord._arguments.kinds import SHAPE_KIND, Unfit
from tensord._arguments.quoting import quote
from tensord._cuda.devices import choose_device
from tensord._errors import ValidationFailed
from tensord._tensor.dtype import parse_dtype
from tensord._tensor.reference import DEVICE_STORAGE

from .copy import LONE_TENSOR, Source, to_sources
from .ties import tie

if TYPE_CHECKING:
    from tensord._wire import schemas

IfExists = Literal["fail", "attach", "replace"]
OnFull = Literal["fail", "evict", "wait"]
StorageKind = Literal["shm", "memfd", "heap"]
HugePages = Literal["64KiB", "2MiB", "32MiB", "512MiB", "1GiB", "16GiB"]


def to_specs(
    data: Any, shape: Any, dtype: Any, tensors: Mapping[Any, Any] | None
) -> tuple[list[Source], list[schemas.TensorRequest]]:
    """What to copy, and the wire form of the tensors, from one of three ways to say it. Raises ``ValidationFailed``."""
    ways = [data is not None, shape is not None or dtype is not None, tensors is not None]
    if sum(ways) != 1 or (shape is None) != (dtype is None):
        raise ValidationFailed("Cannot create a region: want either data, or shape and dtype, or tensors")
    if data is not None:
        sources = tie(to_sources(data))
        return sources, [_to_tied(source) for source in sources]
    wanted = tensors if tensors is not None else {LONE_TENSOR: (dtype, shape)}
    return [], [_read_spec(name, spec) for name, spec in wanted.items()]


def to_built(built: Any) -> tuple[list[Source], list[schemas.TensorRequest]]:
    """As ``to_specs``, of what the caller's ``build`` has returned."""
    if built is None:
        raise ValidationFailed(
            "Cannot create a region: build() returned None, want an array, or a mapping of names to arrays",
            hint="is there a return in it?",
        )
    return to_specs(built, None, None, None)


def _read_spec(name: Any, spec: Any) -> schemas.TensorRequest:
    refused = f"Cannot have tensor {name!r}"
    if not isinstance(name, str):
        raise ValidationFailed(f"Cannot name a tensor {quote(name)}: want text")
    if not isinstance(spec, (tuple, list)) or len(spec) != 2:
        raise ValidationFailed(f"{refused}: it is {quote(spec)}, want (dtype, shape)")
    try:
        return _to_spec(name, parse_dtype(spec[0]), SHAPE_KIND.take(spec[1]))
    except Unfit:
        raise ValidationFailed(f"{refused}: its shape is {quote(spec[1])}, want {SHAPE_KIND.want}") from None
    except ValidationFailed as error:
        raise ValidationFailed(f"{refused}: {error.detail.removeprefix('Cannot store ')}", hint=error.hint) from None


def _to_tied(source: Source) -> schemas.TensorRequest:
    spec = _to_spec(source.name, source.dtype, source.shape)
    if source.alias_of is not None:
        spec["alias_of"] = source.alias_of
        spec["alias_byte_offset"] = source.alias_byte_offset
    return spec


def _to_spec(name: str, dtype: str, shape: tuple[int, ...]) -> schemas.TensorRequest:
    # The table of element types is the document's, which a test sees to.
    return {"name": name, "dtype": cast("schemas.Dtype", dtype), "shape": list(shape)}


def to_creation(
    *,
    model: str,
    name: str | None,
    version: str | None,
    ttl: float | None,
    linger: float | None,
    handoff: float | None,
    persist: bool,
    evictable: bool,
    on_full: OnFull,
    deadline: float | None,
    labels: Mapping[str, str] | None,
    storage: StorageKind | None = None,
    private: bool = False,
    huge_pages: HugePages | None = None,
    device: str | None = None,
) -> schemas.CreateRegion:
    """A region to be created, without its tensors. Raises ``ValidationFailed``, and as ``choose_device``."""
    body: schemas.CreateRegion = {"model": model}
    if name is not None:
        body["name"] = name
    if version is not None:
        body["version"] = version
    if storage is not None:
        body["storage"] = storage
    if device is not None:
        if storage is not None or private or huge_pages is not None:
            raise ValidationFailed(
                f"Cannot create a region on {device}: storage, private and huge_pages are of host memory",
                hint="leave them out",
            )
        # By words that a server without devices does not know, and says so.
        on_device: Any = {"storage": DEVICE_STORAGE, "device_uuid": choose_device(device)}
        body.update(on_device)
    if private:
        body["private"] = True
    if huge_pages is not None:
        body["huge_pages"] = huge_pages
    if on_full != "fail":
        body["on_full"] = on_full
    deadline_ms = to_ms(deadline)
    if deadline_ms is not None:
        body["deadline_ms"] = deadline_ms
    if labels is not None:
        body["labels"] = dict(labels)
    _set_end(body, ttl, linger, handoff, persist=persist, evictable=evictable or None)
    return body


def to_copy(body: schemas.CreateRegion, if_exists: IfExists) -> schemas.CopyRegion:
    """A copy that is to be what ``body`` says."""
    # A creation without tensors says what a copy does.
    copy = cast("schemas.CopyRegion", body)
    copy["if_exists"] = if_exists
    return copy


def to_change(
    *,
    ttl: float | None,
    linger: float | None,
    handoff: float | None,
    persist: bool,
    evictable: bool | None,
    labels: Mapping[str, str | None] | None,
) -> schemas.ChangeRegion:
    """A change of a region. Raises ``ValidationFailed``."""
    body: schemas.ChangeRegion = {}
    if labels is not None:
        body["labels"] = dict(labels)
    _set_end(body, ttl, linger, handoff, persist=persist, evictable=evictable)
    return body


def _set_end(
    body: schemas.CreateRegion | schemas.ChangeRegion,
    ttl: float | None,
    linger: float | None,
    handoff: float | None,
    *,
    persist: bool,
    evictable: bool | None,
) -> None:
    """The owner, and whether it may be evicted, where that is given."""
    if handoff is not None and linger is None:
        raise ValidationFailed(
            "Cannot let a hand-off wait: handoff= is there without linger=, want both", hint="a hand-off has linger=0"
        )
    ttl_ms, linger_ms = to_ms(ttl), to_ms(linger)
    if ttl_ms is not None:
        body["ttl_ms"] = ttl_ms
    if linger_ms is not None:
        body["linger_ms"] = linger_ms
    handoff_ms = to_ms(handoff)
    if handoff_ms is not None:
        body["handoff_ms"] = handoff_ms
    if persist:
        body["persist"] = True
    if evictable is not None:
        body["evictable"] = evictable


def to_session(*, quota_bytes: int | None, ttl: float | None) -> schemas.OpenSession:
    """A session to be opened, without its client."""
    body: schemas.OpenSession = {}
    if quota_bytes is not None:
        body["quota_bytes"] = quota_bytes
    ttl_ms = to_ms(ttl)
    if ttl_ms is not None:
        body["ttl_ms"] = ttl_ms
    return body


def to_eviction(byte_size: int, model: str | None, pool: str | None, *, dry_run: bool) -> schemas.EvictRequest:
    """Bytes to be made free."""
    body: schemas.EvictRequest = {"bytes": byte_size}
    if model is not None:
        body["model"] = model
    if pool is not None:
        body["pool"] = pool
    if dry_run:
        body["dry_run"] = True
    return body


def to_pool_limits(limits: Mapping[str, int | None]) -> list[schemas.PoolLimitRequest]:
    """What a model's regions may take, by pool."""
    return [{"pool": pool, "limit_bytes": limit} for pool, limit in limits.items()]


def to_ms(seconds: float | None) -> int | None:
    """Whole milliseconds, rounded up."""
    return None if seconds is None else math.ceil(seconds * 1000)
