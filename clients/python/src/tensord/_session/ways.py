"""By which way a session is opened and held: over HTTP and a WebSocket, or at the broker alone.

At the broker where that is asked for; where no WebSocket comes through, or the package for it is not there; and where
the server knows this process by its uid alone, which only the broker sees. There a session comes with a token for HTTP.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tensord._api import Api
from tensord._errors import FeatureUnavailable, ServerUnavailable, Unauthorized
from tensord._transport.broker import Unreachable
from tensord._transport.transport import ANSWER_SECONDS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS

from .broker_hold import BrokerHold

if TYPE_CHECKING:
    from tensord._wire import schemas

    from .hold_socket import HoldSocket as HoldSocketType
    from .holding import HoldBy, Holding


HoldSocket: type[HoldSocketType] | None
# Without its package a session can be held all the same. It is not looked for when it is needed: a child that another
# thread forks meanwhile would wait for that import for ever.
try:
    from .hold_socket import HoldSocket
except ImportError:
    HoldSocket = None


class Ways:
    """The ways of one session, for ``Hold``. ``api`` is the holding thread's, and waits for nobody."""

    def __init__(self, api: Api, by: HoldBy | None) -> None:
        self._api = api
        self._by = by
        # By which a session was opened that is still to be taken over.
        self._opened: BrokerHold | None = None
        self.at_broker = by == "broker"
        api.transport.issued_token = None

    def open(self, api: Api, request: schemas.OpenSession) -> str:
        """The id of a new session, opened through ``api``, and as patient as that. Raises what a request raises."""
        self._look_for_package()
        try:
            if not self.at_broker:
                return self._open_by_http(api, request)
            return self._open_at_broker(api, request)
        except Unreachable as unreachable:
            raise unreachable.error from None

    def connect(self, session_id: str) -> Holding:
        """Begins to hold that session. Raises ``Unreachable``, ``OSError`` if nobody listens; what a request raises."""
        opened, self._opened = self._opened, None
        if opened is not None:
            if opened.session_id == session_id:
                return opened
            opened.close()
        if not self.at_broker and HoldSocket is not None:
            return HoldSocket(self._api.transport.endpoint, session_id)
        try:
            return BrokerHold(self._api.broker.dial(), session_id, self._api.transport.credentials())
        except Unreachable as unreachable:
            # Whom the broker knows has no other way; else a WebSocket may lead to the server that is there next.
            is_away = isinstance(unreachable.error, ServerUnavailable)
            if self._by is None and not is_away and self._api.transport.issued_token is None:
                self.at_broker = False
            raise

    def note_held(self, held: Holding) -> None:
        """The server holds the session by ``held``, and may have sent a token with it."""
        if isinstance(held, BrokerHold) and held.access_token is not None:
            self._api.transport.issued_token = held.access_token

    def note_failed(self, held: Holding) -> None:
        """The server did not hold the session by ``held``. Raises why, if it said so and trying again may not help."""
        if held.is_unfit and self._by is None:
            self.at_broker = True
        elif isinstance(held, BrokerHold) and held.failure is not None:
            raise held.failure

    def close(self) -> None:
        """Closes what nobody has taken over."""
        if self._opened is not None:
            self._opened.close()

    def _look_for_package(self) -> None:
        if HoldSocket is not None:
            return
        if self._by == "websocket":
            raise FeatureUnavailable(
                "Cannot hold a session by a WebSocket: the package websockets is not there",
                hint='install it beside tensord, or connect with hold="broker"',
            )
        self.at_broker = True

    def _open_by_http(self, api: Api, request: schemas.OpenSession) -> str:
        try:
            return api.open_session(request)
        except Unauthorized as refusal:
            if self._by is not None or api.transport.endpoint.token is not None:
                raise
            try:
                session_id = self._open_at_broker(api, request)
            except (Unreachable, Unauthorized):
                raise refusal from None
            self.at_broker = True
            return session_id

    def _open_at_broker(self, api: Api, request: schemas.OpenSession) -> str:
        pause, give_up_at = FIRST_PAUSE_SECONDS, time.monotonic() + api.transport.patience_seconds
        while True:
            try:
                held = self._hold_new(request)
                break
            except (Unreachable, ServerUnavailable) as error:
                is_away = isinstance(error.error if isinstance(error, Unreachable) else error, ServerUnavailable)
                if not is_away or time.monotonic() + pause > give_up_at:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        self.close()
        self._opened = held
        self.note_held(held)
        return str(held.session_id)

    def _hold_new(self, request: schemas.OpenSession) -> BrokerHold:
        held = BrokerHold(self._api.broker.dial(), request, self._api.transport.credentials())
        try:
            held.wait_open(ANSWER_SECONDS)
        except BaseException:
            held.close()
            raise
        return held
