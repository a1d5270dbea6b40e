"""What holds a session: a connection that ends with the process. There are two, a WebSocket and one to the broker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

HoldBy = Literal["websocket", "broker"]
"""What a session is held by."""

Report = Mapping[str, Any]
"""A message of ``reports.to_messages``."""


class Holding(Protocol):
    """A connection that holds a session, or is about to. Nothing in it waits."""

    # Whether the server tells makers from consumers.
    tells_makers: bool

    @property
    def is_open(self) -> bool:
        """Whether the server holds the session by it."""

    @property
    def is_over(self) -> bool:
        """Whether it was refused, or the server has closed it."""

    @property
    def is_refused(self) -> bool:
        """Whether the server knows no such session."""

    @property
    def is_unfit(self) -> bool:
        """Whether nothing of this kind comes through to the server, however often it is tried."""

    @property
    def has_unsent(self) -> bool:
        """Whether the server does not read: to be waited for before more is sent."""

    def fileno(self) -> int: ...

    def send(self, reports: Iterable[Report]) -> None:
        """Sends reports, or keeps them until ``move``."""

    def move(self) -> None:
        """Reads what has come and writes what goes."""

    def close(self) -> None:
        """Closes this process's copy of the connection."""
