"""Servers stop, die and come back; mappings do not notice, and clients wait as long as they were told to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from harness import DEADLINE_SECONDS, Server, wait_for

import tensord


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that the test may kill."""
    server = Server()
    server.start()
    yield server
    server.stop()


def _free(server: Server, client: tensord.Client) -> None:
    for region in client.list():
        client.delete(region)
    wait_for(lambda: not any(client.list()), "every region is gone")
    assert server.region_names() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_mapped_region_does_not_notice_that_the_server_is_away(own_server: Server, number: signal.Signals) -> None:
    with own_server.connect(retry=0.05) as client:
        region = client.create("kept", np.arange(1000), ttl=600)
        sealed = client.create("sealed", np.arange(10), ttl=600)
        sealed.seal(checksum=True)
        ref = region.ref()
        own_server.signal(number)

        region.numpy()[0] = 7
        assert region.numpy()[0] == 7
        with client.open(ref) as tensor:
            assert tensor.numpy()[0] == 7
        with client.attach(region.descriptor) as attached:
            assert attached.numpy()[0] == 7
        with pytest.raises(tensord.ServerUnavailable):
            region.seal()
        assert region.writable
        region.numpy()[1] = 8
        with pytest.raises(tensord.ServerUnavailable):
            client.create("another", [1], ttl=600)

        own_server.start()
        assert client.attach("kept").numpy()[:2].tolist() == [7, 8]
        assert client.verify(sealed).ok is True
        region.seal(checksum=True)
        assert client.verify(region).ok is True
        region.close()
        sealed.close()
        _free(own_server, client)


def test_a_server_that_only_the_session_has_met_is_waited_for(own_server: Server) -> None:
    with own_server.connect() as maker, own_server.connect(retry=DEADLINE_SECONDS) as client:
        descriptor = maker.create("kept", [1, 2], ttl=3600).descriptor
        # Asks nobody by itself; its session is opened in the background.
        client.attach(descriptor).close()
        # The maker's may be there as well: it is opened unless its mapping is gone before its thread looks.
        session = client.session
        wait_for(lambda: session is not None and session.opened_id is not None, "the session is opened")
        own_server.signal(signal.SIGKILL)
        starting = threading.Timer(0.1, own_server.start)
        starting.start()
        assert client.get("kept").id == descriptor.id
        starting.join()


def test_calls_wait_for_a_server_that_restarts(own_server: Server) -> None:
    with own_server.connect(retry=DEADLINE_SECONDS) as client:
        region = client.create("kept", [1, 2], ttl=600)
        own_server.signal(signal.SIGKILL)
        results: dict[str, object] = {}

        def create() -> None:
            with client.create("second", [3], ttl=600) as second:
                results["create"] = second.created

        def run(name: str, call: object) -> threading.Thread:
            def work() -> None:
                results[name] = call()  # type: ignore[operator]

            thread = threading.Thread(target=work if name != "create" else create)
            thread.start()
            return thread

        threads = [
            run("get", lambda: client.get("kept").id),
            run("change", lambda: dict(client.change(region, labels={"a": "b"}).labels)),
            run("seal", lambda: region.seal().state),
            run("create", None),
            run("attach", lambda: client.attach("kept", timeout=DEADLINE_SECONDS).numpy().tolist()),
        ]
        wait_for(lambda: all(thread.is_alive() for thread in threads), "the requests are under way")
        own_server.start()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)
        assert results == {"get": region.id, "change": {"a": "b"}, "seal": "sealed", "create": True, "attach": [1, 2]}
        region.close()
        _free(own_server, client)


def test_a_wait_for_a_name_goes_on_through_a_restart(own_server: Server) -> None:
    with own_server.connect(retry=DEADLINE_SECONDS, session=False) as client:
        before, own = client.stats().http.requests, 0
        found: list[list[int]] = []

        def attach() -> None:
            with client.attach("later", timeout=60) as region:
                found.append(region.numpy().tolist())

        def is_asked() -> bool:
            nonlocal own
            own += 1
            return client.stats().http.requests > before + own

        thread = threading.Thread(target=attach)
        thread.start()
        wait_for(is_asked, "the wait has begun")
        own_server.signal(signal.SIGTERM)
        own_server.start()
        with client.create("later", [4, 5], ttl=600) as region:
            region.seal()
            thread.join(DEADLINE_SECONDS)
        assert found == [[4, 5]]
        _free(own_server, client)


def test_a_client_may_come_before_its_server() -> None:
    server = Server()
    clients: list[tensord.Client] = []
    thread = threading.Thread(target=lambda: clients.append(server.connect(wait=DEADLINE_SECONDS)))
    thread.start()
    wait_for(thread.is_alive, "the client waits")
    try:
        server.start()
        thread.join(DEADLINE_SECONDS)
        with clients[0] as client:
            assert client.stats().instance == server.instance
    finally:
        server.stop()
