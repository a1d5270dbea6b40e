"""Events of a real server: what comes, in which order, through restarts and forks."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from harness import DEADLINE_SECONDS, Child, Server, wait_for

import tensord


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that the test may kill."""
    server = Server()
    server.start()
    yield server
    server.stop()


def _until(events: tensord.EventStream, kind: str) -> list[tensord.Event]:
    """The events up to the first one of that type."""
    seen = [next(events)]
    while seen[-1].type != kind:
        seen.append(next(events))
    return seen


def _free(client: tensord.Client) -> None:
    for region in client.list():
        client.delete(region)
    wait_for(lambda: not any(client.list()), "every region is gone")


def test_a_sessions_events_are_its_own_and_those_of_its_regions(server: Server, client: tensord.Client) -> None:
    with server.connect(name="ours") as ours:
        assert ours.session is not None
        session = ours.session.id
        with client.events(session=session, after="0") as events:
            client.create("theirs", np.zeros(1, np.float32)).close()
            ours.create("ours", np.zeros(1, np.float32)).close()
            ours.close()
            told = _until(events, "tensord.session.ended")
    seen = [(event.type, event.data.get("name")) for event in told if event.type != "tensord.stream.gap"]
    assert "tensord.session.opened" in {kind for kind, _ in seen}
    assert ("tensord.region.allocated", "ours") in seen
    assert told[-1].subject == session
    assert "theirs" not in str(seen)
    _free(client)


def test_a_regions_life_comes_in_its_order(client: tensord.Client) -> None:
    with client.events(types="tensord.region.") as events:
        with client.create("weights", np.zeros(4, np.float32), ttl=600) as region:
            region.seal()
            client.delete(region)
        life = _until(events, "tensord.region.deleted")
    assert [event.type.removeprefix("tensord.region.") for event in life] == [
        "allocated",
        "sealed",
        "draining",
        "deleted",
    ]
    assert {event.subject for event in life} == {region.id}
    assert {(event.epoch, event.source) for event in life} == {
        (client.stats().epoch, f"/tensord/{client.stats().instance}")
    }
    numbers = [int(event.id) for event in life]
    assert numbers == sorted(set(numbers))
    assert life[1].data["name"] == "weights"
    assert life[1].data["tensor_count"] == 1
    assert life[-1].data["reason"] == "request"


def test_a_stream_is_narrowed_to_a_model_and_to_types(client: tensord.Client) -> None:
    with (
        client.events(model="m") as of_model,
        client.events(types="tensord.model.") as of_type,
        client.events(types=["tensord.region.sealed", "tensord.model.unregistered"]) as of_types,
    ):
        client.register_model("m")
        for model in ("default", "m"):
            client.create("weights", [1], model=model, ttl=600).seal()
        client.unregister_model("m", drain=True)
        end = "tensord.model.unregistered"
        assert {event.data.get("model", "m") for event in _until(of_model, end)} == {"m"}
        assert {event.type for event in _until(of_type, end)} == {"tensord.model.registered", end}
        assert [event.type for event in _until(of_types, end)] == ["tensord.region.sealed"] * 2 + [end]


def test_a_list_after_the_stream_began_and_the_stream_miss_nothing_together(client: tensord.Client) -> None:
    stop = threading.Event()

    def create() -> None:
        for number in range(50):
            client.create(f"r{number}", [number], ttl=600).close()
        stop.set()

    thread = threading.Thread(target=create)
    thread.start()
    with client.events(types="tensord.region.allocated") as events:
        known = {region.id for region in client.list()}
        thread.join(DEADLINE_SECONDS)
        assert stop.is_set()
        while len(known) < 50:
            known.add(next(events).subject or "")
    assert known == {region.id for region in client.list()}


def test_a_stream_begins_after_the_event_that_is_named(client: tensord.Client) -> None:
    with client.events() as events:
        for name in ("a", "b", "c"):
            client.create(name, [1], ttl=600).close()
        first, *rest = (next(events) for _ in range(3))
    with client.events(after=first.id) as events:
        assert events.after == first.id
        assert [next(events), next(events)] == rest


