"""A session that a connection to the broker holds: as a WebSocket would, and for who is known by a uid alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Child, Server, wait_for

import tensord
from tensord._session.broker_hold import MAX_REPORTS, BrokerHold
from tensord._session.hold_socket import HoldSocket

MAKE = """
client = tensord.connect(name="theirs", hold="broker")
region = client.create("mine", [1, 2, 3])
say(client.session.id)
hear()
"""


def _held(client: tensord.Client, name: str) -> bool | None:
    """Whether the session of the client of that name is held; None without one."""
    for session in client.sessions():
        if session.client is not None and session.client.name == name:
            return session.held
    return None


def _socket_of(client: tensord.Client) -> Any:
    assert client.session is not None
    return client.session._hold._socket


def _has_ended(client: tensord.Client, name: str) -> bool:
    return not any(client.list(name=name))


def test_it_is_held_from_the_first_moment_and_ends_with_the_process_however_that_ends(
    server: Server, client: tensord.Client
) -> None:
    with Child(MAKE) as child:
        child.hear()
        assert _held(client, "theirs") is True
        assert client.get("mine").owner.kind == "session"
        os.kill(child.pid, signal.SIGKILL)
        wait_for(lambda: _has_ended(client, "mine"), "what it owned has ended with it")
    assert _held(client, "theirs") is None


def test_a_client_without_the_package_for_websockets_needs_nothing_else(
    server: Server, client: tensord.Client, tmp_path: Path
) -> None:
    (tmp_path / "websockets.py").write_text("raise ImportError")
    environ = {"PYTHONPATH": str(tmp_path)}
    with Child(MAKE.replace(', hold="broker"', ""), environ=environ) as child:
        child.hear()
        wait_for(lambda: _held(client, "theirs"), "it is held")
        child.say("end")
        child.finish()
    assert _held(client, "theirs") is None
    script = """
try:
    tensord.connect(hold="websocket").session.id
except tensord.FeatureUnavailable as error:
    say(str(error))
"""
    with Child(script, environ=environ) as child:
        assert "the package websockets is not there" in child.hear()
        child.finish()


def test_it_tells_what_is_mapped(server: Server, client: tensord.Client) -> None:
    def holders(name: str) -> list[tuple[int, bool]]:
        return [(holder.mappings, holder.writable) for holder in client.get(name).holders or ()]

    with server.connect(hold="broker") as other:
        with other.create("told", [1], ttl=600) as region:
            wait_for(lambda: holders("told") == [(1, True)], "its maker is told of")
            region.seal()
            wait_for(lambda: holders("told") == [(1, False)], "it is told that it writes no more")
        others = [other.attach("told") for _ in range(MAX_REPORTS + 3)]
        wait_for(lambda: holders("told") == [(len(others), False)], "each mapping is told of")
        while others:
            others.pop().close()
        wait_for(lambda: holders("told") == [], "their end is told")
        with other.create("handed", [1], linger=0, handoff=600) as region:
            region.seal()
        with other.attach("handed"):
            pass
        wait_for(lambda: _has_ended(client, "handed"), "a hand-off ends with its consumer")
        assert isinstance(_socket_of(other), BrokerHold)


def test_it_outlives_restarts_of_the_server() -> None:
    server = Server()
    server.start()
    try:
        with server.connect(session=False) as looker, server.connect(name="stays", hold="broker") as client:
            region = client.create("kept", [1, 2])
            assert client.session is not None
            session = client.session.id
            for end in (signal.SIGKILL, signal.SIGTERM):
                server.signal(end)
                server.start()
                wait_for(lambda: _held(looker, "stays"), "it is held again")
                assert client.session.id == session
                wait_for(lambda: looker.get("kept").holders, "what is mapped is told again")
            region.close()
            client.close()
            assert _held(looker, "stays") is None
    finally:
        server.stop()


def test_the_next_use_opens_another_when_it_was_ended(server: Server, client: tensord.Client) -> None:
    with server.connect(name="ended", hold="broker") as other:
        assert other.session is not None
        first = other.session.id
        client._api.end_session(first)
        wait_for(lambda: other.session and other.session.opened_id not in (None, first), "it opens another")
        wait_for(lambda: _held(client, "ended"), "it is held")


def test_a_forked_child_does_not_keep_it(server: Server, client: tensord.Client) -> None:
    script = """
