"""Page numbers as the broker's frames have them: ``[[first_page, count], …]``, in parts that fit into a frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from .layout import to_ranges

# Of one take: so many descriptors are one message.
TAKEN_PAGES = 250
# Of one frame, which has 65,536 bytes.
RANGES = 3000


def to_lists(numbers: Iterable[int]) -> Iterator[list[list[int]]]:
    """Numbers as ranges, so many a frame."""
    ranges = to_ranges(numbers)
    while part := [list(each) for each in islice(ranges, RANGES)]:
        yield part


def to_takes(numbers: Iterable[int]) -> Iterator[list[list[int]]]:
    """Numbers as ranges, of so many pages as one answer hands out."""
    rest = iter(sorted(numbers))
    while part := list(islice(rest, TAKEN_PAGES)):
        yield [list(each) for each in to_ranges(part)]
