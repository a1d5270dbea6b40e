"""Which of the tensors to be stored share memory, so that they share it in the region as well: an alias is one whose
bytes are another's, whole or inside it. What shares memory in any other way is copied apart, with a warning.

Addresses are compared; nothing is read or copied here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from tensord._arguments.quoting import quote
from tensord._tensor.dtype import element_bytes
from tensord._warnings import warn

from .copy import Array, Source

# A view with gaps is compared with the last few only, and for so long: each with all would take minutes for thousands.
NEIGHBOURS = 4
MAX_WORK = 10_000
PAIRS_SHOWN = 4


@dataclass(frozen=True, slots=True)
class _Span:
    """The memory of a source: each byte of ``[low, high)`` in its order, or what ``unlike`` that says of it."""

    source: Source
    low: int
    high: int
    unlike: str | None


def tie(sources: Sequence[Source]) -> list[Source]:
    """The sources, with those marked that are aliases. Warns of what shares memory and is copied apart."""
    if len(sources) < 2:
        return list(sources)
    same: dict[str, str] = {}
    spans: list[_Span] = []
    first_of: dict[tuple[object, ...], str] = {}
    for source in sources:
        array = source.array
        if array.nbytes == 0:
            continue
        span = _to_span(source)
        # The same elements in the same order, contiguous or not.
        first = first_of.setdefault((span.low, array.dtype.str, array.shape, array.strides), source.name)
        if first == source.name:
            spans.append(span)
        else:
            same[source.name] = first
    # What comes first in the call has the bytes, of several that are as long.
    spans.sort(key=lambda span: (span.low, -span.high))
    inside, torn = _find_inside(spans)
    if torn:
        _tell(torn)
    places = inside | {name: inside.get(first, (first, 0)) for name, first in same.items()}
    return [_mark(source, places.get(source.name)) for source in sources]


def _mark(source: Source, place: tuple[str, int] | None) -> Source:
    return source if place is None else replace(source, alias_of=place[0], alias_byte_offset=place[1])


def _find_inside(spans: Iterable[_Span]) -> tuple[dict[str, tuple[str, int]], list[str]]:
    """Of spans by their beginning, the longer of two first: what each one is inside of, by name and offset there; and
    words for each that shares memory otherwise.
    """
    inside: dict[str, tuple[str, int]] = {}
    torn: list[str] = []
    # Of all that began earlier, the one that ends last has what anyone has.
    widest: _Span | None = None
    gapped: deque[_Span] = deque(maxlen=NEIGHBOURS)
    for span in spans:
        if widest is not None and span.unlike is None and span.high <= widest.high:
            offset = span.low - widest.low
            if _is_aligned(span.source, offset, widest.source):
                inside[span.source.name] = widest.source.name, offset
            else:
                torn.append(f"{_both(span, widest)}, whose elements would not be aligned")
            continue
        other = next((each for each in (widest, *gapped) if each is not None and _shares(span, each)), None)
        if other is not None:
            torn.append(f"{_both(span, other)}, {span.unlike or other.unlike or 'which overlap in part'}")
        if span.unlike is not None:
            gapped.append(span)
        else:
            widest = span
    return inside, torn


def _to_span(source: Source) -> _Span:
    array = source.array
    steps = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    address = array.__array_interface__["data"][0]
    low = address + sum(step for step in steps if step < 0)
    high = address + sum(step for step in steps if step > 0) + array.itemsize
    unlike = None
    if not array.flags.c_contiguous:
        unlike = "of which one is not contiguous"
    elif not array.dtype.isnative:
        unlike = "of which one has another byte order"
    return _Span(source, low, high, unlike)


def _is_aligned(source: Source, offset: int, target: Source) -> bool:
    """As the server asks of an alias (docs/protocol.md)."""
    multiple = element_bytes(source.dtype)
    return offset % multiple == 0 and target.array.nbytes % multiple == 0


def _shares(span: _Span, other: _Span) -> bool:
    if span.low >= other.high:
        return False
    return (span.unlike is None and other.unlike is None) or _have_common(span.source.array, other.source.array)


def _have_common(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=cast(Any, MAX_WORK))
    except np.exceptions.TooHardError:
        # Their bounds overlap: rather a word too many than none.
        return True


def _both(span: _Span, other: _Span) -> str:
    return f"{quote(other.source.name)} and {quote(span.source.name)}"


def _tell(torn: Sequence[str]) -> None:
    more = f"; and {len(torn) - PAIRS_SHOWN} more pairs" if len(torn) > PAIRS_SHOWN else ""
    warn(
        f"Tensors that share memory are copied apart: {'; '.join(torn[:PAIRS_SHOWN])}{more}. In the region each has "
        "bytes of its own. What is contiguous and whole inside another tensor stays one memory; pass copies of what "
        "need not share any."
    )
