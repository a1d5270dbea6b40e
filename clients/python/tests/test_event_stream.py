"""What an event stream makes of cuts, silence, refusals and nonsense. The server here is a fake one."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from fake_server import Answer, FakeServer, Request
from harness import DEADLINE_SECONDS, wait_for

import tensord
from tensord._events import event_stream

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _block(number: int, kind: str, data: dict[str, Any]) -> bytes:
    event = {
        "specversion": "1.0",
        "id": str(number),
        "source": "/tensord/fake",
        "type": kind,
        "time": "2026-11-21T12:00:00.500Z",
        "subject": f"reg_{number}",
        "datacontenttype": "application/json",
        "tensordepoch": "1795000000000",
        "data": data,
    }
    return f"id: {number}\ndata: {json.dumps(event)}\n\n".encode()


def _of_stream(number: int, kind: str, data: dict[str, Any]) -> bytes:
    """What a stream says of itself: its id is none that a stream could go on behind."""
    return _block(number, f"tensord.stream.{kind}", data).replace(b'"id": "%d"' % number, b'"id": "f81d4fae-7dec"')


def _opened(number: int) -> bytes:
    return b"retry: 1000\n" + _of_stream(number, "opened", {"after": str(number)})


def _sealed(number: int) -> bytes:
    return _block(number, "tensord.region.sealed", {"name": f"weights-{number}"})


def _chunks(*blocks: bytes) -> bytes:
    return HEAD + b"".join(b"%x\r\n%s\r\n" % (len(block), block) for block in blocks)


def _to_stream(request: Request, last: int) -> bytes:
    """What a server that has events up to ``last`` answers."""
    after = int(request.headers.get("last-event-id", "0"))
    return _chunks(_opened(after), *(_sealed(number) for number in range(after + 1, last + 1)))


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(event_stream, "LONGEST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "http.sock"


@pytest.fixture
def client(path: Path) -> Iterator[tensord.Client]:
    with tensord.connect(f"unix://{path}", retry=5) as client:
        yield client


def _in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Runs ``work`` beside the test; the list has what it returned or raised."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def test_an_event_is_read_and_the_position_is_that_of_the_last_one_given_out(
    path: Path, client: tensord.Client
) -> None:
    with FakeServer(path, lambda request: _to_stream(request, 2)) as fake:
        with client.events(after="0", model="m", types=["tensord.region.", "tensord.model."]) as events:
            assert events.after == "0"
            event = next(events)
            assert events.after == "1"
    assert event == tensord.Event(
        id="1",
        type="tensord.region.sealed",
        time=datetime(2026, 11, 21, 12, 0, 0, 500_000, UTC),
        subject="reg_1",
        data={"name": "weights-1"},
        epoch=1795000000000,
        source="/tensord/fake",
    )
    assert fake.requests[0].path == "/v1/events?after=0&model=m&types=tensord.region.%2Ctensord.model."
    assert fake.requests[0].headers["accept"] == "text/event-stream"
    assert "last-event-id" not in fake.requests[0].headers


def test_a_cut_at_any_byte_loses_nothing_and_repeats_nothing(path: Path, client: tensord.Client) -> None:
    whole = _chunks(_opened(0), _sealed(1), b": keep-alive\n\n", _sealed(2))
    beginning = len(_chunks(_opened(0)))
    for cut in range(beginning, len(whole), 7):
        answers: Iterator[Answer] = iter([whole[:cut]])
        with FakeServer(path, lambda request, answers=answers: next(answers, _to_stream(request, 3))) as fake:
            fake.keep_alive = False
            with client.events() as events:
                assert [next(events).id for _ in range(3)] == ["1", "2", "3"], cut
        assert fake.requests[1].headers["last-event-id"] == str(whole[:cut].count(b"}}\n\n") - 1), cut


def test_behind_a_gap_the_stream_goes_on_where_the_gap_says(path: Path, client: tensord.Client) -> None:
    gap = _of_stream(7, "gap", {"requested_after": "0", "first_available": "8", "after": "7"})
    later = _of_stream(0, "of-tomorrow", {})
    answers: Iterator[Answer] = iter([_chunks(_opened(0), gap), _chunks(_opened(7), later)])
    with FakeServer(path, lambda request: next(answers, _to_stream(request, 8))) as fake:
        fake.keep_alive = False
        with client.events() as events:
            assert [next(events).type.rpartition(".")[2], events.after] == ["gap", "7"]
            assert [next(events).type.rpartition(".")[2], events.after] == ["of-tomorrow", "7"]
            assert [next(events).id, events.after] == ["8", "8"]
    assert [request.headers.get("last-event-id") for request in fake.requests] == [None, "7", "7"]


def test_a_cut_before_the_stream_has_said_where_it_stands_is_asked_again(path: Path, client: tensord.Client) -> None:
    nothing = {"items": [], "next_cursor": None}
    answers: Iterator[Answer] = iter([(200, nothing), HEAD[:0], HEAD[:20], HEAD, _chunks(_opened(0)[:-1])])
    with FakeServer(path, lambda request: next(answers, _to_stream(request, 1))) as fake:
        fake.keep_alive = False
        list(client.models())  # so that the server is known to have been there
        with client.events() as events:
            assert next(events).id == "1"
    assert [request.headers.get("last-event-id") for request in fake.requests[1:]] == [None] * 5


def test_without_reconnect_the_first_cut_is_raised_and_ends_the_stream(path: Path, client: tensord.Client) -> None:
    with FakeServer(path, lambda request: _to_stream(request, 1)) as fake:
        fake.keep_alive = False
        events = client.events(reconnect=False)
        assert next(events).id == "1"
        with pytest.raises(tensord.ServerUnavailable) as caught:
            next(events)
        assert list(events) == []
    assert caught.value.hint == "go on with events(after='1')"
    assert len(fake.requests) == 1


def test_an_answer_that_ends_in_order_is_a_cut_as_well(path: Path, client: tensord.Client) -> None:
    with FakeServer(path, lambda request: _to_stream(request, 1) + b"0\r\n\r\n"):
        with client.events(reconnect=False) as events:
            assert next(events).id == "1"
            with pytest.raises(tensord.ServerUnavailable, match="the server ended the stream"):
                next(events)


def test_a_connection_without_a_byte_is_given_up(
    path: Path, client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "SILENCE_SECONDS", 0.05)
    lasts = iter([1, 1, 2])
    with FakeServer(path, lambda request: _to_stream(request, next(lasts, 2))) as fake:
        with client.events() as events:
            assert [next(events).id, next(events).id] == ["1", "2"]
    assert [request.headers.get("last-event-id") for request in fake.requests[:3]] == [None, "1", "1"]


def test_pauses_between_attempts_grow_and_begin_anew_after_an_event(
    path: Path, client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    real_wait = threading.Event.wait

    def wait(self: threading.Event, timeout: float | None = None) -> bool:
        if timeout is not None and timeout <= 0.01:
            waits.append(timeout)
        return real_wait(self, timeout)

    lasts = iter([0, 0, 0, 0, 0, 1, 1, 2])
    with FakeServer(path, lambda request: _to_stream(request, next(lasts))) as fake:
        fake.keep_alive = False
        with client.events() as events:
            monkeypatch.setattr(threading.Event, "wait", wait)
            assert [next(events).id, next(events).id] == ["1", "2"]
    assert waits == [0.001, 0.002, 0.004, 0.008, 0.01, 0.001, 0.002]


PROBLEM = {"code": "validation-failed", "detail": "Cannot follow the events: no", "hint": "say yes", "status": 422}


def test_a_refusal_is_the_mapped_error(path: Path, client: tensord.Client) -> None:
    with FakeServer(path, lambda _: (422, PROBLEM)) as fake:
        with pytest.raises(tensord.ValidationFailed, match="Cannot follow the events: no") as caught:
            client.events(after="x")
    assert (caught.value.hint, len(fake.requests)) == ("say yes", 1)


def test_a_refusal_on_the_way_is_raised_too_and_ends_the_stream(path: Path, client: tensord.Client) -> None:
    answers: Iterator[Answer] = iter([_chunks(_opened(0)), (429, {"code": "too-many-requests", "detail": "full"})])
    with FakeServer(path, lambda _: next(answers)) as fake:
        fake.keep_alive = False
        events = client.events()
        with pytest.raises(tensord.TooManyRequests):
            next(events)
        assert list(events) == []


PASSING: list[Answer] = [
    (503, {"code": "shutting-down", "detail": "going"}),
    (507, {"code": "out-of-descriptors", "detail": "Cannot open an event stream: too many connections stay"}),
]


@pytest.mark.parametrize("passing", PASSING)
def test_a_server_that_refuses_for_a_moment_is_waited_for(path: Path, client: tensord.Client, passing: Answer) -> None:
    answers: Iterator[Answer] = iter([passing, _chunks(_opened(0)), passing, passing])
    with FakeServer(path, lambda request: next(answers, _to_stream(request, 1))) as fake:
        fake.keep_alive = False
        with client.events() as events:
            assert next(events).id == "1"
    assert len(fake.requests) == 5


def test_a_server_that_has_no_descriptor_for_long_is_believed(path: Path) -> None:
    with FakeServer(path, lambda _: PASSING[1]) as fake, tensord.connect(f"unix://{path}", retry=0.1) as client:
        with pytest.raises(tensord.OutOfDescriptors, match="too many connections stay"):
            client.events()
    assert len(fake.requests) > 1


def test_nobody_there_is_said_at_once_unless_somebody_was(path: Path) -> None:
    with tensord.connect(f"unix://{path}", retry=1e6) as client:
        with pytest.raises(tensord.ServerUnavailable, match="nobody listens"):
            client.events()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((200, {"items": []}), "the answer is application/json, want text/event-stream"),
        (b"HTTP/1.1 404 X\r\nContent-Length: 4\r\n\r\nnope", "no problem: is this a tensord server"),
        (_chunks(_sealed(1)), "begins with 'tensord.region.sealed'"),
        (_chunks(_opened(0), b"data: no json\n\n"), "what came is none"),
        (_chunks(_opened(0), b"data: []\n\n"), "what came is none"),
        (_chunks(_opened(0), b"data: " + b"[" * 100_000 + b"\n\n"), "what came is none"),
        (_chunks(_opened(0), b"data: \xff\n\n"), "what came is none"),
        (_chunks(_opened(0), _sealed(1).replace(b'"id": "1"', b'"id": "1\\r\\nX: y"')), "is no id"),
        (_chunks(_of_stream(0, "opened", {"after": "1\r\nX: y"})), "is no id"),
        (_chunks(_of_stream(0, "opened", {"after": 1})), "what came is none"),
        (_chunks(_opened(0), _sealed(1).replace(b"2026-11-21", b"yesterday")), "what came is none"),
        (_chunks(_opened(0), b"data: " + b"x" * 2_000_000), "more than 1048576 bytes"),
    ],
)
def test_nonsense_is_a_fault_of_the_server_and_ends_the_stream(
    path: Path, client: tensord.Client, answer: Answer, says: str
) -> None:
    with FakeServer(path, lambda _: answer) as fake:
        with pytest.raises(tensord.TensordError, match=says) as caught:
            next(client.events())
    assert not isinstance(caught.value, tensord.ServerUnavailable)
    assert len(fake.requests) == 1


def test_close_ends_an_iteration_that_waits_for_an_event(path: Path, client: tensord.Client) -> None:
    with FakeServer(path, lambda request: _to_stream(request, 1)):
        events = client.events()
        thread, results = _in_thread(lambda: [event.id for event in events])
        wait_for(lambda: events.after == "1", "the first event was given out")
        events.close()
        thread.join(DEADLINE_SECONDS)
        assert results == [["1"]]
        events.close()
        assert list(events) == []


def test_close_ends_an_iteration_that_waits_for_headers_or_pauses(
    path: Path, client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def answer(request: Request) -> Answer:
        if "last-event-id" in request.headers:
            release.wait(DEADLINE_SECONDS)
            return None
        return _chunks(_opened(0))

    with FakeServer(path, answer) as fake:
        fake.keep_alive = False
        for pauses in (False, True):
            events = client.events()
            before = len(fake.requests)
            thread, results = _in_thread(lambda events=events: list(events))
            wait_for(lambda before=before: len(fake.requests) > before, "it is asked again")
            if pauses:
                monkeypatch.setattr(events, "_pause", 1e6)
                release.set()
                wait_for(lambda events=events: events._answer is None, "it pauses")
            events.close()
            thread.join(DEADLINE_SECONDS)
            assert results == [[]]
            release.set()


def test_closing_the_client_ends_its_streams(path: Path) -> None:
    with FakeServer(path, lambda request: _to_stream(request, 1)):
        client = tensord.connect(f"unix://{path}")
        events = client.events()
        thread, results = _in_thread(lambda: list(events))
        wait_for(lambda: events.after == "1", "the first event was given out")
        client.close()
        thread.join(DEADLINE_SECONDS)
        assert [type(result) for result in results] == [tensord.Closed]


def test_an_interrupt_leaves_the_stream_whole(path: Path, client: tensord.Client) -> None:
    class Interrupt(BaseException):
        pass

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interrupt

    lasts = iter([1])
    with FakeServer(path, lambda request: _to_stream(request, next(lasts, 2))):
        with client.events() as events:
            assert next(events).id == "1"
            before = signal.signal(signal.SIGALRM, interrupt)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                with pytest.raises(Interrupt):
                    next(events)
            finally:
                signal.signal(signal.SIGALRM, before)
            # Bytes of a half-read chunk may be lost, so nothing more is read from that connection.
            assert events._answer is None
            assert next(events).id == "2"


def test_a_stream_that_is_dropped_lets_go_of_its_connection(path: Path, client: tensord.Client) -> None:
    with FakeServer(path, lambda request: _to_stream(request, 1)) as fake:
        client.events()
        sock = fake._sockets[0]
        deadline = time.monotonic() + DEADLINE_SECONDS
        wait_for(lambda: sock.fileno() == -1 or time.monotonic() > deadline, "the fake server sees the end")
        assert sock.fileno() == -1
