"""What the events of an elastic pool say of which page lies where. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tensord._errors import ServerFault
from tensord._events.event import Event

Map = dict[int, int]
"""Page numbers by index."""

MAPPED = "tensord.vmm.mapped"
UNMAPPED = "tensord.vmm.unmapped"
MOVED = "tensord.vmm.moved"
DELETED = "deleted"


def read_runs(runs: Iterable[Iterable[Any]], page_size: int) -> Map:
    """``[[byte_offset, byte_size, first_page], …]`` as a map. Raises ``ServerFault``."""
    found: Map = {}
    try:
        for byte_offset, byte_size, first_page in runs:
            _add(found, int(byte_offset), int(byte_size), int(first_page), page_size)
    except (TypeError, ValueError) as error:
        raise ServerFault(f"Cannot read an elastic pool's map: it is no list of runs ({error!r})") from error
    return found


def apply(event: Event, pages: Map, page_size: int) -> None:
    """Changes ``pages`` as an event of its pool says. Raises ``ServerFault`` if it says nothing of that."""
    data = event.data
    try:
        if event.type == MAPPED:
            for run in data["runs"]:
                _add(pages, run["byte_offset"], run["byte_size"], run["first_page"], page_size)
        elif event.type == UNMAPPED:
            for run in data["runs"]:
                _remove(pages, run["byte_offset"], run["byte_size"], run["first_page"], page_size)
        elif event.type == MOVED:
            for move in data["moves"]:
                _remove(pages, move["from_byte_offset"], move["byte_size"], move["first_page"], page_size)
            for move in data["moves"]:
                _add(pages, move["to_byte_offset"], move["byte_size"], move["first_page"], page_size)
    except (LookupError, TypeError, ValueError) as error:
        raise ServerFault(f"Cannot follow an elastic pool: event {event.id} is no {event.type} ({error!r})") from error


def is_of(event: Event, pool: str) -> bool:
    """Whether an event is of that pool."""
    return event.data.get("pool") == pool


def is_deletion(event: Event) -> bool:
    """Whether it tells that its pool is there no more."""
    return event.type == UNMAPPED and event.data.get("reason") == DELETED


def _add(pages: Map, byte_offset: int, byte_size: int, first_page: int, page_size: int) -> None:
    start = byte_offset // page_size
    pages.update((start + i, first_page + i) for i in range(byte_size // page_size))


def _remove(pages: Map, byte_offset: int, byte_size: int, first_page: int, page_size: int) -> None:
    start = byte_offset // page_size
    for i in range(byte_size // page_size):
        if pages.get(start + i) == first_page + i:
            del pages[start + i]


def missing_of(pages: Map, have: Mapping[int, int]) -> Map:
    """Those of ``pages`` that are not there in ``have``."""
    return {index: number for index, number in pages.items() if have.get(index) != number}