@pytest.mark.parametrize(("after", "error"), [("x", tensord.ValidationFailed), ("1" * 17, tensord.ValidationFailed)])
def test_what_is_no_id_is_refused(client: tensord.Client, after: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        client.events(after=after)


def test_an_id_that_is_not_kept_is_a_gap(client: tensord.Client) -> None:
    with client.events(after="1") as events:
        gap = next(events)
        assert (gap.type, gap.subject) == ("tensord.stream.gap", None)
        assert gap.data["requested_after"] == "1"
        assert events.after == str(int(gap.data["first_available"]) - 1)


def test_a_stream_goes_on_through_a_restart_without_loss(own_server: Server) -> None:
    with (
        own_server.connect(retry=DEADLINE_SECONDS) as client,
        client.events(types="tensord.region.allocated") as events,
    ):
        for number in range(3):
            client.create(f"before-{number}", [1], ttl=600).close()
        assert next(events).data["name"] == "before-0"
        own_server.signal(signal.SIGTERM)
        own_server.start()
        client.create("after", [1], ttl=600).close()
        assert [next(events).data["name"] for _ in range(3)] == ["before-1", "before-2", "after"]
        _free(client)


def test_a_thread_that_waits_goes_on_after_a_crash_and_is_told_of_the_gap(own_server: Server) -> None:
    with (
        own_server.connect(retry=DEADLINE_SECONDS) as client,
        client.events(types="tensord.region.allocated") as events,
    ):
        seen: list[tensord.Event] = []

        def follow() -> None:
            for event in events:
                seen.append(event)
                if event.data.get("name") == "after":
                    return

        thread = threading.Thread(target=follow)
        thread.start()
        client.create("before", [1], ttl=600).close()
        wait_for(lambda: seen, "the first event came")
        own_server.signal(signal.SIGKILL)
        own_server.start()
        client.create("after", [1], ttl=600).close()
        thread.join(DEADLINE_SECONDS)
        assert [event.type.rpartition(".")[2] for event in seen] == ["allocated", "gap", "allocated"]
        assert seen[2].epoch > seen[0].epoch
        _free(client)


def test_a_forked_child_gets_the_same_events_and_takes_none_of_its_parents(server: Server) -> None:
    script = """
def names(count):
    return [next(events).data["name"] for _ in range(count)]
with tensord.connect() as client:
    events = client.events(types="tensord.region.allocated")
    for number in range(10):
        client.create(f"r{number}", [number], ttl=600).close()
    before = names(5)
    connection = events._answer
    read, write = os.pipe()
    if os.fork() == 0:
        signal.alarm(180)
        os.write(write, json.dumps(before + names(15)).encode())
        events.close()
        os._exit(0)
    os.close(write)
    for number in range(10, 20):
        client.create(f"r{number}", [number], ttl=600).close()
    child = json.loads(os.fdopen(read).read())
    os.wait()
    signal.alarm(180)
    say([child, before + names(15)])
    say(events._answer is connection)
    events.close()
"""
    with Child(script) as child:
        assert child.hear() == [[f"r{number}" for number in range(20)]] * 2
        assert child.hear() is True
        child.finish()


@pytest.mark.parametrize("ending", ["events.close(); os._exit(0)", "del events, client; os._exit(0)", "sys.exit(0)"])
def test_a_child_that_is_forked_while_a_thread_waits_ends_without_a_word_to_the_server(
    server: Server, ending: str
) -> None:
    script = f"""
import threading
client = tensord.connect()
events = client.events(types="tensord.region.allocated")
names = []
def follow(events):
    for event in events:
        names.append(event.data["name"])
        if event.data["name"] == "end":
            return
thread = threading.Thread(target=follow, args=(events,))
thread.start()
client.create("begin", [1], ttl=600).close()
while not names:
    thread.join(0.001)
connection = events._answer
pid = os.fork()
if pid == 0:
    signal.alarm(180)
    {ending}
assert os.waitpid(pid, 0)[1] == 0
client.create("end", [1], ttl=600).close()
thread.join(180)
say(names)
say(events._answer is connection)
client.close()
events.close()
"""
    with Child(script) as child:
        assert child.hear() == ["begin", "end"]
        assert child.hear() is True
        child.finish()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes under other uids")
def test_a_foreign_uid_is_told_so(server: Server) -> None:
    script = """
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    tensord.connect().events()
except tensord.AccessDenied as error:
    say(str(error))
"""
    with Child(script) as child:
        assert "uid 65534" in child.hear()
        child.finish()
