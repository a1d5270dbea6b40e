"""What this process tells the kernel of pages that it maps, and how many of them are in memory."""

from __future__ import annotations

import ctypes
import os
from typing import Literal

from tensord._errors import MappingFailed, ValidationFailed

from . import libc
from .attach import Place
from .mapping import View

Advice = Literal["normal", "sequential", "random", "willneed", "dontneed"]


def advise(place: Place, view: View, advice: Advice) -> None:
    """Advises the kernel on all that is mapped. Raises ``ValidationFailed`` where private pages would be lost,
    ``MappingFailed``, ``Closed``.
    """
    anchor, _ = view.buffer()
    address, length = ctypes.addressof(anchor), len(anchor)
    if advice == "dontneed":
        written = _private_bytes(address, length)
        if written > 0:
            raise ValidationFailed(
                f"Cannot let go of the pages of region {place.region}: {written} bytes were written to privately here, "
                "and would be lost",
                hint="copy what is to stay, close the region, and attach it again",
            )
    try:
        libc.advise(address, length, advice)
    except OSError as error:
        raise MappingFailed(f"Cannot advise the kernel on region {place.region}: {error}") from error


def resident_bytes(place: Place, view: View) -> int | None:
    """How many of the mapped bytes are in memory, by pages. Raises ``MappingFailed``, ``Closed``."""
    if place.path is not None and not _is_told(place.path):
        return None
    anchor, _ = view.buffer()
    try:
        pages = libc.resident_pages(ctypes.addressof(anchor), len(anchor))
    except OSError as error:
        raise MappingFailed(f"Cannot count the resident pages of region {place.region}: {error}") from error
    return min(pages * libc.PAGE_SIZE, len(anchor))


def _is_told(path: str) -> bool:
    """Whether the kernel tells this process: who owns the file, or may write to it."""
    try:
        return os.geteuid() in (0, os.stat(path).st_uid) or os.access(path, os.W_OK, effective_ids=True)
    except OSError:
        return False


def _private_bytes(address: int, length: int) -> int:
    """What of the range are pages of this process alone, as proc(5) tells in smaps."""
    found = 0
    inside = False
    with open("/proc/self/smaps", encoding="ascii", errors="replace") as smaps:
        for line in smaps:
            first, _, rest = line.partition(" ")
            if "-" in first and not first.endswith(":"):
                start, _, end = first.partition("-")
                inside = int(start, 16) < address + length and int(end, 16) > address
            elif inside and first == "Anonymous:":
                found += int(rest.split()[0]) * 1024
    return found
