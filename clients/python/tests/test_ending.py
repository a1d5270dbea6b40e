"""What is called when an object is gone: all of it, the newest first, whatever one of them raises."""

from __future__ import annotations

import gc

import pytest

from tensord._mapping import ending
from tensord._mapping.ending import at_end, await_end


class Thing:
    """Something that can be waited for."""


def test_the_newest_is_called_first_and_each_once() -> None:
    thing, seen = Thing(), []
    watched = await_end(thing)
    for number in range(3):
        watched.add(lambda number=number: seen.append(number))  # type: ignore[misc]
    del watched
    gc.collect()
    assert seen == []
    del thing
    assert seen == [2, 1, 0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_call_that_fails_keeps_no_other_from_being_made() -> None:
    thing, seen = Thing(), []
    watched = await_end(thing)
    watched.add(lambda: seen.append("unmapped"))
    watched.add(lambda: 1 // 0)
    watched.add(lambda: seen.append("told"))
    del thing
    assert seen == ["told", "unmapped"]


def test_what_nobody_waits_for_is_not_kept() -> None:
    thing = Thing()
    before = len(ending._awaited)
    for _ in range(10):
        await_end(thing)
    assert len(ending._awaited) == before
    at_end(thing, lambda: None)
    assert len(ending._awaited) == before + 1
    del thing
    assert len(ending._awaited) == before
