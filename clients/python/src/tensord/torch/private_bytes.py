"""How much of what a module holds is this process's alone: by the kernel's page tables, pagemap(5) of proc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tensord._arguments.checked import checked
from tensord._arguments.quoting import quote
from tensord._errors import FeatureUnavailable, ValidationFailed
from tensord._mapping.libc import PAGE_SIZE
from tensord._mapping.local_memory import COPY_NAME

from .reach import find_packed, find_tensors, storage_of

ENTRY_BYTES = 8
# Read at a time: the entries of 4 GiB.
WINDOW_PAGES = 1 << 20
# Documentation/admin-guide/mm/pagemap.rst.
PRESENT, SWAPPED, OF_FILE, ALONE = (np.uint64(1 << bit) for bit in (63, 62, 61, 56))

Range = tuple[int, int]


@checked
def private_bytes(module: Any) -> int:
    """The bytes of host memory in which ``module`` keeps its tensors and which are this process's alone, as of now: 0
    for all that is in a region and was not written to, whoever else maps it.

    Counted are tensors wherever they are reached from it, in the pages that they have. A page that was written to in
    place is private from then on, and so is all of a region in ``heap`` storage. What a ``fork`` still shares is not;
    what torch has packed, as quantised layers do, is, by the bytes of its elements; memory of a device is not.

    Raises ``FeatureUnavailable`` where the kernel does not say, ``ValidationFailed`` where there is no tensor.
    """
    ranges: list[Range] = []
    elsewhere = sum(byte_size for _, byte_size in find_packed(module))
    found = elsewhere > 0
    for _, tensor in find_tensors(module):
        found = True
        if tensor.device.type != "cpu":
            continue
        if (storage := storage_of(tensor)) is not None:
            ranges.append((storage[0], storage[0] + storage[1]))
        else:
            # What other layouts keep has no address to look at.
            elsewhere += tensor.nbytes
    if not found:
        raise ValidationFailed(
            f"Cannot tell what is private of {quote(module)}: no tensor is reached from it",
            hint="pass the module",
        )
    return elsewhere + _count(_merge(ranges))


def _merge(ranges: Iterable[Range]) -> list[Range]:
    merged: list[Range] = []
    for begin, end in sorted(ranges):
        if merged and begin < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged


def _count(ranges: Iterable[Range]) -> int:
    try:
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FeatureUnavailable(
            f"Cannot tell what is private: {error}", hint="the kernel says it on Linux, in /proc/self/pagemap"
        ) from error
    try:
        copies = _copies()
        return sum(_count_range(fd, each, copies) for each in ranges)
    finally:
        os.close(fd)


def _copies() -> list[Range]:
    """Where this process maps copies of its own of regions in heap storage: files to the kernel, and nobody else's."""
    with open("/proc/self/maps") as maps:
        lines = [line.split(" ", 1)[0] for line in maps if f"/memfd:{COPY_NAME}" in line]
    return [(int(begin, 16), int(end, 16)) for begin, end in (line.split("-") for line in lines)]


def _count_range(fd: int, each: Range, copies: Iterable[Range]) -> int:
    """Bytes of a range, inside a copy or outside of all of them, that are private."""
    begin, end = each
    if any(low <= begin and end <= high for low, high in copies):
        return end - begin
    return sum(_count_window(fd, window) for window in _split(each))


def _split(each: Range) -> Iterator[Range]:
    begin, end = each
    while begin < end:
        next_window = min(end, (begin // PAGE_SIZE + WINDOW_PAGES) * PAGE_SIZE)
        yield begin, next_window
        begin = next_window


def _count_window(fd: int, window: Range) -> int:
    begin, end = window
    first, last = begin // PAGE_SIZE, -(-end // PAGE_SIZE)
    entries = np.frombuffer(os.pread(fd, (last - first) * ENTRY_BYTES, first * ENTRY_BYTES), np.uint64)
    own = (entries & PRESENT != 0) & (entries & ALONE != 0) | (entries & SWAPPED != 0)
    private = own & (entries & OF_FILE == 0)
    count = int(np.count_nonzero(private)) * PAGE_SIZE
    # The first and the last page are others' as well.
    if len(private) == 0:
        return 0
    count -= (begin - first * PAGE_SIZE) * int(private[0])
    return count - (last * PAGE_SIZE - end) * int(private[-1])
