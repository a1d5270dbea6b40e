"""A session as the process keeps it: opened once, held by a thread in the background through restarts of the server,
told what is mapped, ended with the process, and forgotten in a forked child, which opens its own.

The thread never closes the socket for a reason of its own, since the server takes that for the worker's death. Nothing
that goes wrong in it ends it: it says so, once, and goes on.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tensord._api import Api
from tensord._errors import (
    AccessDenied,
    Closed,
    FeatureUnavailable,
    NotFound,
    OutOfDescriptors,
    ServerUnavailable,
    TensordError,
    Unauthorized,
    refuse_without_descriptor,
)
from tensord._transport.broker import Unreachable
from tensord._transport.transport import Transport

from .holding import HoldBy, Holding
from .program import describe_program, session_name
from .reports import Key, Mappings, Reported, count_mappings, count_passed, to_messages
from .wake import Waitable, Wake
from .ways import Ways

if TYPE_CHECKING:
    from tensord._wire import schemas
    from tensord._wire.session import SessionEnd

FIRST_PAUSE_SECONDS = 0.05
# Well below the shortest TTL that a session may have, which runs meanwhile.
LONGEST_PAUSE_SECONDS = 0.5
# What is mapped and let go of within this time is not told. It bounds what attaching in a loop costs.
GATHER_SECONDS = 0.1
# How often to try again what could not be tidied up.
CHORE_SECONDS = 1.0
# How long the end of the process waits for the server's word.
EXIT_SECONDS = 2.0
# How long who opens a session waits until it is held. Where it cannot be, its TTL is what ends it.
HELD_SECONDS = 2.0
# Ended mappings that are remembered for a server that is away.
MAX_ENDED = 10_000
# What goes wrong again and again is told once, and of a thousand things the first.
MAX_TOLD = 100

# What passes by itself: it is tried again without a word.
_AWAY = (ServerUnavailable, AccessDenied, NotFound, Closed, Unreachable, OSError)

_log = logging.getLogger("tensord")
_holds: weakref.WeakSet[Hold] = weakref.WeakSet()


class Hold:
    """One session of one process, or none yet. Thread-safe.

    ``mapped`` is what this process maps, each mapping under a key of its own. Changes of it are single steps of the
    interpreter, so finalizers make them too, and then ``call`` without a lock.

    ``by`` is what holds it; ``None``: whatever ``Ways`` finds to work.
    """

    def __init__(
        self,
        transport: Transport,
        request: schemas.OpenSession,
        client_name: str | None,
        by: HoldBy | None = None,
    ) -> None:
        self._transport = transport
        self._request = request
        self._client_name = client_name
        self._by = by
        self.mapped: dict[int, Reported] = {}
        self._closed = False
        self._begin()
        if transport.endpoint.token is None:
            transport.renew_token = self.renew_token
        _holds.add(self)

    def _begin(self) -> None:
        self._id: str | None = None
        self._ended: SessionEnd | None = None
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._socket: Holding | None = None
        # In ``_open``: what that asks waits for no other token.
        self._opening_thread: int | None = None
        self._wake: Wake | None = None
        # Whether the session is held, or the first try at it has failed.
        self._tried = threading.Event()
        self._told: set[str] = set()
        self._chores: deque[Callable[[Api], None]] = deque()
        # Mappings that have ended, and shall be told of even if they never were: their server waits for their end.
        self._ended_mappings: deque[tuple[int, Reported]] = deque(maxlen=MAX_ENDED)
        self._told_keys: frozenset[int] = frozenset()
        self.tells_makers = False
        # Its connections are the thread's alone, and it waits for nobody: the thread itself tries again.
        self._api = Api(self._transport.beside(retry_seconds=0.0))
        self._ways = Ways(self._api, self._by)

    @property
    def session_id(self) -> str | None:
        """The session's id, if one is open."""
        return self._id

    @property
    def is_started(self) -> bool:
        """Whether a thread holds the session, or sees to one."""
        return self._thread is not None

    def open(self, api: Api) -> str:
        """The session's id; opens it, through ``api``, if there is none, and has it held. Raises what a request raises,
        ``Closed``, ``FeatureUnavailable`` where no thread can hold it.
        """
        self.start()
        session_id = self._open(api)
        # Of a process that ends before, however soon, the server would hear by the TTL only: `os._exit`, a kill.
        if not self._tried.is_set():
            self._call_at_once()
            self._tried.wait(HELD_SECONDS)
        return session_id

    def _open(self, api: Api) -> str:
        with self._lock:
            if self._closed:
                raise Closed("Cannot open a session: the client was closed", hint="connect again")
            if self._id is None:
                self._tried.clear()
                self._opening_thread = threading.get_ident()
                try:
                    named = None if self._client_name else session_name()
                    client = describe_program(self._client_name)
                    asked: schemas.OpenSession = {
                        **self._request,
                        **({"name": named} if named else {}),
                        "client": client,
                    }
                    self._id = self._ways.open(api, asked)
                finally:
                    self._opening_thread = None
                self._call_at_once()
            return self._id

    def renew_token(self, refused: str | None) -> bool:
        """Whether there is another token than the one that was ``refused``: that of a session, opened if need be, which
        the broker holds. For who has no other token. It waits, as for a session to be held.
        """
        if self._opening_thread == threading.get_ident() or threading.current_thread() is self._thread or self._closed:
            return False
        self._tried.clear()
        with contextlib.suppress(TensordError):
            # First without the thread, which would go on asking a server that knows nothing of this process.
            api = Api(self._transport.beside(self._transport.patience_seconds))
            self._open(api)
            self.open(api)
            # After a restart of the server the thread says hello again, and gets another.
            deadline = time.monotonic() + HELD_SECONDS
            while (
                self._ways.at_broker and self._transport.issued_token in (None, refused) and time.monotonic() < deadline
            ):
                time.sleep(FIRST_PAUSE_SECONDS)
        return self._transport.issued_token not in (None, refused)

    def forget(self, session_id: str) -> None:
        """The server knows that session no more: the next ``open`` opens another."""
        if self._id == session_id:
            self._id = None
            self._call_at_once()

    def start(self) -> None:
        """Holds the session, or one that it opens, in the background. Raises ``FeatureUnavailable`` without a
        thread, ``OutOfDescriptors``.
        """
        if self._thread is not None or self._closed or not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                self._wake = Wake()
                thread = threading.Thread(target=self._run, name="tensord-session", daemon=True)
                thread.start()
                self._thread = thread
        except OSError as error:
            refuse_without_descriptor(error, "hold a session")
            raise
        except RuntimeError as error:
            raise FeatureUnavailable(
                f"Cannot hold a session: no thread can start ({error})",
                hint="at the end of the interpreter, or at the limit of threads; with ttl=, linger= or persist=True a "
                "region needs no session",
            ) from error
        finally:
            self._starting.release()

    def call(self) -> None:
        """``mapped`` has changed."""
        if self._wake is not None:
            self._wake.call()

    def unmap(self, key: int) -> None:
        """A mapping has ended. The end of a hand-off's is told at once, and however short it was. For finalizers."""
        reported = self.mapped[key]
        # By a reference it may be one. Without a session nobody is told, and nothing is remembered.
        if not reported.is_makers and (reported.hand_off or (reported.hand_off is None and self._id is not None)):
            self._ended_mappings.append((key, reported))
        # In this order: whoever tells in between still finds it mapped.
        del self.mapped[key]
        if reported.hand_off and not reported.is_makers:
            self._call_at_once()
        else:
            self.call()

    def later(self, chore: Callable[[Api], None]) -> None:
        """Has the thread do ``chore`` now, and again while the server cannot be reached."""
        self._chores.append(chore)
        # At the interpreter's end no thread can start, and the end of the process tidies up; without a
        # descriptor the next start does.
        with contextlib.suppress(FeatureUnavailable, OutOfDescriptors):
            self.start()
        self._call_at_once()

    def stop(self) -> None:
        """Ends the session, in the background."""
        self._closed = True
        self._call_at_once()

    def join(self, seconds: float) -> SessionEnd | None:
        """Waits that long until the session is ended. Returns what ended with it, if the server said so in time."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._ended

    def forget_parent(self) -> None:
        """In a forked child: session, thread and socket are the parent's. What is mapped is mapped here as well."""
        if self._socket is not None:
            self._socket.close()
        self._ways.close()
        self._begin()

    def _call_at_once(self) -> None:
        if self._wake is not None:
            self._wake.call(at_once=True)

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._closed:
            try:
                session_id = self._open(self._api)
                self._socket = held = self._ways.connect(session_id)
                if self._hold(held, session_id):
                    pause = FIRST_PAUSE_SECONDS
            except _AWAY as error:
                _log.debug("Cannot hold a session of %s yet: %s", self._transport.endpoint.url, error)
            except Exception as error:  # noqa: BLE001  # the thread lives, and with it the session
                self._tell_once(f"Cannot hold a session of {self._transport.endpoint.url}", error)
            self._tried.set()
            self._wait_out(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        self._tried.set()
        if self._id is not None:
            self._do(self._end)
        if self._socket is not None:
            self._socket.close()
        self._ways.close()

    def _hold(self, held: Holding, session_id: str) -> bool:
        """Holds the session until the server closes the socket, or we are to stop. Returns whether it was held."""
        told: dict[Key, Mappings] = {}
        self._told_keys = frozenset()
        was_open = False
        while not held.is_over:
            self._listen()
            if self._id != session_id:
                return was_open
            if self._closed:
                # The last word: a consumer that ends at once after it let go.
                if held.is_open:
                    self._tell(held, told)
                return was_open
            self._work_off()
            if held.is_open:
                if not was_open:
                    self._ways.note_held(held)
                was_open = True
                self.tells_makers = held.tells_makers
                self._tried.set()
                told = self._tell(held, told)
            self._wait(CHORE_SECONDS if self._chores else None, (held,))
            held.move()
        if held.is_refused:
            _log.warning("Session %s has ended without this process, and with it what it owned.", session_id)
            self.forget(session_id)
        elif not was_open:
            self._ways.note_failed(held)
        return was_open

    def _tell(self, held: Holding, told: dict[Key, Mappings]) -> dict[Key, Mappings]:
        if held.has_unsent:
            return told
        ended = [self._ended_mappings.popleft() for _ in range(len(self._ended_mappings))]
        mapped = dict(self.mapped)
        passed = [reported for key, reported in ended if key not in self._told_keys and key not in mapped]
        self._told_keys = frozenset(mapped)
        now = count_mappings(mapped.values(), tells_makers=held.tells_makers)
        held.send(to_messages(told, now, count_passed(passed, tells_makers=held.tells_makers)))
        return now

    def _tell_once(self, what: str, error: Exception) -> None:
        text = f"{what}: {error or type(error).__name__}"
        if text not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(text)
            # The trace is for who looks for our mistake; a refusal of the server's says all by itself.
            _log.warning(text, exc_info=None if isinstance(error, TensordError) else error)

    def _work_off(self) -> None:
        while self._chores and self._do(self._chores[0]):
            self._chores.popleft()

    def _do(self, chore: Callable[[Api], None]) -> bool:
        """Whether it is done with, if need be because it fails for a reason that does not pass by itself."""
        try:
            chore(self._api)
        except (ServerUnavailable, OutOfDescriptors):
            return False
        except Unauthorized as error:
            # Issued before a restart of the server: the next hello brings another.
            if not self._closed and self._transport.issued_token is not None:
                return False
            self._tell_once("Cannot tidy up behind a session", error)
        except NotFound as error:
            _log.debug("There is nothing to tidy up behind a session: %s", error)
        except Exception as error:  # noqa: BLE001  # as in _run
            self._tell_once("Cannot tidy up behind a session", error)
        return True

    def _end(self, api: Api) -> None:
        self._ended = api.end_session(self._id or "")

    def _listen(self) -> None:
        if self._wake is not None:
            self._wake.listen()

    def _wait(self, seconds: float | None, others: Iterable[Waitable] = ()) -> None:
        wake = self._wake
        if wake is not None and wake.wait(seconds, others) and not wake.is_urgent and self._tried.is_set():
            # More is mapped and let go of soon. A call at once ends this wait, too; and nobody waits to be held.
            wake.wait(GATHER_SECONDS)

    def _wait_out(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._closed and (left := end - time.monotonic()) > 0:
            self._wait(left)


def _forget_parents() -> None:
    for hold in list(_holds):
        hold.forget_parent()


@atexit.register
def _end_all() -> None:
    # The kernel closes the sockets of a process that ends, and the server sees it. This is for those not held yet, and
    # for a clear order: when the process is gone, so is its session.
    for hold in list(_holds):
        hold.stop()
    give_up_at = time.monotonic() + EXIT_SECONDS
    for hold in list(_holds):
        hold.join(max(0.0, give_up_at - time.monotonic()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents)