client = tensord.connect(name="parents", hold="broker")
region = client.create("mine", [1])
pid = os.fork()
if pid == 0:
    with tensord.connect(name="childs", hold="broker") as own:
        own.create("childs", [1])
        say("ready")
        hear()
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with Child(script) as child:
        assert child.hear() == "ready"
        wait_for(lambda: _has_ended(client, "mine"), "it ends with the process that opened it")
        assert _held(client, "childs") is True


class Deaf:
    """Passes on what comes by TCP to a server's Unix socket, and takes every wish for an upgrade out of it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        try:
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                self._sockets += [near, far]
                far.connect(self._path)
                for source, target in ((near, far), (far, near)):
                    self._start(self._pass, source, target)
        except OSError:
            pass

    def _start(self, what: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=what, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data.replace(b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b""))
        for each in (source, target):
            # The other direction's thread waits in it.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def test_where_no_websocket_comes_through_the_broker_holds_it(
    server: Server, client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = f"/dev/shm/tensord.{server.instance}"
    monkeypatch.setenv("TENSORD_BROKER_SOCKET", f"{directory}/broker.sock")
    proxy = Deaf(f"{directory}/http.sock")
    try:
        with tensord.connect(proxy.url, name="deaf") as other:
            other.create("mine", [1])
            wait_for(lambda: _held(client, "deaf"), "it is held")
            assert isinstance(_socket_of(other), BrokerHold)
    finally:
        proxy.close()
    with server.connect(name="hears") as other:
        other.create("mine", [1])
        wait_for(lambda: _held(client, "hears"), "it is held")
        assert isinstance(_socket_of(other), HoldSocket)


TOKEN = "0123456789abcdef0123456789abcdef"


@contextlib.contextmanager
def serve_tokens(folder: Path, uid: int) -> Iterator[Server]:
    """A server that knows a uid, and an administrator by a token."""
    file = folder / "tokens.json"
    lines = [
        {"name": "ops", "role": "admin", "token": TOKEN},
        {"name": "known", "role": "worker", "uids": [uid]},
    ]
    file.touch(0o600)
    file.write_text(json.dumps({"tokens": lines}))
    server = Server(TENSORD_TOKENS_FILE=str(file))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def uid_server(tmp_path: Path) -> Iterator[Server]:
    """One that knows this process."""
    with serve_tokens(tmp_path, os.geteuid()) as server:
        yield server


def test_who_is_not_known_is_refused_and_asks_no_more(tmp_path: Path) -> None:
    with serve_tokens(tmp_path, os.geteuid() + 1) as server, server.connect() as client:
        for _ in range(2):
            with pytest.raises(tensord.Unauthorized):
                client.get("mine")
        assert client.session is not None
        assert client.session.opened_id is None
        # Else it would go on in the background.
        assert client.session._hold._thread is None


def test_who_is_known_by_a_uid_gets_a_session_and_a_token_with_it(uid_server: Server) -> None:
    with uid_server.connect(token=TOKEN) as ops:
        with uid_server.connect(name="known") as client:
            # The first request is one that opens no session.
            assert list(client.list()) == []
            region = client.create("mine", [1, 2])
            assert isinstance(_socket_of(client), BrokerHold)
            uid_server.signal(signal.SIGKILL)
            uid_server.start()
            # What was issued before the restart counts no more.
            assert client.get("mine").name == "mine"
            with client.attach("mine") as again:
                assert again.numpy().tolist() == [1, 2]
            region.close()
        wait_for(lambda: not any(ops.list()), "it has ended with its session")
    with uid_server.connect(hold="websocket") as client, pytest.raises(tensord.Unauthorized):
        client.list().__next__()
    with uid_server.connect(session=False) as client, pytest.raises(tensord.Unauthorized):
        client.get("mine")
    with uid_server.connect(token="x" * 32) as client, pytest.raises(tensord.Unauthorized):
        client.create("mine", [1])


def test_where_the_broker_cannot_be_reached_the_refusal_says_so(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    server = Server(TENSORD_BROKER_SOCKET=str(path))
    server.start()
    path.unlink()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TENSORD_BROKER_SOCKET", str(path))
            with server.connect(hold="broker") as client, pytest.raises(tensord.WrongNamespace, match="it is not here"):
                client.create("mine", [1])
        with pytest.raises(tensord.ValidationFailed):
            server.connect(hold="carrier pigeon")
    finally:
        server.stop()
