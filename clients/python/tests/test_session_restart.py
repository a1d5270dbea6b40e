"""Sessions through restarts, crashes and stalls of the server, and over TCP."""

from __future__ import annotations

import gc
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
    server = Server(TENSORD_PORT="0")
    server.start()
    yield server
    gc.collect()
    server.stop()


@pytest.fixture(params=["unix", "tcp"])
def url(request: pytest.FixtureRequest, own_server: Server) -> str:
    return own_server.url if request.param == "unix" else own_server.tcp_url


def _held(client: tensord.Client) -> tensord.SessionDescriptor:
    """The client's session, once it is held."""
    assert client.session is not None
    session = client.session

    def ask() -> tensord.SessionDescriptor | None:
        state = session.refresh()
        return state if state.held else None

    held: tensord.SessionDescriptor = wait_for(ask, "the session is held")
    return held


def test_a_session_is_held_over_every_transport(own_server: Server, url: str) -> None:
    script = f"""
c = tensord.connect({url!r}); r = c.create("mine", [1, 2]); say(c.session.id); hear()
"""
    with tensord.connect(url) as client, Child(script) as child:
        assert client.url == url
        session = child.hear()
        wait_for(lambda: [each.held for each in client.sessions() if each.id == session] == [True], "it is held")
        wait_for(lambda: [each.session for each in client.get("mine").holders or ()] == [session], "it reports")
        child.kill()
        wait_for(lambda: not any(client.list()), "it ended with its process")


def test_a_worker_that_can_import_nothing_any_more_works(own_server: Server) -> None:
    """As one that has dropped its uid may, or whose file system has gone: whatever is needed is there by then."""
    script = f"""
class Nothing:
    def find_spec(self, name, *_): raise ImportError(f"{{name}} can be read no more")
sys.meta_path.insert(0, Nothing())
for url in ({own_server.url!r}, {own_server.tcp_url!r}):
    with tensord.connect(url) as c:
        events = c.events()
        with c.create("mine", {{"a": np.arange(4.0), "b": [1, 2]}}) as region:
            region.seal(checksum=True)
            with c.open(region["a"].ref()) as tensor: say(int(tensor.numpy().sum()))
        say(next(events).type)
        events.close()
        say(c.verify("mine").ok)
        try: c.get("absent")
        except tensord.RegionNotFound as error: say(error.code)
        c.delete("mine")
"""
    with Child(script) as child:
        for _ in range(2):
            assert [child.hear() for _ in range(4)] == [6, "tensord.session.opened", True, "region-not-found"]
        child.finish()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_session_and_what_it_owns_come_through_a_restart(own_server: Server, number: signal.Signals) -> None:
    with own_server.connect(retry=DEADLINE_SECONDS) as client:
        region = client.create("mine", np.arange(3))
        before = _held(client)
        for _ in range(2):
            own_server.signal(number)
            own_server.start()
            after = _held(client)
            assert (after.id, after.regions) == (before.id, 1)
            wait_for(lambda: client.get("mine").holders, "what is mapped is reported again")
            assert client.get("mine").unknown_holders is False
        assert client.get("mine").id == region.id
        region.close()


def test_what_changed_while_the_server_was_away_is_reported(own_server: Server) -> None:
    with own_server.connect(retry=DEADLINE_SECONDS) as client:
        first, second = (client.create(name, [1], ttl=600) for name in ("first", "second"))
        wait_for(lambda: client.get("first").holders and client.get("second").holders, "both are reported")
        own_server.signal(signal.SIGKILL)
        first.close()
        attached = client.attach(second.descriptor)
        own_server.start()
        wait_for(lambda: [each.mappings for each in client.get("second").holders or ()] == [2], "two map the second")
        assert client.get("first").holders == ()
        for region in (second, attached):
            region.close()
        for name in ("first", "second"):
            client.delete(client.get(name))


def test_a_session_that_ended_while_its_client_was_stopped_is_replaced(own_server: Server) -> None:
    script = """
c = tensord.connect(session_ttl=1, retry=180)
r = c.create("mine", [1, 2])
say(c.session.id)
hear()
say(c.create("again", [3]).descriptor.session)
say([r.numpy().tolist(), c.session.refresh().ttl_ms])
hear()
"""
    with (
        own_server.connect(session=False, retry=DEADLINE_SECONDS) as client,
        Child(script, environ=own_server.environ) as child,
    ):
        first = child.hear()
        wait_for(lambda: [each.held for each in client.sessions()] == [True], "it is held")
        os.kill(child.pid, signal.SIGSTOP)
        # The server's own end lets the TTL run, and nobody comes to hold the session again.
        own_server.signal(signal.SIGKILL)
        own_server.start()
        wait_for(lambda: not any(client.sessions()), "its TTL is over")
        os.kill(child.pid, signal.SIGCONT)
        child.say("go on")
        second = child.hear()
        assert second != first
        assert child.hear() == [[1, 2], 1000]
        wait_for(lambda: [(each.id, each.held) for each in client.sessions()] == [(second, True)], "it is held")
        with pytest.raises(tensord.RegionNotFound):
            client.get("mine")
        child.kill()
        wait_for(lambda: not any(client.list()), "all is gone")


def test_a_stalled_server_is_not_told_that_its_client_is_gone(own_server: Server) -> None:
    with own_server.connect(session_ttl=1) as client:
        region = client.create("mine", [1], persist=True)
        held = _held(client)
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            # Much more to tell than a socket takes, while nobody reads.
            done = threading.Event()

            def attach() -> None:
                for _ in range(20):
                    readers = [client.attach(region.descriptor) for _ in range(1000)]
                    for reader in readers:
                        reader.close()
                kept.append(client.attach(region.descriptor))
                done.set()

            kept: list[tensord.Region] = []
            thread = threading.Thread(target=attach)
            thread.start()
            wait_for(done.is_set, "attaching waits for no server")
            thread.join()
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        assert _held(client).id == held.id
        wait_for(lambda: [each.mappings for each in client.get("mine").holders or ()] == [2], "it is told at last")
        kept.pop().close()
        region.close()
        client.delete(client.get("mine"))


def test_a_client_ends_in_time_while_its_server_is_away(own_server: Server) -> None:
    script = 'c = tensord.connect(); c.create("mine", [1], ttl=1); c.create("own", [2]); say("made"); hear()'
    with own_server.connect(session=False) as client, Child(script, environ=own_server.environ) as child:
        child.hear()
        wait_for(lambda: [each.held for each in client.sessions()] == [True], "it is held")
        own_server.signal(signal.SIGKILL)
        child.finish()
        own_server.start()
        # Its session begins its TTL anew, and its regions go with it; so that nobody waits for that here:
        for session in client.sessions():
            client._api.end_session(session.id)
        wait_for(lambda: not any(client.list()), "all is gone")
