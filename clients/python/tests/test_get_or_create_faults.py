"""Builders that are killed, and a server that stops, dies or is away while they build."""

from __future__ import annotations

import gc
import signal
import threading
from typing import Any

import pytest
from harness import DEADLINE_SECONDS, Child, Server, wait_for

import tensord


def _fail() -> Any:
    raise AssertionError("it is built already")


# Where the builder is when it is killed: in `build`; and in the copy, when the region is there, open and named.
_IN_BUILD = 'def build(): say("building"); hear(); return np.full(1000, value)'
_IN_COPY = """
import tensord._region.make
copy = tensord._region.make.copy_all
def copy_half(pairs):
    for target, source in pairs:
        target[:4000] = source.array.view(np.uint8)[:4000]
    say("building")
    hear()
    copy([(target, source)])
tensord._region.make.copy_all = copy_half
def build(): return np.full(1000, value)
"""
_IN_SEAL = """
seal = tensord.Region.seal
def slow(self, **options):
    say("building")
    hear()
    return seal(self, **options)
tensord.Region.seal = slow
def build(): return np.full(1000, value)
"""


def _builder(value: int, where: str) -> str:
    return f"""
value = {value}
{where}
client = tensord.connect()
with client.get_or_create("weights", build) as region:
    say(sorted(set(region.numpy().tolist())))
    hear()
"""


@pytest.mark.parametrize("where", [_IN_BUILD, _IN_COPY, _IN_SEAL], ids=["in the build", "in the copy", "at the seal"])
def test_the_third_builds_when_two_builders_were_killed(client: tensord.Client, where: str) -> None:
    with Child('r = tensord.attach("weights", timeout=60); say(sorted(set(r.numpy().tolist())))') as reader:
        with Child(_builder(1, where)) as first:
            assert first.hear() == "building"
            with Child(_builder(2, where)) as second, Child(_builder(3, where)) as third:
                first.kill()
                waiting = {2: second, 3: third}
                value = wait_for(lambda: [value for value, child in waiting.items() if child.has_said], "one builds")[0]
                with waiting.pop(value) as next_builder:
                    assert next_builder.hear() == "building"
                    next_builder.kill()
                ((value, last),) = waiting.items()
                assert last.hear() == "building"
                with pytest.raises((tensord.RegionNotFound, tensord.RegionNotSealed)):
                    client.attach("weights", timeout=0.05)
                last.say("go on")
                assert last.hear() == [value]
                assert reader.hear() == [value]
                last.finish()
        reader.finish()
    assert client.stats().claims == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_build_goes_on_through_a_restart_of_the_server(number: signal.Signals) -> None:
    server = Server()
    server.start()
    try:
        with server.connect(retry=DEADLINE_SECONDS) as client, server.connect(retry=DEADLINE_SECONDS) as other:
            begun, go_on = threading.Event(), threading.Event()
            results: list[tuple[bool, list[int]]] = []

            def build() -> Any:
                begun.set()
                assert go_on.wait(DEADLINE_SECONDS)
                return [1, 2, 3]

            def work(who: tensord.Client, what: Any) -> None:
                with who.get_or_create("weights", what) as region:
                    results.append((region.created, region.numpy().tolist()))

            threads = [threading.Thread(target=work, args=(client, build))]
            threads[0].start()
            assert begun.wait(DEADLINE_SECONDS)
            threads.append(threading.Thread(target=work, args=(other, _fail)))
            threads[1].start()
            wait_for(lambda: client.stats().sessions == 2, "the reader waits")
            sessions = {session.id for session in client.sessions()}
            server.signal(number)
            server.start()
            wait_for(lambda: all(session.held for session in client.sessions()), "both are held again")
            assert {session.id for session in client.sessions()} == sessions
            assert results == []
            go_on.set()
            for thread in threads:
                thread.join(DEADLINE_SECONDS)
            assert sorted(results) == [(False, [1, 2, 3]), (True, [1, 2, 3])]
            client.delete(client.get("weights"))
            gc.collect()
            wait_for(lambda: not any(client.list()), "all is gone")
    finally:
        server.stop()


def test_a_build_that_fails_while_the_server_is_away_gives_the_turn_on_later() -> None:
    server = Server()
    server.start()
    try:
        with server.connect(retry=0.05) as client:

            def build() -> Any:
                server.signal(signal.SIGKILL)
                return [1]

            with pytest.raises(tensord.ServerUnavailable):
                client.get_or_create("weights", build)
            server.start()
            with client.get_or_create("weights", lambda: [2], timeout=DEADLINE_SECONDS) as region:
                assert region.numpy().tolist() == [2]
            client.delete(client.get("weights"))
            wait_for(lambda: not any(client.list()), "all is gone")
    finally:
        server.stop()
