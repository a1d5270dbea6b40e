"""A lease by request, for a mapping that can hold no lock: given back in the background, as finalizers have to."""

from __future__ import annotations

import functools
from collections.abc import Callable

from tensord._api import Api


class RequestedLease:
    """A lease that the server gave, until ``end``."""

    def __init__(self, lease_id: str, later: Callable[[Callable[[Api], None]], None]) -> None:
        self._id = lease_id
        self._later = later

    def end(self) -> None:
        self._later(functools.partial(Api.end_lease, lease_id=self._id))
