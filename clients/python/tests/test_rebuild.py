"""``rebuild=True`` builds anew what is there; and what was found says that it was, and how old it is."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from harness import DEADLINE_SECONDS, Server, wait_for

import tensord
from tensord._api import Api
from tensord._transport.transport import Transport


def _never() -> Any:
    raise AssertionError("it is built already")


def test_what_was_found_says_so_and_how_old_it_is(client: tensord.Client) -> None:
    with client.get_or_create("weights", lambda: [1]) as built:
        began = time.monotonic()
        wait_for(lambda: time.monotonic() - began > 0.05, "it has an age")
        with client.get_or_create("weights", _never) as found:
            assert (built.created, found.created) == (True, False)
            assert found.created_at == built.created_at == client.get("weights").created_at
            assert found.age >= 0.05


@pytest.mark.parametrize("version", [None, "", "2"])
def test_a_rebuild_stands_in_the_olds_place(server: Server, client: tensord.Client, version: str | None) -> None:
    with client.get_or_create("weights", lambda: [1], version=version) as old:
        with client.get_or_create("weights", lambda: [2], version=version, rebuild=True) as new:
            assert (new.created, new.version, new.numpy().tolist()) == (True, version or "", [2])
            assert old.numpy().tolist() == [1]
            with tensord.get_or_create("weights", _never, version=version) as found:
                assert found.id == new.id
    wait_for(lambda: len(list(client.list())) == 1, "the old one is gone")
    with tensord.get_or_create("weights", lambda: [3, 4], version=version, rebuild=True) as other:
        assert (other.created, len(other.numpy())) == (True, 2)
    assert client.stats().claims == 0


def test_of_what_is_not_there_it_is_a_build(client: tensord.Client) -> None:
    with client.get_or_create("weights", lambda: [1], rebuild=True) as built:
        assert (built.created, built.name) == (True, "weights")


def test_two_at_once_are_one_build_and_others_have_the_old_one_meanwhile(client: tensord.Client) -> None:
    client.get_or_create("weights", lambda: [1]).close()
    begun, go_on = threading.Event(), threading.Event()

    def build() -> Any:
        begun.set()
        assert go_on.wait(DEADLINE_SECONDS)
        return [2]

    made: list[tuple[bool, list[int]]] = []

    def rebuild() -> None:
        with client.get_or_create("weights", build, rebuild=True) as region:
            made.append((region.created, region.numpy().tolist()))

    threads = [threading.Thread(target=rebuild) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert begun.wait(DEADLINE_SECONDS)
        with client.get_or_create("weights", _never) as meanwhile:
            assert meanwhile.numpy().tolist() == [1]
        with pytest.raises(tensord.DeadlineExceeded):
            client.get_or_create("weights", _never, rebuild=True, timeout=0.1)
    finally:
        go_on.set()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)
    assert sorted(made) == [(False, [2]), (True, [2])]


@pytest.mark.parametrize("build", [lambda: 1 / 0, lambda: {"a": object()}], ids=["it raises", "it makes no tensors"])
def test_one_that_fails_leaves_the_old_one_and_gives_the_turn_on(client: tensord.Client, build: Any) -> None:
    with client.get_or_create("weights", lambda: [1]) as old:
        with pytest.raises((ZeroDivisionError, tensord.TensordError)):
            client.get_or_create("weights", build, rebuild=True)
        with client.get_or_create("weights", _never) as found:
            assert found.id == old.id
    with client.get_or_create("weights", lambda: [2], rebuild=True, timeout=DEADLINE_SECONDS) as new:
        assert new.created
    assert client.stats().claims == 0


def test_one_that_is_given_up_after_its_creation_leaves_nothing_of_it(
    client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client.get_or_create("weights", lambda: [1]) as old:
        create = Api.create_region

        def lose_the_answer(api: Api, body: Any) -> Any:
            create(api, body)
            raise tensord.ServerUnavailable("no answer")

        with monkeypatch.context() as patched:
            patched.setattr(Api, "create_region", lose_the_answer)
            with pytest.raises(tensord.ServerUnavailable):
                client.get_or_create("weights", lambda: [2], rebuild=True)
        wait_for(lambda: client.stats().claims == 0, "the claim is released")
        assert [region.id for region in client.list()] == [old.id]


def test_a_create_whose_answer_is_lost_is_asked_for_again(
    client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.get_or_create("weights", lambda: [1]).close()
    request, lost = Transport.request, []

    def lose_once(transport: Transport, method: str, path: str, body: Any = None, **options: Any) -> Any:
        reply = request(transport, method, path, body, **options)
        if (method, path) == ("POST", "/v1/regions") and not lost:
            lost.append(reply.body["id"])
            assert options["repeatable"], "else the client would give up"
            return request(transport, method, path, body, **options)
        return reply

    monkeypatch.setattr(Transport, "request", lose_once)
    with client.get_or_create("weights", lambda: [2], rebuild=True) as new:
        assert (new.created, lost) == (True, [new.id])
    wait_for(lambda: len(list(client.list())) == 1, "the old one is gone")
