"""What the server is told of this process's mappings. Pure."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tensord._session.reports import Mappings, count_mappings, to_messages


class Holders:
    """How the server counts (``src/memory/sessions/holders.ts``): writable stays until the last mapping is gone."""

    def __init__(self) -> None:
        self.known: dict[str, Mappings] = {}

    def hear(self, message: dict[str, Any]) -> None:
        region = message.get("attach") or message["detach"]
        before = self.known.get(region, Mappings())
        count = before.count + (1 if "attach" in message else -1)
        assert count >= 0, "told of the end of a mapping that it never heard of"
        if count == 0:
            del self.known[region]
        else:
            self.known[region] = Mappings(count, before.writable or message.get("writable", False))


def test_mappings_are_summed_up_by_region() -> None:
    assert count_mappings([("a", False), ("b", False), ("a", True)]) == {"a": Mappings(2, True), "b": Mappings(1)}


@pytest.mark.parametrize(
    ("told", "now", "count"),
    [
        ({}, {"a": Mappings(2)}, 2),
        ({"a": Mappings(2)}, {}, 2),
        ({"a": Mappings(2, True)}, {"a": Mappings(2, True)}, 0),
        ({"a": Mappings(2, True)}, {"a": Mappings(3, True)}, 1),
    ],
    ids=str,
)
def test_only_the_difference_is_told(told: dict[str, Mappings], now: dict[str, Mappings], count: int) -> None:
    assert len(list(to_messages(told, now))) == count


def test_the_server_knows_after_the_messages_what_is_mapped() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)  # noqa: T201  # to run it again
    chance = random.Random(seed)
    holders, told = Holders(), dict[str, Mappings]()
    for _ in range(2000):
        mapped = [(chance.choice("abc"), chance.random() < 0.3) for _ in range(chance.randrange(8))]
        now = count_mappings(mapped)
        for message in to_messages(told, now):
            holders.hear(message)
        told = now
        assert holders.known == now
