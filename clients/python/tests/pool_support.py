"""Elastic pools on the stand-in for a driver, in the processes of tests that the stand-in's environment leads to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from cuda_stand_in import calls, in_use, order

import tensord
from tensord.cuda import Pool, SharedPool

MIB = 1 << 20
PAGE = 2 * MIB
EDGE = 4096
FOLDER = Path(os.environ["STAND_IN_CUDA_DIR"])


def physical() -> int:
    """What the stand-in has in use of its cards' memory."""
    return PAGE * sum("memory" in each for each in in_use(FOLDER))


def _edges(byte_offset: int, byte_size: int) -> list[int]:
    """Both ends of each page. A driver maps and moves whole pages, and thousands of looks at all of them take long."""
    pages = range(byte_offset, byte_offset + byte_size, PAGE)
    return [at for page in pages for at in (page, page + PAGE - EDGE)]


def fill(pool: Pool, byte_offset: int, byte_size: int, value: int) -> None:
    for at in _edges(byte_offset, byte_size):
        pool.tensor(at, EDGE, "U8").copy_from_host(np.full(EDGE, value, np.uint8))


def mark_of(pool: Pool, byte_offset: int) -> int:
    """What is in a page, which has to be one value at both ends."""
    ends = [pool.tensor(at, EDGE, "U8").copy_to_host() for at in _edges(byte_offset, PAGE)]
    values = {int(value) for end in ends for value in (end.min(), end.max())}
    assert len(values) == 1, (byte_offset, values)
    return values.pop()


def content(pool: Pool) -> dict[int, int]:
    """What is in each mapped page, by its offset."""
    there = [offset for offset in range(0, pool.capacity, PAGE) if pool.is_mapped(offset, PAGE)]
    return {offset: mark_of(pool, offset) for offset in there}


def check_books(pool: Pool) -> None:
    """The books, added up in two ways, are what the stand-in has."""
    told = pool.statistics()
    assert told.physical_bytes == physical(), (told, in_use(FOLDER))
    kept = PAGE * (len(told.stuck) + len(told.unreleased))
    assert told.physical_bytes == told.mapped_bytes + kept == sum(run.byte_size for run in told.runs) + kept
    assert told.free_bytes == sum(run.byte_size for run in told.free_runs)


def failures(
    prepare: Callable[[], Pool], act: Callable[[Pool], Any], look: Callable[[Pool, int, bool], None]
) -> list[str]:
    """Does ``act`` on a pool as ``prepare`` makes it, as often as it makes calls: each fails once, and once with one
    of the next twelve after it. ``look`` sees the pool then, and whether something raised. The calls of one ``act``.
    """
    order(FOLDER, "none 1 2")
    pool = prepare()
    start = len(calls(FOLDER))
    act(pool)
    made = [name for name in calls(FOLDER)[start:] if name not in ("cuGetErrorName", "cuGetErrorString")]
    pool.close()
    for k in range(1, len(made) + 1):
        for second in (None, *range(1, 13)):
            pool = prepare()
            # The driver is asked for its words in between, two calls each time.
            also = [] if second is None else [f"* {k + 2 + second} 999"]
            order(FOLDER, f"* {k} 999", *also)
            try:
                act(pool)
                raised = False
            except tensord.DriverFailed:
                raised = True
            order(FOLDER, "none 1 2")
            look(pool, k, raised)
            # What was refused is tried again.
            pool.trim()
            told = pool.statistics()
            assert (told.unreleased, told.stuck) == ((), ()), (k, second, told)
            check_books(pool)
            pool.close()
            assert physical() == 0, (k, second)
    return made


def numbers(pool: Pool) -> dict[int, int]:
    """Which page lies where, by offset."""
    with pool._open() as space:
        return {index * PAGE: page.number for index, page in sorted(space.at.items())}


def cut(pool: SharedPool, *, at_events_end: bool) -> None:
    """Breaks both connections of a pool's. With ``at_events_end`` the stream of events ends, and what came meanwhile
    nobody tells; else it goes on where it was.
    """
    follower = pool._follower
    follower._attachment.interrupt()
    stream = follower._stream
    if stream is not None and at_events_end:
        stream.close()
    elif stream is not None and stream._answer is not None:
        stream._answer.interrupt()


def change_at_random(pool: SharedPool, seed: int, count: int) -> int:
    """Maps, marks each page by its number, and unmaps what this process has mapped. How often there was no room."""
    chance = Random(seed)
    with pool._open():
        mine: list[range] = pool.__dict__.setdefault("mine", [])
    refused = 0
    for _ in range(count):
        if mine and chance.random() < 0.5:
            pool._give_back(mine.pop(chance.randrange(len(mine))))
            continue
        try:
            run = pool.map(chance.randint(1, 3) * PAGE, persist=True)
        except tensord.OutOfRange:
            refused += 1
            if mine:
                pool._give_back(mine.pop(0))
            continue
        mine.append(range(run.first_page, run.first_page + run.byte_size // PAGE))
        for i, number in enumerate(mine[-1]):
            fill(pool, run.byte_offset + i * PAGE, PAGE, number % 251)
    return refused
