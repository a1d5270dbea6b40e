"""Arrays that keep a slot: as long as one lives, or anything that numpy or torch made of it, its holder lives."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tensord._mapping.mapping import View


class _Held(np.ndarray[Any, Any]):
    """What the array is a view of. numpy looks through views, and through a buffer to who exports it, as far as it
    finds plain arrays: so this is of another type, and over a buffer that no array exports.
    """

    __slots__ = ("holder",)

    holder: object


def hold(
    buffer: memoryview, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], holder: object
) -> npt.NDArray[Any]:
    """An array over a part of ``buffer``, writable as that is, which keeps ``holder``. An ``anchor_of`` is a buffer."""
    held = _Held(shape, dtype, buffer, offset)
    held.holder = holder
    return held.view(np.ndarray)


def anchor_of(view: View) -> memoryview:
    """The bytes of a mapping for ``hold``: of the whole file, and writable whether its pages are or not."""
    anchor, start = view.buffer()
    assert start == 0, "the mapping is of the whole file"
    return memoryview(anchor).cast("B")
