"""What is called when an object is gone, and not at the interpreter's end: as ``weakref.finalize`` without its
``atexit``, at a third of the cost, which shows beside a mapping's.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable
from typing import Any

_awaited: dict[int, Ending] = {}
_ending = False


class Ending(weakref.ref[Any]):
    """An object's end, to be made by ``await_end``: a weak reference, with what is called once the object is gone."""

    __slots__ = ("_calls",)

    _calls: list[Callable[[], object]]

    def add(self, call: Callable[[], object]) -> None:
        """Has ``call`` made too, before those that are there. For who holds the object."""
        if not self._calls:
            # Held there: a weak reference that is gone itself calls nobody.
            _awaited[id(self)] = self
        self._calls.append(call)


def await_end(of: object) -> Ending:
    """What is to be called once ``of`` is gone, nothing yet; by whichever thread lets go of it or collects it. What
    holds what ``of`` needs is a call itself. At the interpreter's end objects may live on in other threads and in
    atexit hooks: from there on nothing is called.
    """
    ending = Ending(of, _end)
    ending._calls = []
    return ending


def at_end(of: object, call: Callable[[], object]) -> None:
    """Has ``call`` made once ``of`` is gone, as ``await_end`` says."""
    await_end(of).add(call)


def _end(ending: Ending) -> None:
    if ending._calls:
        del _awaited[id(ending)]
        if not _ending:
            _call(ending._calls)


def _call(calls: list[Callable[[], object]]) -> None:
    try:
        while calls:
            calls.pop()()
    finally:
        # Whichever fails, which the interpreter tells of, the others are called: one of them unmaps.
        if calls:
            _call(calls)


@atexit.register
def _stop() -> None:
    global _ending  # noqa: PLW0603  # there is one interpreter
    _ending = True
