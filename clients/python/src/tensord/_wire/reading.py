"""Reading an answer: what is missing or of another kind is the server's fault, and what is more is nobody's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tensord._errors import ServerFault

Wire = TypeVar("Wire")
Record = TypeVar("Record")


def read(what: str, to_record: Callable[[Wire], Record], value: Any) -> Record:
    """``to_record`` of a value that should be a ``what``. Raises ``ServerFault`` if it is none."""
    try:
        return to_record(value)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ServerFault(
            f"Cannot read the server's answer: it is no {what} ({error!r})",
            hint="is the server another version, or is TENSORD_URL something else's address?",
        ) from error
