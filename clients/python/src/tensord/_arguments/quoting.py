"""How messages show what somebody passed: short, whatever it is."""

from __future__ import annotations

import reprlib
from typing import Any

_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = 160


def quote(value: Any) -> str:
    """A value as a message shows it: short, whatever it is, and with its type where that does not show."""
    try:
        shown = _shorten.repr(value)
    except Exception:  # noqa: BLE001  # its own repr, or Python's limit on the digits of a number
        shown = f"<{type_name(value)}>"
    return shown if type(value) in _PLAIN else f"{shown} ({type_name(value)})"


def type_name(value: Any) -> str:
    """A value's type as its users call it."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
