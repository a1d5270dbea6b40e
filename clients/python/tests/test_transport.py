"""What is sent twice, what is not, and what a client says when nobody answers. The server here is a fake one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_server import Answer, FakeServer, Request
from harness import DEADLINE_SECONDS, wait_for

import tensord
from tensord._transport import transport as transports
from tensord._transport.endpoint import Endpoint
from tensord._transport.transport import Transport

# Refusals of the moment: the server goes, has no descriptor just now, or waits for a device's driver itself.
PASSING: list[Answer] = [
    (503, {"code": "not-ready", "detail": "Cannot choose a device: not yet", "status": 503}),
    (503, {"code": "shutting-down", "detail": "Cannot answer: going", "status": 503}),
    (507, {"code": "out-of-descriptors", "detail": "Cannot answer: no file descriptor left", "status": 507}),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "http.sock"


@pytest.fixture
def make_transport(path: Path) -> Iterator[Callable[..., Transport]]:
    made: list[Transport] = []

    def make(retry: float = 5.0) -> Transport:
        made.append(Transport(Endpoint("here", path=str(path)), retry))
        return made[-1]

    yield make
    for transport in made:
        transport.close()


MakeTransport = Callable[..., Transport]


def test_a_thread_keeps_its_connection(path: Path, make_transport: MakeTransport) -> None:
    with FakeServer(path, lambda _: (200, {"ok": True})) as fake:
        transport = make_transport()
        for _ in range(3):
            assert transport.request("GET", "/x", repeatable=True).body == {"ok": True}
        threads = [
            threading.Thread(target=transport.request, args=("GET", "/x"), kwargs={"repeatable": True}) for _ in "ab"
        ]
        for thread in threads:
            thread.start()
            thread.join()
        assert [request.connection for request in fake.requests] == [1, 1, 1, 2, 3]


def test_a_connection_that_the_server_ended_is_not_used_for_a_post(path: Path, make_transport: MakeTransport) -> None:
    with FakeServer(path, lambda _: (200, {})) as fake:
        transport = make_transport()
        transport.request("GET", "/x", repeatable=True)
        fake.hang_up()
        assert transport.request("POST", "/x", {}, repeatable=False).repeated is False
        assert fake.connections == 2


def test_a_body_is_json_and_a_wait_is_a_preference(path: Path, make_transport: MakeTransport) -> None:
    with FakeServer(path, lambda _: (200, {})) as fake:
        transport = make_transport()
        transport.request("POST", "/x", {"a": [1]}, repeatable=False)
        transport.request("GET", "/x", repeatable=True, wait_until=time.monotonic() + 2.5)
        transport.request("GET", "/x", repeatable=True, wait_until=time.monotonic() + 1e6)
        transport.request("GET", "/x", repeatable=True, wait_until=time.monotonic() - 1)
        transport.request("GET", "/x", repeatable=True, wait_until=time.monotonic() + 0.5)
        first, *rest = fake.requests
        assert first.body == {"a": [1]}
        assert first.headers["content-type"] == "application/json"
        assert [request.headers.get("prefer") for request in rest] == ["wait=2", "wait=300", None, None]


def test_a_lost_answer_is_asked_for_again_where_that_is_safe(path: Path, make_transport: MakeTransport) -> None:
    with FakeServer(path, lambda _: None if len(fake.requests) < 3 else (200, {})) as fake:
        reply = make_transport().request("GET", "/x", repeatable=True)
        assert reply.status == 200
        assert reply.repeated is True
        assert len(fake.requests) == 3


def test_a_lost_answer_to_a_create_is_not_asked_for_again(path: Path, make_transport: MakeTransport) -> None:
    with FakeServer(path, lambda _: None) as fake:
        with pytest.raises(tensord.ServerUnavailable, match="is not known") as caught:
            make_transport().request("POST", "/v1/regions", {}, repeatable=False)
        assert len(fake.requests) == 1
        assert caught.value.fields == {"request_sent": True}


@pytest.mark.parametrize("passing", PASSING)
def test_what_is_refused_for_a_moment_is_sent_again(path: Path, make_transport: MakeTransport, passing: Answer) -> None:
    with FakeServer(path, lambda _: passing if len(fake.requests) < 3 else (201, {})) as fake:
        reply = make_transport().request("POST", "/v1/regions", {}, repeatable=False)
        assert reply.status == 201
        assert reply.repeated is False


@pytest.mark.parametrize("passing", PASSING)
def test_who_refuses_for_a_moment_again_and_again_is_believed(
    path: Path, make_transport: MakeTransport, passing: tuple[int, Any]
) -> None:
    with FakeServer(path, lambda _: passing) as fake:
        assert make_transport(retry=0.1).request("GET", "/x", repeatable=True).status == passing[0]
    assert len(fake.requests) > 1


def test_full_memory_does_not_pass_by_itself(path: Path, make_transport: MakeTransport) -> None:
    with FakeServer(path, lambda _: (507, {"code": "out-of-shared-memory", "detail": "full"})) as fake:
        assert make_transport(retry=1e6).request("POST", "/v1/regions", {}, repeatable=True).status == 507
    assert len(fake.requests) == 1


def test_a_server_that_was_there_is_waited_for(path: Path, make_transport: MakeTransport) -> None:
    transport = make_transport()
    with FakeServer(path, lambda _: (200, {})):
        transport.request("GET", "/x", repeatable=True)
    replies: list[int] = []
    thread = threading.Thread(
        target=lambda: replies.append(transport.request("POST", "/x", {}, repeatable=False).status)
    )
    thread.start()
    wait_for(thread.is_alive, "the request is under way")
    with FakeServer(path, lambda _: (201, {})):
        thread.join(DEADLINE_SECONDS)
    assert replies == [201]


def test_a_server_that_was_never_there_is_not_waited_for(path: Path, make_transport: MakeTransport) -> None:
    with pytest.raises(tensord.ServerUnavailable) as caught:
        make_transport(retry=1e6).request("GET", "/x", repeatable=True)
    text = str(caught.value)
    for part in (f"unix://{path}", "No such file", "npm start", "TENSORD_URL"):
        assert part in text
    assert isinstance(caught.value, ConnectionError)
    assert caught.value.fields == {"request_sent": False}


def test_in_a_pod_the_hint_says_to_mount_the_volume(
    monkeypatch: pytest.MonkeyPatch, make_transport: MakeTransport
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(tensord.ServerUnavailable, match="mount the sidecar's volume in this container") as caught:
        make_transport().request("GET", "/x", repeatable=True)
    assert "npm start" not in str(caught.value)


def test_connect_says_what_it_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TENSORD_URL", raising=False)
    monkeypatch.setenv("TENSORD_INSTANCE", "nobody")
    monkeypatch.setenv("TENSORD_SHM_DIR", "/dev/shm")
    with tensord.connect() as client, pytest.raises(tensord.ServerUnavailable, match="instance 'nobody' in /dev/shm"):
        client.stats()
    with pytest.raises(tensord.ServerUnavailable, match="nobody listens"):
        tensord.connect(wait=0.01)


def test_connect_waits_until_the_server_is_ready(path: Path) -> None:
    not_ready: Answer = (503, {"code": "not-ready"})
    with FakeServer(path, lambda _: not_ready if len(fake.requests) < 3 else (200, {})) as fake:
        tensord.connect(f"unix://{path}", wait=DEADLINE_SECONDS).close()
        assert [request.path for request in fake.requests] == ["/readyz"] * 3


def test_connect_gives_up_on_a_server_that_never_gets_ready(path: Path) -> None:
    with FakeServer(path, lambda _: (503, {})), pytest.raises(tensord.ServerUnavailable, match="not ready within"):
        tensord.connect(f"unix://{path}", wait=0.05)


def test_a_server_that_does_not_answer_in_time_is_not_asked_again(path: Path, make_transport: MakeTransport) -> None:
    free = threading.Event()

    def answer(_: Request) -> Answer:
        free.wait(DEADLINE_SECONDS)
        return None

    with FakeServer(path, answer) as fake:
        with pytest.raises(tensord.ServerUnavailable, match="timed out"):
            make_transport().request("GET", "/x", repeatable=True, answer_seconds=0.05)
        free.set()
        assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{", tensord.ServerFault),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi", tensord.ServerFault),
        (b"HTTP/1.1 404 X\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi", tensord.NotFound),
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", tensord.ServerUnavailable),
        (b"HTTP/1.1 301 X\r\nContent-Length: 0\r\n\r\n", tensord.ServerFault),
        ((200, []), tensord.ServerFault),
    ],
)
def test_an_answer_that_is_no_answer_raises(path: Path, answer: Answer, kind: type[tensord.TensordError]) -> None:
    with FakeServer(path, lambda _: answer), tensord.connect(f"unix://{path}") as client:
        with pytest.raises(kind) as caught:
            client.stats()
        assert type(caught.value) is kind


def test_a_lost_connection_in_the_middle_of_an_answer_raises(path: Path) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with (
        FakeServer(path, lambda _: half, keep_alive=False),
        tensord.connect(f"unix://{path}", retry=0.05) as client,
        pytest.raises(tensord.ServerUnavailable),
    ):
        client.stats()


def test_a_descriptor_that_is_none_raises(path: Path) -> None:
    with (
        FakeServer(path, lambda _: (200, {"id": 5})),
        tensord.connect(f"unix://{path}") as client,
        pytest.raises(tensord.ServerFault, match="no region descriptor"),
    ):
        client.get("x")


def test_a_closed_client_raises(path: Path) -> None:
    with FakeServer(path, lambda _: (200, {"items": [], "next_cursor": None})):
        client = tensord.connect(f"unix://{path}")
        assert not any(client.models())
        client.close()
        client.close()
        with pytest.raises(tensord.Closed):
            list(client.models())


def test_a_forked_child_speaks_on_a_connection_of_its_own(path: Path, make_transport: MakeTransport) -> None:
    with FakeServer(path, lambda request: (200, {"connection": request.connection})):
        transport = make_transport()
        assert transport.request("GET", "/x", repeatable=True).body == {"connection": 1}
        reader, writer = os.pipe()
        pid = _fork()
        if pid == 0:
            number = transport.request("GET", "/x", repeatable=True).body["connection"]
            os.write(writer, bytes([number]))
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(reader, 1) == b"\x02"
        os.close(reader)
        os.close(writer)
        assert transport.request("GET", "/x", repeatable=True).body == {"connection": 1}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", ".x", "é", "x" * 129, "a%2e"])
def test_a_name_that_would_bend_the_path_is_never_sent(path: Path, name: str) -> None:
    said = "org--name" if "/" in name else "want .*text of 1 to 128"
    with FakeServer(path, lambda _: (200, {})) as fake, tensord.connect(f"unix://{path}") as client:
        for call in (
            lambda: client.get(name),
            lambda: client.model(name),
            lambda: client.unregister_model(name),
            lambda: client.attach(name),
        ):
            with pytest.raises(tensord.ValidationFailed, match=said):
                call()
        assert fake.requests == []


@pytest.mark.parametrize("region_id", ["", "..", "reg_/../x", "reg_%2e"])
def test_an_id_that_would_bend_the_path_is_never_sent(path: Path, region_id: str) -> None:
    with FakeServer(path, lambda _: (200, {})) as fake, tensord.connect(f"unix://{path}") as client:
        with pytest.raises(tensord.ValidationFailed):
            client.delete(region_id)
        assert fake.requests == []


def _fork() -> int:
    import warnings

    with warnings.catch_warnings():
        # Python 3.12 and later warn about forking beside the fake server's threads; the child touches none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


_PLAIN = b'HTTP/1.1 200 OK\r\nContent-Type: application/json;charset=utf-8\r\nContent-Length: 12\r\n\r\n{"ok": true}'
_END = b"\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        _PLAIN,
        _PLAIN.replace(b"Content-Length: 12", b"CONTENT-length:12 "),
        _PLAIN.replace(b"application/json;", b"APPLICATION/JSON ;"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + _PLAIN,
        _PLAIN.replace(_END, b"\r\nConnection: keep-alive\r\n\r\n"),
        _PLAIN.replace(_END, b"\r\nX-Folded: a\r\n b\r\n\r\n"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'3\r\n{"o\r\n9\r\nk": true}\r\n0\r\n\r\n'
        ),
        _PLAIN.replace(_END, b"\r\nX-Long: " + b"x" * 60_000 + _END),
    ],
    ids=["plain", "spelling", "type", "continue", "keep-alive", "folded", "chunked", "long"],
)
@pytest.mark.parametrize("cut", ["nowhere", "in the head", "behind the head", "in the body"])
def test_an_answer_of_any_form_is_read_in_any_pieces(
    path: Path, make_transport: MakeTransport, answer: bytes, cut: str
) -> None:
    behind = answer.index(_END) + len(_END)
    at = {"nowhere": len(answer), "in the head": 20, "behind the head": behind, "in the body": behind + 5}[cut]
    with FakeServer(path, lambda _: answer, cut=at) as fake:
        transport = make_transport()
        for _ in range(2):
            reply = transport.request("GET", "/x", repeatable=False)
            assert (reply.status, reply.body) == (200, {"ok": True})
        assert fake.connections == 1


@pytest.mark.parametrize("answer", [_PLAIN[:-1], b""], ids=["body", "nothing"])
def test_an_answer_that_ends_early_is_lost(path: Path, make_transport: MakeTransport, answer: bytes) -> None:
    with FakeServer(path, lambda _: answer, keep_alive=False):
        with pytest.raises(tensord.ServerUnavailable, match="Cannot get an answer"):
            make_transport().request("POST", "/x", {}, repeatable=False)


@pytest.mark.parametrize("ending", [b"Connection: close\r\n", b"Connection: close\r\nTransfer-Encoding: chunked\r\n"])
def test_a_connection_that_the_server_means_to_end_is_not_kept(
    path: Path, make_transport: MakeTransport, ending: bytes
) -> None:
    body = b"2\r\n{}\r\n0\r\n\r\n" if b"chunked" in ending else b""
    length = b"" if body else b"Content-Length: 0\r\n"
    answer = b"HTTP/1.1 200 OK\r\n" + ending + length + b"\r\n" + body
    with FakeServer(path, lambda _: answer) as fake:
        transport = make_transport()
        for _ in range(2):
            transport.request("GET", "/x", repeatable=False)
        assert fake.connections == 2


def test_an_answer_that_is_too_long_is_not_read(
    path: Path, make_transport: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transports, "MAX_ANSWER_BYTES", 11)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n" + b"x" * 12 + b"\r\n0\r\n\r\n"
    for answer in (_PLAIN, chunked):
        with FakeServer(path, lambda _, answer=answer: answer):
            with pytest.raises(tensord.ServerFault, match="more than 11 bytes"):
                make_transport().request("GET", "/x", repeatable=True)


@pytest.mark.parametrize(("target", "prefer"), [("/x y", None), ("/x\r\nA: b", None), ("/x", "a\r\nB: c")])
def test_nothing_that_would_end_a_line_is_sent(
    path: Path, make_transport: MakeTransport, target: str, prefer: str | None
) -> None:
    with FakeServer(path, lambda _: (200, {})) as fake:
        with pytest.raises((ValueError, tensord.TensordError)):
            make_transport().request("GET", target, repeatable=True, prefer=prefer)
        assert fake.requests == []
