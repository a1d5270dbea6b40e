"""Where pages lie, as plain numbers: ranges in whole pages, holes, and the way to close them. Nothing is called here.

An *index* is a place of one page in a pool: ``byte_offset // page_size``. Ranges are ``(first index, count)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tensord._errors import InvalidPageSize, OutOfRange, ValidationFailed

MAX_PAGE_SIZE = 1 << 30
MAX_PAGES = 65_536

Range = tuple[int, int]


def check_sizes(capacity: int, page_size: int, granularity: int) -> None:
    """Raises ``InvalidPageSize`` or ``ValidationFailed`` if a pool on a device of that granularity cannot be so."""
    is_power = page_size > 0 and page_size & (page_size - 1) == 0
    if not is_power or not granularity <= page_size <= MAX_PAGE_SIZE:
        raise InvalidPageSize(
            f"Cannot make an elastic pool with pages of {page_size} bytes: want a power of two from {granularity}, "
            f"which is the device's granularity, to {MAX_PAGE_SIZE}",
            fields={"page_size": page_size, "granularity": granularity, "maximum_page_size": MAX_PAGE_SIZE},
        )
    if capacity <= 0 or capacity % page_size != 0 or capacity // page_size > MAX_PAGES:
        raise ValidationFailed(
            f"Cannot make an elastic pool of {capacity} bytes: want a positive multiple of its page size, {page_size}, "
            f"and at most {MAX_PAGES} pages",
            fields={"virtual_capacity": capacity, "page_size": page_size},
        )


def to_range(byte_offset: int, byte_size: int, page_size: int, page_count: int, action: str) -> Range:
    """The pages of a range of bytes, which has to be whole pages. Raises ``OutOfRange``."""
    problem = None
    if byte_size == 0 or byte_size % page_size != 0 or byte_offset % page_size != 0:
        problem = f"want whole pages of {page_size} bytes, one or more"
    elif byte_offset + byte_size > page_count * page_size:
        problem = f"the pool has {page_count * page_size}"
    if problem is not None:
        raise OutOfRange(
            f"Cannot {action} {byte_size} bytes at offset {byte_offset}: {problem}",
            fields={"byte_offset": byte_offset, "byte_size": byte_size, "page_size": page_size},
        )
    return byte_offset // page_size, byte_size // page_size


def find_holes(taken: Iterable[int], page_count: int) -> Iterator[Range]:
    """The ranges of indices that are not in ``taken``, in order."""
    start = 0
    for index in sorted(taken):
        if index > start:
            yield start, index - start
        start = index + 1
    if start < page_count:
        yield start, page_count - start


def find_first_hole(taken: Iterable[int], page_count: int, count: int, page_size: int) -> int:
    """Where ``count`` pages fit first. Raises ``OutOfRange``, with the largest hole there is."""
    largest = 0
    for start, length in find_holes(taken, page_count):
        if length >= count:
            return start
        largest = max(largest, length)
    raise OutOfRange(
        f"Cannot map {count * page_size} bytes: the largest hole has {largest * page_size}",
        hint="unmap something, or compact the pool if holes are scattered",
        fields={"requested_bytes": count * page_size, "largest_free_bytes": largest * page_size},
    )


def to_ranges(indices: Iterable[int]) -> Iterator[Range]:
    """Indices as ranges, in order."""
    start = end = -1
    for index in sorted(indices):
        if index != end:
            if end > start:
                yield start, end - start
            start = index
        end = index + 1
    if end > start >= 0:
        yield start, end - start


def plan_compaction(runs: Sequence[Range], blocked: Iterable[int]) -> list[tuple[int, int, int]]:
    """Moves ``(from, to, count)`` that close the holes below ``runs``, which keep their order and stay whole; what is
    ``blocked`` stays where it is. In this order each goes to where nothing is any more.
    """
    moves, fixed = [], sorted(set(blocked))
    at = 0
    for start, count in sorted(runs):
        at = _behind(fixed, at, count)
        if at < start:
            moves.append((start, at, count))
        else:
            at = start
        at += count
    return moves


def _behind(fixed: Sequence[int], at: int, count: int) -> int:
    """The first place from ``at`` on where ``count`` pages meet nothing that is fixed."""
    for index in fixed:
        if index >= at + count:
            break
        at = max(at, index + 1)
    return at
