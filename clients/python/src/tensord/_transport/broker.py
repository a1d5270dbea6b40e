"""The connection to the broker, one a client: over it the server hands out descriptors of regions' open files
(docs/protocol.md, "The broker"). It maps nothing, and holds no session: a ``Hold`` does that.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tensord._errors import (
    AccessDenied,
    Closed,
    FeatureUnavailable,
    OutOfDescriptors,
    ServerFault,
    ServerUnavailable,
    StaleRef,
    TensordError,
    ValidationFailed,
    WrongNamespace,
    from_problem,
    refuse_without_descriptor,
)

from .endpoint import Endpoint
from .transport import ANSWER_SECONDS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Transport

VERSION = 1
MAX_FRAME_BYTES = 65_536
# 250 of a region, and the tensors'.
MAX_DESCRIPTORS = 251
# What the server refuses for a moment only, as over HTTP.
_PASSING = frozenset({"shutting-down", "out-of-descriptors"})

FindBroker = Callable[[], "str | None"]
"""Asks the server where its broker is, as the server reaches it. ``None`` if it has none."""


class Unreachable(Exception):
    """No broker could be asked; ``error`` says why, and what to do."""

    def __init__(self, error: TensordError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class HandedOut:
    """A descriptor, which its receiver closes, of an open file description of its own. ``leased`` says whether the
    server has locked in it what *attach* names. Of a region on a device ``device_fd``, which is the receiver's as well,
    leads to the memory. ``region`` is the region's JSON, without tensors.
    """

    fd: int
    leased: bool
    device_fd: int | None
    region: Mapping[str, Any]

    def close(self) -> None:
        """Closes what came."""
        _close([self.fd, *([] if self.device_fd is None else [self.device_fd])])


class Broker:
    """Asks one server's broker. Thread-safe: one asks at a time. Nothing is connected before the first question, and a
    forked child has a connection of its own.
    """

    def __init__(self, transport: Transport, find: FindBroker) -> None:
        self._transport = transport
        self._find = find
        self._beside = beside(transport.endpoint)
        self._closed = False
        self._seen = False
        self._instance = ""
        self._last_id = 0
        self.forget()
        _brokers.add(self)

    def attach(self, region: str, *, writable: bool, lease: str, instance: str | None = None) -> HandedOut:
        """A descriptor of a region, by its id, leased as ``lease``: ``consumer``, ``maker`` or ``both``.

        It waits for a server that was there, and connects anew after a restart. Raises ``Unreachable``; ``StaleRef`` if
        the server's instance is not ``instance``; what the server says; ``OutOfDescriptors`` if this process has none;
        ``Closed``.
        """
        request = {"op": "attach", "region": region, "access": "rw" if writable else "ro", "lease": lease}
        if self._pid != os.getpid():
            # A fork that Python did not see.
            self.forget()
        with self._mutex:
            reply, fds = self._ask(request)
            here = self._instance
        if instance is not None and instance != here:
            _close(fds)
            raise StaleRef(
                f"Cannot attach region {region}: it is of instance {instance}, and this client's server has {here}",
                hint="connect to the server of that instance",
            )
        described = reply.get("region")
        # The memory's comes last, and is called otherwise than the region's.
        is_device = len(fds) == 2 and reply["fds"][1] not in ("region", "tensors")
        if not isinstance(described, dict) or not (len(fds) == 1 or is_device):
            _close(fds)
            raise ServerFault(
                f"Cannot attach region {region}: the broker sent {len(fds)} descriptors, want 1, or 2 of a device's"
            )
        return HandedOut(fds[0], reply.get("leased") is not False, fds[1] if is_device else None, described)

    @property
    def instance(self) -> str:
        """Of which instance the server is, as it has said; empty before it was asked."""
        return self._instance

    def close(self) -> None:
        """Closes the connection. A question afterwards, or one that waits, raises ``Closed``."""
        self._closed = True
        sock = self._sock
        if sock is not None and self._pid == os.getpid():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        with self._mutex:
            self._drop()

    def forget(self) -> None:
        """In a forked child: the connection is the parent's. Its copy goes, which does not disturb the parent."""
        self._pid = os.getpid()
        # Another thread may have held the parent's.
        self._mutex = threading.Lock()
        self._drop()

    _sock: socket.socket | None = None

    def _drop(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _ask(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
        pause, give_up_at = FIRST_PAUSE_SECONDS, 0.0
        was_kept = self._sock is not None
        while True:
            failure: Exception
            try:
                return self._exchange(self._sock or self._connect(), request)
            except _Lost as lost:
                failure = lost
                if was_kept:
                    # A connection from before a restart says nothing about the server that is there now.
                    was_kept = False
                    continue
            except Unreachable as unreachable:
                if not (self._seen or isinstance(unreachable.error, ServerUnavailable)):
                    raise
                failure = unreachable
            except TensordError as error:
                # Without a status it is this process that has no descriptor.
                if error.code not in _PASSING or error.status is None:
                    raise
                failure = error
            now = time.monotonic()
            give_up_at = give_up_at or now + self._transport.patience_seconds
            if now + pause > give_up_at:
                raise _unavailable(failure) if isinstance(failure, _Lost) else failure
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def dial(self) -> socket.socket:
        """A connection of the caller's own, over which nothing was said yet. Raises ``Unreachable``, and
        ``OutOfDescriptors`` if this process has none.
        """
        first: TensordError | None = None
        for path in self._paths():
            sock = _open_socket()
            try:
                sock.connect(path)
                return sock
            except OSError as error:
                sock.close()
                first = first or _unreachable(path, error)
            except BaseException:
                sock.close()
                raise
        raise Unreachable(first or _without_path(self._transport.endpoint))

    def _connect(self) -> socket.socket:
        if self._closed:
            raise Closed("Cannot ask the broker: the client was closed", hint="connect again")
        sock = self.dial()
        self._sock = sock
        try:
            hello, _ = self._exchange(sock, {"op": "hello", "v": VERSION, **self._transport.credentials()})
        except BaseException:
            self._sock = None
            sock.close()
            raise
        self._seen = True
        self._instance = str(hello.get("instance"))
        return sock

    def _paths(self) -> Iterator[str]:
        if self._beside is not None:
            yield self._beside
        try:
            told = self._find()
        except TensordError:
            # The server is away, or refuses: what was tried already has to do.
            return
        if told is None:
            raise Unreachable(
                FeatureUnavailable(
                    "Cannot ask the broker: the server has none",
                    hint="its log says at its start why not; `tensord doctor` does too",
                )
            )
        # As the server reaches it: in another mount namespace there is nothing, or somebody else's.
        if told != self._beside and (self._beside is None or os.path.exists(told)):
            yield told

    def _exchange(self, sock: socket.socket, request: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
        """One question, and the answer to it with its descriptors. Raises ``_Lost``, and what the server says."""
        self._last_id += 1
        complete = False
        try:
            reply, fds = _exchange(sock, self._last_id, request)
            complete = True
            return _succeed(reply, fds)
        finally:
            # An interrupt between the two would leave a connection on which the next answer is not ours.
            if not complete:
                self._sock = None
                sock.close()

    def open_line(self) -> Line:
        """A connection of the caller's own, which has said hello. Raises ``Unreachable``, ``ServerUnavailable``; what
        the server says; ``OutOfDescriptors`` if this process has none.
        """
        line = Line(self.dial())
        try:
            line.ask({"op": "hello", "v": VERSION, **self._transport.credentials()})
        except BaseException:
            line.close()
            raise
        return line

    def __del__(self) -> None:
        # The socket's own finalizer would warn.
        with contextlib.suppress(Exception):
            self._drop()


class Line:
    """A connection to the broker that is its owner's alone: what was said over it ends with it. One thread asks."""

    # Whoever waits for its end has nothing to send.
    has_unsent = False

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._last_id = 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def ask(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
        """One question, and the answer to it with its descriptors, which are the caller's. Raises
        ``ServerUnavailable`` once the connection is over, ``OutOfDescriptors`` if one did not arrive, and what the
        server says.
        """
        self._last_id += 1
        try:
            return _succeed(*_exchange(self._sock, self._last_id, request))
        except _Lost as lost:
            raise _unavailable(lost) from lost

    @property
    def is_over(self) -> bool:
        """Whether the server has ended it, as seen while no answer is waited for."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def end(self) -> None:
        """Ends a question that waits in another thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()


class _Lost(Exception):
    """The connection broke before an answer, and whatever was on its way with it: it can be asked again."""


def beside(endpoint: Endpoint, environ: Mapping[str, str] | None = None) -> str | None:
    """Where the broker is without asking: ``TENSORD_BROKER_SOCKET``, else beside the Unix socket of HTTP."""
    environ = os.environ if environ is None else environ
    given = environ.get("TENSORD_BROKER_SOCKET", "").strip()
    if given:
        return given
    if endpoint.path is None:
        return None
    directory, _, last = endpoint.path.rpartition("/")
    return f"{directory}/broker.sock" if last == "http.sock" else f"{endpoint.path}.broker"


def _open_socket() -> socket.socket:
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        refuse_without_descriptor(error, "connect to the broker")
        raise Unreachable(FeatureUnavailable(f"Cannot ask the broker: {error}")) from error
    sock.settimeout(ANSWER_SECONDS)
    return sock


def _exchange(sock: socket.socket, request_id: int, request: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
    payload = json.dumps({"id": request_id, **request}).encode()
    try:
        sock.send(payload, socket.MSG_NOSIGNAL)
        frame, fds, flags, _ = socket.recv_fds(
            sock, MAX_FRAME_BYTES, MAX_DESCRIPTORS, getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        )
    except OSError as error:
        raise _Lost(str(error) or type(error).__name__) from error
    try:
        return _parse(frame, fds, flags, request_id), fds
    except BaseException:
        _close(fds)
        raise


def _succeed(reply: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
    """An answer that is a success. Raises what it says otherwise."""
    if not reply.get("ok"):
        _close(fds)
        raise to_error(reply)
    return reply, fds


def _parse(frame: bytes, fds: list[int], flags: int, request_id: int) -> dict[str, Any]:
    """The answer in a frame, checked against the descriptors that came with it."""
    if not frame:
        raise _Lost("the server closed the connection")
    if flags & socket.MSG_TRUNC:
        raise ServerFault(f"Cannot read the broker's answer: it has more than {MAX_FRAME_BYTES} bytes")
    try:
        reply = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise ServerFault(f"Cannot read the broker's answer: it is no JSON ({error})") from error
    if not isinstance(reply, dict):
        raise ServerFault("Cannot read the broker's answer: it is no object")
    if reply.get("id") != request_id:
        # What answers no question says why the connection ends.
        raise to_error(reply)
    names = reply.get("fds") or []
    if len(fds) < len(names) or flags & socket.MSG_CTRUNC:
        # The kernel tells of it in no other way: it gives as many as there is room for.
        refuse_without_descriptor(OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "take a descriptor of the broker's")
        raise OutOfDescriptors("Cannot take a descriptor of the broker's: it did not arrive")
    if len(fds) > len(names):
        raise ServerFault(f"Cannot read the broker's answer: {len(fds)} descriptors came, it names {len(names)}")
    return reply


def to_error(reply: Mapping[str, Any]) -> TensordError:
    """What an answer that is no success says."""
    problem = reply.get("problem")
    if not isinstance(problem, dict):
        return ServerFault("Cannot read the broker's answer: it is to another question, or of no known form")
    status = problem.get("status")
    return from_problem(status if isinstance(status, int) else 500, problem)


def _unreachable(path: str, error: OSError) -> TensordError:
    """Why nobody could be asked at ``path``, and what to do about it."""
    cause = error.strerror or str(error)
    fields = {"broker": path}
    if error.errno in (errno.EACCES, errno.EPERM):
        groups = ", ".join(map(str, sorted({os.getegid(), *os.getgroups()})))
        return AccessDenied(
            f"Cannot connect to the broker at {path}: {cause} for uid {os.geteuid()} in groups {groups}",
            hint="run this process in the server's group (Kubernetes: the same fsGroup; docker: group_add)",
            fields=fields,
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return WrongNamespace(
            f"Cannot connect to the broker at {path}: it is not here ({cause})",
            hint="mount the directory of the server's broker.sock in this container, and say where it is in "
            "TENSORD_BROKER_SOCKET",
            fields=fields,
        )
    if error.errno is None or error.errno in (errno.ENOTSOCK, errno.EPROTOTYPE):
        return ValidationFailed(
            f"Cannot connect to the broker at {path}: {cause}",
            hint="want the server's broker.sock, at most 107 bytes of path, in TENSORD_BROKER_SOCKET",
            fields=fields,
        )
    return ServerUnavailable(
        f"Cannot reach the broker: nobody listens on {path} ({cause})", hint="is the server running?", fields=fields
    )


def _without_path(endpoint: Endpoint) -> TensordError:
    return WrongNamespace(
        f"Cannot ask the broker: the server is reached at {endpoint.url}, and where its broker is could not be asked",
        hint="say in TENSORD_BROKER_SOCKET where the server's broker.sock is here",
    )


def _unavailable(lost: _Lost) -> ServerUnavailable:
    return ServerUnavailable(f"Cannot get an answer from the broker: {lost}", hint="is the server running?")


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


_brokers: weakref.WeakSet[Broker] = weakref.WeakSet()


def _forget_parents() -> None:
    for broker in list(_brokers):
        broker.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents)
