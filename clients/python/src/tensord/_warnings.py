"""What callers are told without an error: something was done, and not quite as they may think."""

from __future__ import annotations

import sys
import warnings


class TensordWarning(UserWarning):
    """Something was done, and not quite as its caller may think: tensors that share memory were copied apart."""


def warn(message: str) -> None:
    """Warns of the line that called this package."""
    # The caller of this function is at level 2.
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "tensord":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, TensordWarning, stacklevel=level)
