"""A client's session with its server: what is made under it ends with it, and by it the server knows who maps what."""

from __future__ import annotations

import contextlib
import functools
import itertools
import weakref
from collections.abc import Callable
from typing import TypeVar

from tensord._api import Api
from tensord._arguments.checked import checked_class
from tensord._errors import FeatureUnavailable, SessionNotFound
from tensord._mapping.attachment import Attachment
from tensord._mapping.mapping import Access
from tensord._wire.session import SessionDescriptor, SessionEnd

from .hold import Hold
from .reports import Reported
from .requested_lease import RequestedLease

# How long a close waits for the server's word.
END_SECONDS = 5.0

Answer = TypeVar("Answer")

_WRITE = Access.WRITE
_keys = itertools.count()


@checked_class
class Session:
    """This process's stay with the server; ``Client.session``. What it owns ends with it.

    It is opened when it is first needed: by a ``create`` without another owner, by ``get_or_create``, or, in the
    background, by an ``attach``. A thread holds it by a WebSocket, through restarts of the server, and tells what this
    process maps. It ends when the client is closed or the process ends, at once however the process dies; a process
    that is merely stopped keeps it. A forked child has a session of its own, when it needs one.
    """

    def __init__(self, api: Api, hold: Hold) -> None:
        self._api = api
        self._hold = hold
        # A client that is dropped without a close shall not leave a thread and a socket behind.
        self._dropped = weakref.finalize(self, hold.stop)
        self._dropped.atexit = False

    @property
    def id(self) -> str:
        """Its id, for ``session=`` of requests by other means. Opens it if need be. Raises ``Closed``."""
        # What it owns lives as long as the process does, even if nobody keeps the client.
        self._dropped.detach()
        return self._hold.open(self._api)

    @property
    def opened_id(self) -> str | None:
        """Its id, if it is open."""
        return self._hold.session_id

    def refresh(self) -> SessionDescriptor:
        """The session as the server sees it now. Opens it if need be."""
        return self.use(self._api.session)

    def use(self, call: Callable[[str], Answer]) -> Answer:
        """``call`` with the session's id; once more, with another session's, if that one has ended meanwhile."""
        session_id = self._hold.open(self._api)
        try:
            return call(session_id)
        except SessionNotFound:
            self._hold.forget(session_id)
            return call(self._hold.open(self._api))

    def own(self, call: Callable[[str], Answer]) -> Answer:
        """As ``use``, where ``call`` makes something that the session owns."""
        self._dropped.detach()
        return self.use(call)

    def later(self, chore: Callable[[Api], None]) -> None:
        """Does ``chore`` in the background, and again as long as the server cannot be reached."""
        self._hold.later(chore)

    @property
    def _tells_makers(self) -> bool:
        """Whether the server, which holds the session, tells makers from consumers."""
        return self._hold.tells_makers

    def _report(self, attachment: Attachment, *, start: bool, hand_off: bool | None) -> None:
        """Tells the server that this process maps a region, and later how and how long; of a ``hand_off``, or where it
        is not known whether it is one, however short that is. With ``start`` a session is opened for it, in the
        background; without, it is told once there is one.
        """
        key = next(_keys)
        # Text, whatever a descriptor that somebody made says: the thread sends it.
        region = str(attachment.place.region)
        hold = self._hold
        # They keep the session: as long as something is mapped through it, it has something to tell.
        attachment.on_remap = functools.partial(self._tell_remapped, key, region, hand_off)
        attachment.view.at_end(functools.partial(self._tell_end, key))
        hold.mapped[key] = Reported(region, attachment.access is _WRITE, attachment.is_makers, hand_off)
        hold.call()
        if start and not hold.is_started:
            # Without it the region is mapped all the same: at the interpreter's end no thread can start.
            with contextlib.suppress(FeatureUnavailable):
                hold.start()

    def _tell_remapped(self, key: int, region: str, hand_off: bool | None, access: Access, is_makers: bool) -> None:
        self._hold.mapped[key] = Reported(region, access is _WRITE, is_makers, hand_off)
        self._hold.call()

    def _tell_end(self, key: int) -> None:
        self._hold.unmap(key)

    def _lease(self, region: str) -> RequestedLease:
        """Leases a region by request, where no lock can: until the lease, or the session, is ended. A server that is
        away is not waited for. Raises what a request raises.
        """
        return RequestedLease(self.use(lambda session_id: self._api.take_lease(region, session_id)), self._hold.later)

    def end(self) -> SessionEnd | None:
        """Ends it, and what it owns. What is sealed and still mapped somewhere keeps its name until its last mapping
        ends. Safe to call twice; ``Client.close`` does it. Returns what ended with it; ``None`` if it was never opened,
        or if the server has not said so within 5 s.
        """
        self._hold.stop()
        return self._hold.join(END_SECONDS)

    def __repr__(self) -> str:
        return f"<tensord.Session {self.opened_id or 'not open'}>"
