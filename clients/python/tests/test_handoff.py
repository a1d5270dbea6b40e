"""Hand-offs: a region that goes from its maker to one consumer, and says how long it waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import Server

import tensord


def _owner(handoff_ms: int, linger_ms: int = 0) -> tensord.Owner:
    return tensord.Owner("linger", linger_ms=linger_ms, handoff_ms=handoff_ms)


def test_the_server_is_told_how_long_it_waits(client: tensord.Client) -> None:
    with client.create("result", [1], linger=0, handoff=2.5) as region:
        assert region.descriptor.owner == _owner(2500)
        assert client.change(region, linger=0, handoff=7).owner == _owner(7000)
        assert client.change(region, linger=0).owner == _owner(60_000)
        assert client.change(region, linger=1, handoff=0).owner == _owner(0, linger_ms=1000)
    with client.create(None, [1], linger=0, handoff=0.0001) as region:
        assert region.descriptor.owner == _owner(1)


def test_every_call_that_makes_a_region_says_it(server: Server, client: tensord.Client) -> None:
    with (
        client.get_or_create("built", lambda: [1], linger=0, handoff=5) as built,
        tensord.get_or_create("too", lambda: [1], linger=0, handoff=5) as too,
        tensord.create_shared_tensor("one", [1], linger=0, handoff=5) as one,
        client.ring(slots=1, slot_bytes=8, linger=0, handoff=5) as ring,
    ):
        assert {region.descriptor.owner for region in (built, too, one, ring.region)} == {_owner(5000)}


def _calls(client: tensord.Client) -> list[Callable[..., Any]]:
    def never() -> Any:
        raise AssertionError("nothing is built")

    return [
        lambda **options: client.create("result", [1], **options),
        lambda **options: client.get_or_create("result", never, **options),
        lambda **options: client.ring(slots=1, slot_bytes=8, **options),
        lambda **options: client.change("reg_a", **options),
    ]


@pytest.mark.parametrize("owner", [{}, {"ttl": 60}, {"persist": True}], ids=str)
def test_a_wait_of_what_does_not_linger_is_refused(client: tensord.Client, owner: dict[str, Any]) -> None:
    for call in _calls(client):
        with pytest.raises(tensord.ValidationFailed, match="handoff= is there without linger=, want both"):
            call(handoff=5, **owner)
    assert not any(client.list())


@pytest.mark.parametrize("handoff", [-1, float("nan"), float("inf")])
def test_a_wait_that_is_none_is_refused(client: tensord.Client, handoff: float) -> None:
    for call in _calls(client)[::2]:
        with pytest.raises(tensord.ValidationFailed):
            call(linger=0, handoff=handoff)
