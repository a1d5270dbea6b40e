"""Arrays that keep a slot: as long as one lives, or anything that numpy or torch made of it, its holder lives."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class _Held(np.ndarray[Any, Any]):
    """What the array is a view of. numpy looks through views to their memory's owner, but not through another type."""

    __slots__ = ("holder",)

    holder: object


def hold(array: npt.NDArray[Any], holder: object) -> npt.NDArray[Any]:
    """A view of ``array`` that keeps ``holder``."""
    held = array.view(_Held)
    held.holder = holder
    return held.view(np.ndarray)
