"""What is called when an object is gone, and not at the interpreter's end: as ``weakref.finalize`` without its
``atexit``, at a third of the cost, which shows beside a mapping's.
"""

from __future__ import annotations

import atexit
import itertools
import weakref
from collections.abc import Callable

_numbers = itertools.count()
_awaited: dict[int, weakref.ref[object]] = {}
_ending = False


def at_end(of: object, call: Callable[[], object]) -> None:
    """Has ``call`` made once ``of`` is gone, by whichever thread lets go of it or collects it. What holds what ``of``
    needs is ``call`` itself. At the interpreter's end objects may live on in other threads and in atexit hooks: from
    there on nothing is called.
    """
    number = next(_numbers)

    def end(_: object) -> None:
        del _awaited[number]
        if not _ending:
            call()

    _awaited[number] = weakref.ref(of, end)


@atexit.register
def _stop() -> None:
    global _ending  # noqa: PLW0603  # there is one interpreter
    _ending = True
