"""What the server is told of this process's mappings. Pure."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tensord._session.reports import NONE, Key, Mappings, Reported, count_mappings, count_passed, to_messages


class Holders:
    """How the server counts (``src/memory/state/holders.ts``): writable stays until the last mapping is gone."""

    def __init__(self) -> None:
        self.known: dict[Key, Mappings] = {}
        self.gone: dict[Key, int] = {}

    def hear(self, message: dict[str, Any]) -> None:
        key = message.get("attach") or message["detach"], message.get("maker")
        before = self.known.get(key, NONE)
        count = before.count + (1 if "attach" in message else -1)
        assert count >= 0, "told of the end of a mapping that it never heard of"
        if count == 0:
            del self.known[key]
            self.gone[key] = self.gone.get(key, 0) + 1
        else:
            self.known[key] = Mappings(count, before.writable or message.get("writable", False))


@pytest.mark.parametrize("tells_makers", [False, True])
def test_mappings_are_summed_up_by_region_and_by_who_made_it(tells_makers: bool) -> None:
    mapped = [Reported("a"), Reported("b"), Reported("a", writable=True, is_makers=True)]
    sums = count_mappings(mapped, tells_makers=tells_makers)
    if tells_makers:
        assert sums == {("a", False): Mappings(1), ("a", True): Mappings(1, True), ("b", False): Mappings(1)}
    else:
        assert sums == {("a", None): Mappings(2, True), ("b", None): Mappings(1)}


A: Key = ("a", False)


@pytest.mark.parametrize(
    ("told", "now", "count"),
    [
        ({}, {A: Mappings(2)}, 2),
        ({A: Mappings(2)}, {}, 2),
        ({A: Mappings(2, True)}, {A: Mappings(2, True)}, 0),
        ({A: Mappings(2, True)}, {A: Mappings(3, True)}, 1),
    ],
    ids=str,
)
def test_only_the_difference_is_told(told: dict[Key, Mappings], now: dict[Key, Mappings], count: int) -> None:
    assert len(list(to_messages(told, now, {}))) == count


def test_what_passed_untold_is_told_each_time_or_once_if_nobody_counts() -> None:
    ended = [Reported("a", hand_off=True)] * 3 + [Reported("b", hand_off=None)] * 3
    passed = count_passed(ended, tells_makers=True)
    assert passed == {A: 3, ("b", False): 1}
    holders = Holders()
    for message in to_messages({}, {}, passed):
        holders.hear(message)
    assert (holders.known, holders.gone) == ({}, {A: 3, ("b", False): 1})


def test_what_passed_while_others_stay_is_no_end() -> None:
    holders = Holders()
    for message in to_messages({}, {A: Mappings(1)}, {A: 2}):
        holders.hear(message)
    assert (holders.known, holders.gone) == ({A: Mappings(1)}, {})


def test_a_server_that_knows_no_makers_is_told_of_none() -> None:
    sums = count_mappings([Reported("a", is_makers=True)], tells_makers=False)
    assert list(to_messages({}, sums, {})) == [{"attach": "a", "writable": False}]


def test_the_server_knows_after_the_messages_what_is_mapped() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)  # noqa: T201  # to run it again
    chance = random.Random(seed)
    holders, told = Holders(), dict[Key, Mappings]()
    for _ in range(2000):
        mapped = [
            Reported(chance.choice("abc"), writable=chance.random() < 0.3, is_makers=chance.random() < 0.3)
            for _ in range(chance.randrange(8))
        ]
        ended = [Reported(chance.choice("abc"), hand_off=True) for _ in range(chance.randrange(3))]
        now = count_mappings(mapped, tells_makers=True)
        for message in to_messages(told, now, count_passed(ended, tells_makers=True)):
            holders.hear(message)
        told = now
        assert holders.known == now
